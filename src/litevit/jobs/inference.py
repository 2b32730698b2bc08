"""Puts a model where it is to run, in its fastest form there: `predict` and `eval`."""

import torch
from torch import Tensor, nn

from litevit.optimize import optimize_for_inference

OPTIMIZED = "Optimised for this processor (litevit.optimize_for_inference)."  # said once the work is done


def for_inference(model: nn.Module, device: torch.device | str) -> nn.Module:
    """The model on a device; on a CPU its optimised copy, another object.

    Args:
        model: in evaluation mode; an exported file, which has no parameters, stays as it is.
    """
    model = model.to(device)
    if torch.device(device).type != "cpu" or next(model.parameters(), None) is None:
        return model
    return optimize_for_inference(model)


def fixed_batch(model: nn.Module) -> int | None:
    """How many images at a time an exported file takes; None: any number, as every model."""
    return getattr(getattr(model, "shape", None), "batch", None)


def filled(images: Tensor, count: int | None) -> Tensor:
    """A batch with its first image repeated up to `count` images; what is answered to those is for nobody."""
    missing = 0 if count is None else count - len(images)
    return torch.cat((images, images[:1].expand(missing, -1, -1, -1))) if missing > 0 else images
