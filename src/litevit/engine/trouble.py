"""What may go wrong with the numbers of a run, and what to do about it."""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litevit.engine.checkpoint import list_checkpoints


def check_finite(losses: list[Tensor], step: int, accumulate: int, rates: list[float], folder: Path) -> None:
    if not losses:
        return
    finite = torch.isfinite(torch.stack(losses))
    if not finite.all():
        first = int((~finite).int().argmax())
        bad = step - (len(losses) - first - 1) // accumulate
        value = losses[first].item()
        raise ValueError(not_finite(f"the loss is {value}", bad, rates, folder))


@contextlib.contextmanager
def explained(batch_size: int) -> Iterator[None]:
    """Batch normalisation cannot be trained on one value: of one image whose last map is a single pixel."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ValueError(
            "Batch normalisation has a single value per channel: one image of 32 pixels or less at a time. Take larger "
            f"images or crops, or more images per process and step than --run.batch_size {batch_size} gives."
        ) from error


def warn_of_nan(metrics: dict[str, Any], metric: str, say: Any) -> None:
    if math.isnan(metrics.get(metric, 0.0)):
        say(f"warning: {metric} is not a number: nothing in the evaluation data could be counted")


def not_finite(what: str, step: int, rates: list[float], folder: Path) -> str:
    good = list_checkpoints(folder / "checkpoints")
    kept = f"The last good checkpoint is {good[0]}" if good else "No checkpoint was written yet"
    return (
        f"Training stopped: {what} at step {step}, learning rate {max(rates):.3g}. {kept}. "
        "Try a lower --optim.lr, a longer warm-up, --optim.clip_grad 5, or bf16 instead of fp16."
    )
