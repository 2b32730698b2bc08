"""What became of an export."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from litevit.deploy.verify import Check


class ExportError(RuntimeError):
    """The file is not the function that the model is; it was not kept.

    Attributes:
        message: what differs most, in one line.
        report: an `ExportReport` of all that was found.
    """

    def __init__(self, message: str, report: "ExportReport"):
        super().__init__(message)
        self.report = report


@dataclass(kw_only=True)
class ExportReport:
    """What became of an export. Written beside the file as `<name>.report.json`."""

    path: Path  # of the file
    format: str  # as `export` was told
    model: str  # name of what was exported
    task: str  # as in `litevit.list_models(task=...)`
    verified: bool = False  # all checks were made and passed
    checks: tuple[Check, ...] = ()  # comparisons of file and model, one for each kind of input
    bytes: int = 0  # of all files
    seconds: float = 0.0  # the export took
    input: str = ""  # what the file takes
    outputs: tuple[str, ...] = ()  # names of what it gives
    notes: list[str] = field(default_factory=list)  # what a reader should know
    agreement: dict[str, Any] = field(default_factory=dict)  # on a folder of images
    int8: dict[str, Any] = field(default_factory=dict)  # against the float32 file
    default_mode: dict[str, Any] = field(default_factory=dict)  # of the runtime, against float32, where it differs
    environment: dict[str, str] = field(default_factory=dict)  # versions of what took part

    @property
    def worst(self) -> Check | None:
        """The check that came nearest to its tolerance, or passed it; one that asks for another answer if it failed."""
        asked = [check for check in self.checks if check.kind != "other images" or not check.ok]
        return max(asked, key=lambda c: share_of_tolerance(c), default=None)

    def to_json(self) -> str:
        """What is written beside the file."""
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
    """How much of what a check allows was needed; above 1 it failed."""
    part, whole = (check.worst, check.tolerance) if check.kind != "other images" else (check.tolerance, check.worst)
    return part / whole if whole else 0.0 if check.ok else float("inf")
