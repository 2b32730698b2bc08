"""Deformable merging in every form, for the tests: ours, and torchvision's operator as an independent reference."""

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from litevit.ops import deformable_sampling

FORMS = ("gather", "taps", "torchvision")


def kernel_of(proj: nn.Linear) -> Tensor:
    """The matrix (O, 4 C) of a token merging as the kernel (O, C, 2, 2) of a convolution."""
    return proj.weight.unflatten(1, (2, 2, -1)).permute(0, 3, 1, 2)


def merge(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None = None, form: str = "gather") -> Tensor:
    """Args: x: (B, H, W, C); offset: (B, h, w, 8); weight: (O, C, 2, 2); bias: (O,). Returns: (B, h, w, O)."""
    if form == "torchvision":
        out = deform_conv2d(x.permute(0, 3, 1, 2), offset.permute(0, 3, 1, 2), weight, bias, stride=2)
        return out.permute(0, 2, 3, 1)
    sample = {"gather": deformable_sampling._sample_gather, "taps": deformable_sampling._sample_taps}[form]
    return F.linear(sample(x, offset), weight.permute(0, 2, 3, 1).flatten(1), bias)
