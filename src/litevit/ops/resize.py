"""Resizing of maps."""

import torch.nn.functional as F
from torch import Tensor

from litevit.ops.grid import recorded_once


def resize_bilinear(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Args: x: (B, C, H, W). Returns: (B, C, *size); half-pixel centres, no antialiasing."""
    # A program for any size cannot ask whether two sizes are the same; resizing to its own size changes none.
    if not recorded_once() and x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
