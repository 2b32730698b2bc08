"""What a benchmark reports: rows for a table, files and a plot."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Report:
    """What a benchmark returns: rows for a table, and what could not be measured."""

    title: str
    rows: list[dict[str, Any]]
    environment: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    def save(
        self,
        folder: Path,
        *,
        plot: Callable[["Report", Path], None] | None = None,
        pareto: Callable[["Report", Path], bool] | None = None,
    ) -> list[Path]:
        """Writes JSON, CSV and, where matplotlib is installed, plots. Args: pareto: draws, or says that it cannot."""
        from litevit.bench.timing import write_results  # PyTorch, which `litevit bench --help` does not wait for

        files = write_results(self.rows, self.environment, folder, self.title, self.notes)
        if plot is not None and self.rows:
            try:
                import matplotlib  # noqa: F401
            except ImportError:
                self.notes.append("No plot: matplotlib is not installed (pip install 'litevit[train]').")
            else:
                path = folder / f"{self.title}.png"
                plot(self, path)
                files.append(path)
                if pareto is not None:
                    paths = [folder / f"pareto.{kind}" for kind in ("png", "svg", "pdf")]
                    files += [path for path in paths if pareto(self, path)]
        return files

    def render(self, columns: Sequence[str]) -> str:
        """The rows as a text table, then the notes."""
        shown = [[_cell(column, row.get(column)) for column in columns] for row in self.rows]
        widths = [max(len(c), *(len(line[i]) for line in shown), 1) if shown else len(c) for i, c in enumerate(columns)]
        lines = ["  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(columns, widths)))]
        for line in shown:
            lines.append("  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths))))
        if warning := self.environment.get("warning"):
            lines.append(f"Note: {warning}.")
        return "\n".join([*lines, *(f"Note: {note}" for note in self.notes)])


def _cell(column: str, value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    if column == "spread" or column.endswith("share"):
        return f"{100 * value:.0f} %"
    if column.startswith("x "):
        return f"{value:.2f}x"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
