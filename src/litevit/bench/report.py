"""What a benchmark reports, and how a case that cannot run is left out while the others go on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from litevit.bench import timing as timing

Dtype = Literal["fp32", "bf16", "fp16"]
Mode = Literal["eager", "compiled", "onnxruntime", "openvino"]
DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Report:
    """What a benchmark returns: rows for a table, and what could not be measured."""

    title: str
    rows: list[dict[str, Any]]
    environment: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    def save(self, folder: Path, *, plot: Callable[["Report", Path], None] | None = None) -> list[Path]:
        """Writes JSON, CSV and, where matplotlib is installed, a plot."""
        files = timing.write_results(self.rows, self.environment, folder, self.title, self.notes)
        if plot is not None and self.rows:
            try:
                import matplotlib  # noqa: F401
            except ImportError:
                self.notes.append("No plot: matplotlib is not installed (pip install 'litevit[train]').")
            else:
                path = folder / f"{self.title}.png"
                plot(self, path)
                files.append(path)
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


@dataclass
class Case:
    """One thing to be timed, at its own batch."""

    name: str
    run: Callable[[], object]
    batch: int
    facts: dict[str, Any] = field(default_factory=dict)


def prepare(make: Callable[[int], Callable[[], object]], batch: int, name: str, notes: list[str]) -> Case | None:
    """Builds a case and warms it up. Memory that runs out halves the batch; a missing compiler leaves the case out.

    Args:
        make: batch -> function to time.
        batch: first batch to try.
        name: of the case, for the notes.
        notes: what happened is added here.
    """
    while True:
        try:
            run = make(batch)
            run()
            run()
            return Case(name, run, batch)
        except Exception as error:
            if timing.is_out_of_memory(error):
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                if batch == 1:
                    notes.append(f"{name}: out of memory at batch 1, left out.")
                    return None
                notes.append(f"{name}: out of memory at batch {batch}, halved to {batch // 2}.")
                batch //= 2
                continue
            if timing.no_compiler(error):
                notes.append(f"{name}: torch.compile found no working compiler (CXX, else g++), left out.")
                return None
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            notes.append(f"{name}: left out, {type(error).__name__}: {reason}")
            return None


def inference(model: Callable, images: Tensor) -> Callable[[], object]:
    def run() -> object:
        with torch.inference_mode():
            return model(images)

    return run


def training_step(model: Callable, images: Tensor) -> Callable[[], object]:
    def run() -> None:
        model.zero_grad(set_to_none=True)  # type: ignore[attr-defined]
        out = model(images)
        maps = out if isinstance(out, tuple | list) else [out]
        sum(m.float().square().mean() for m in maps).backward()  # type: ignore[union-attr]

    return run
