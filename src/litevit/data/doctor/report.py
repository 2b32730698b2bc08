"""What the doctor has found."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Severity = Literal["error", "warning"]
Box = tuple[float, float, float, float]  # xywh, in the upright picture


@dataclass
class Finding:
    severity: Severity
    problem: str
    count: int = 0
    examples: list[str] = field(default_factory=list)
    pictures: list[tuple[Path, Box | None]] = field(default_factory=list)  # of the examples, where they have one


@dataclass
class Report:
    path: Path
    layout: str
    counts: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    classes: dict[str, dict[str, int]] = field(default_factory=dict)  # split -> class -> images, objects or pixels
    counted: str = "images"  # what `classes` counts
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # (width, height) of the pictures
    areas: list[float] = field(default_factory=list)  # of the objects, in pixels
    shown: list[tuple[Path, list[tuple[str, Box]]]] = field(default_factory=list)  # some pictures with their objects
    table: str = ""  # of class folders, as training shows it

    @property
    def errors(self) -> int:
        return sum(finding.count for finding in self.findings if finding.severity == "error")

    @property
    def exit_code(self) -> int:
        """1 when there is an error, 0 when training can start."""
        return int(self.errors > 0)

    def render(self) -> str:
        """The report as text, errors first."""
        lines = [f"{self.path}: {self.layout}"]
        lines += [f"  {count:>9,}  {what}" for what, count in self.counts.items()]
        lines += [self.table] if self.table else []
        for finding in sorted(self.findings, key=lambda f: f.severity):
            lines.append(f"{finding.severity}: {finding.problem}: {finding.count:,}")
            lines += [f"    {example}" for example in finding.examples]
            if finding.count > len(finding.examples):
                lines.append(f"    and {finding.count - len(finding.examples):,} more")
        kinds = Counter(finding.severity for finding in self.findings)
        lines.append(f"{kinds['error']} kinds of errors, {kinds['warning']} kinds of warnings")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "path": str(self.path),
            "layout": self.layout,
            "exit_code": self.exit_code,
            "counts": self.counts,
            "classes": self.classes,
            "findings": [
                {"severity": f.severity, "problem": f.problem, "count": f.count, "examples": f.examples}
                for f in sorted(self.findings, key=lambda f: f.severity)
            ],
        }


class Notes:
    """Findings while they are collected."""

    def __init__(self, report: Report, examples: int):
        self.report, self.examples = report, examples
        self._by_problem: dict[str, Finding] = {}

    def add(
        self, severity: Severity, problem: str, example: object, picture: Path | None = None, box: Any = None
    ) -> None:
        if problem not in self._by_problem:
            self._by_problem[problem] = Finding(severity, problem)
            self.report.findings.append(self._by_problem[problem])
        finding = self._by_problem[problem]
        finding.count += 1
        if len(finding.examples) < self.examples:
            finding.examples.append(str(example))
            if picture is not None:
                finding.pictures.append((picture, box))

    def error(self, problem: str, example: object, picture: Path | None = None, box: Any = None) -> None:
        self.add("error", problem, example, picture, box)

    def warning(self, problem: str, example: object, picture: Path | None = None, box: Any = None) -> None:
        self.add("warning", problem, example, picture, box)

    def count(self, what: str, number: int) -> None:
        self.report.counts[what] = self.report.counts.get(what, 0) + number
