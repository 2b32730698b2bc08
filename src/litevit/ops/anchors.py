"""Anchors of RetinaNet and of the region proposal network.

Differs from torchvision's `AnchorGenerator`: base anchors are not rounded to integers and strides are the nominal
ones, which moves coarse levels by up to 73 pixels when a map is larger than image / stride.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def base_anchors(stride: int, *, scales: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """The anchors of one position, centred at the origin.

    Args:
        stride: pixels per cell, and the size of an anchor of scale 1.
        scales: sizes in strides, the inner loop.
        ratios: height / width, the outer loop.

    Returns:
        (len(ratios) * len(scales), 4) float32 boxes, xyxy.
    """
    root = torch.tensor(ratios, dtype=torch.float32).sqrt()
    scale = torch.tensor(scales, dtype=torch.float32)
    widths = (stride * (1 / root)[:, None] * scale).flatten()
    heights = (stride * root[:, None] * scale).flatten()
    return torch.stack((-0.5 * widths, -0.5 * heights, 0.5 * widths, 0.5 * heights), dim=1)


def grid_anchors(base: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """Copies the anchors of one position to every cell of a map.

    Args:
        base: (A, 4) from `base_anchors`.
        size: height and width of the map.
        stride: pixels per cell; the first anchor is centred at (0, 0).

    Returns:
        (H * W * A, 4): rows, then columns, then the A anchors of a cell.
    """
    H, W = size
    y = torch.arange(H, device=base.device, dtype=base.dtype) * stride
    x = torch.arange(W, device=base.device, dtype=base.dtype) * stride
    shift = torch.stack((x.expand(H, W), y[:, None].expand(H, W)) * 2, dim=-1)  # H W 4
    return (shift[:, :, None] + base).view(-1, 4)


def cells_inside(size: tuple[int, int], stride: int, image_size: tuple[int, int], num_anchors: int) -> Tensor:
    """Which anchors of a map belong to one image of a batch padded to a larger size.

    Args:
        size: height and width of the map.
        stride: pixels per cell.
        image_size: height and width of the image with its own padding, without that of the batch.
        num_anchors: anchors per cell.

    Returns:
        (H * W * A,) bool: True where the cell starts inside the image.
    """
    H, W = size
    inside = torch.zeros(H, W, num_anchors, dtype=torch.bool)
    inside[: -(-image_size[0] // stride), : -(-image_size[1] // stride)] = True
    return inside.flatten()
