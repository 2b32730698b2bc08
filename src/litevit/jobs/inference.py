"""Puts a model where it is to run, in its fastest form there: `predict` and `eval`."""

import torch
from torch import nn

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
