"""Softmax over tensors instead of an axis."""

from collections.abc import Sequence

import torch
from torch import Tensor


def softmax_over(logits: Sequence[Tensor]) -> list[Tensor]:
    """Softmax over tensors of one shape instead of an axis, which the compiler keeps in registers."""
    top = logits[0]
    for logit in logits[1:]:
        top = torch.maximum(top, logit)
    powers = [torch.exp(logit - top) for logit in logits]
    total = powers[0]
    for power in powers[1:]:
        total = total + power
    return [power / total for power in powers]
