"""Puts a model where it is to run, in its fastest form there: `predict` and `eval`."""

import sys

import torch
from torch import nn

from litevit.optimize import optimize_for_inference


def for_inference(model: nn.Module, device: torch.device | str, *, quiet: bool = False) -> nn.Module:
    """The model on a device; on a CPU its optimised copy, said in one line on stderr.

    Args:
        model: in evaluation mode; an exported file, which has no parameters, stays as it is.
        quiet: nothing is said.
    """
    model = model.to(device)
    if torch.device(device).type != "cpu" or next(model.parameters(), None) is None:
        return model
    if not quiet:
        print("Optimised for this processor (litevit.optimize_for_inference).", file=sys.stderr)
    return optimize_for_inference(model)
