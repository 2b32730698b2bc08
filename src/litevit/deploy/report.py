"""What became of an export."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from litevit.deploy.verify import Check


class ExportError(RuntimeError):
    """The file is not the function that the model is; it was not kept. `report` says what was found."""

    def __init__(self, message: str, report: "ExportReport"):
        super().__init__(message)
        self.report = report


@dataclass(kw_only=True)
class ExportReport:
    """What became of an export. Written beside the file as `<name>.report.json`."""

    path: Path
    format: str
    model: str
    task: str
    verified: bool = False
    checks: tuple[Check, ...] = ()
    bytes: int = 0  # of all files
    seconds: float = 0.0
    input: str = ""  # what the file takes
    outputs: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    agreement: dict[str, Any] = field(default_factory=dict)  # on a folder of images
    int8: dict[str, Any] = field(default_factory=dict)  # against the float32 file
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def worst(self) -> Check | None:
        """The check that came nearest to its tolerance, or passed it."""
        return max(self.checks, key=lambda c: share_of_tolerance(c), default=None)

    def to_json(self) -> str:
        content = asdict(self) | {"path": str(self.path)}
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.format}, {self.bytes / 1e6:.1f} MB, takes {self.input}"]
        worst = self.worst
        if self.verified and worst is not None:
            for key, value in self.agreement.items():
                if key != "images":
                    lines.append(f"  {key}: equal on {100 * value:.1f} % ({self.agreement['images']} images)")
            lines.append(f"  the same function in {len(self.checks)} checks; worst: {worst}")
        else:
            lines.append("  NOT verified")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def share_of_tolerance(check: Check) -> float:
    if check.kind == "other images":
        return check.tolerance / check.worst if check.worst else float(not check.ok) * float("inf")
    return check.worst / check.tolerance if check.tolerance else float("inf") * bool(check.worst)
