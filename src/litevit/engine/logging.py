"""Where a run says what it does: `metrics.jsonl`, TensorBoard or Weights & Biases, and the terminal. Rank 0 only."""

import contextlib
import json
import os
import platform
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from litevit.engine.config import flat
from litevit.files import parse_json, write_text

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker


class MetricsFile:
    """One JSON object per line. A resumed run drops the lines after its checkpoint: it will write them again.

    Args:
        evaluates: the run will write the evaluation of `resume_step` again, too.
    """

    def __init__(self, path: Path, *, resume_step: int = 0, evaluates: bool = False):
        self.path = path
        if path.exists():
            again = (resume_step, "eval") if evaluates else None
            rows = read_metrics(path)
            kept = [row for row in rows if row["step"] <= resume_step and (row["step"], row["kind"]) != again]
            write_text(path, "".join(json.dumps(row) + "\n" for row in kept), sync=True)
        try:
            self.file = open(path, "ab", buffering=0)  # noqa: SIM115  lives as long as the run
        except OSError as error:
            raise self._cannot_write(error) from None

    def write(self, row: dict[str, Any]) -> None:
        """A whole row or, on a full disk, none."""
        line = (json.dumps(row) + "\n").encode()
        before = os.fstat(self.file.fileno()).st_size
        try:
            while line:  # a file may take less than it is given
                line = line[self.file.write(line) or 0 :]
        except OSError as error:
            with contextlib.suppress(OSError):
                self.file.truncate(before)
            raise self._cannot_write(error) from None

    def _cannot_write(self, error: OSError) -> OSError:
        return OSError(
            f"Cannot write {self.path}: {error.strerror or error}. The run goes on from its last checkpoint with the "
            "same command and --run.dir."
        )

    def close(self) -> None:
        self.file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file; a last line that a killed process left unfinished is dropped."""
    rows = []
    for line in path.read_bytes().splitlines():
        try:
            row = parse_json(line, path)
        except ValueError:
            break
        if not isinstance(row, dict):
            break
        rows.append(row)
    return rows


def check_trackers(names: tuple[str, ...]) -> None:
    """Raises ImportError where the package of a tracker is missing."""
    for name in names:
        if find_spec(name) is None:
            extra = "train" if name == "tensorboard" else "wandb"
            raise ImportError(f"run.trackers asks for {name}: pip install 'litevit[{extra}]'")


def open_trackers(names: tuple[str, ...], folder: Path, recipe: dict[str, Any]) -> list["GeneralTracker"]:
    """accelerate's trackers, started, with the recipe as the run's configuration."""
    from accelerate.tracking import TensorBoardTracker, WandBTracker

    plain = (str, int, float, bool, type(None))
    settings = {key: value if isinstance(value, plain) else str(value) for key, value in flat(recipe).items()}
    trackers: list[GeneralTracker] = []
    for name in names:
        tracker: GeneralTracker = (
            TensorBoardTracker("tensorboard", folder)  # writes into folder/tensorboard
            if name == "tensorboard"
            else WandBTracker("litevit", name=folder.name, dir=str(folder))
        )
        tracker.start()
        tracker.store_init_configuration(settings)
        trackers.append(tracker)
    return trackers


def scalars(row: dict[str, Any]) -> dict[str, float]:
    """A row of the metrics file as trackers show it: `train/loss`, `eval/top1`, ..."""
    return {
        f"{row['kind']}/{name}": value
        for name, value in row.items()
        if isinstance(value, (int, float)) and name not in ("step", "epoch")
    }


class Display:
    """A live line on a terminal; plain lines, one per logging interval, elsewhere."""

    def __init__(self, console: Console, *, steps: int, start: int):
        self.console = console
        self.live = console.is_terminal
        self.progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not self.live,
            transient=True,
        )
        self.bar = self.progress.add_task("train", total=steps, completed=start, epoch="", text="")
        self.progress.start()

    def update(self, step: int, epoch: str, text: str, *, left_s: float) -> None:
        if self.live:
            self.progress.update(self.bar, completed=step, epoch=epoch, text=text)
        else:
            self.console.print(
                f"epoch {epoch} step {step} {text} {_clock(left_s)} left", highlight=False, soft_wrap=True
            )

    def line(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self.progress.stop()


def default_console() -> Console:
    """Standard error, so that a command's standard output stays machine-readable."""
    return Console(file=sys.stderr)


def memory_mb(device: torch.device) -> float:
    """Peak memory: of the CUDA allocator, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        import psutil  # comes with accelerate

        return psutil.Process().memory_info().peak_wset / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def launcher() -> str:
    """Names the process that started this one; the same for all restarts that one torchrun makes on a machine."""
    return f"{platform.node()}:{os.getppid()}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
