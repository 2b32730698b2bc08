"""MixToken: a box of tokens of each image comes from another image of the batch (arXiv:2104.10858, as LVT trains).

A box is (top, left, bottom, right) in cells of the final token grid, ends exclusive; image b is mixed with B - 1 - b.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Box = tuple[int, int, int, int]


def draw_mix_box(height: int, width: int, rng: np.random.RandomState, *, beta: float = 1.0) -> Box:
    """Draws a box as the published code does.

    Args:
        height, width: the final token grid.
        rng: drawn from three times: Beta(beta, beta), then row and column of the centre.

    Returns:
        Box inside the grid; may be empty.
    """
    lam = rng.beta(beta, beta)
    cut_h, cut_w = int(height * np.sqrt(1.0 - lam)), int(width * np.sqrt(1.0 - lam))
    row, column = int(rng.randint(height)), int(rng.randint(width))
    return (
        max(row - cut_h // 2, 0),
        max(column - cut_w // 2, 0),
        min(row + cut_h // 2, height),
        min(column + cut_w // 2, width),
    )


def swap_box(x: Tensor, box: Sequence[int] | Tensor, *, cell: int = 1) -> Tensor:
    """Replaces the box in every image by the same box of the batch in reverse order; twice is the identity.

    Args:
        x: (B, H, W, C).
        box: (top, left, bottom, right); a tensor keeps a compiled graph free of its numbers.
        cell: side, in positions of x, of one cell of the box's grid.
    """
    top, left, bottom, right = torch.as_tensor(box, device=x.device) * cell
    rows = torch.arange(x.shape[1], device=x.device).view(-1, 1, 1)
    columns = torch.arange(x.shape[2], device=x.device).view(-1, 1)
    inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)  # H W 1
    return torch.where(inside, x.flip(0), x)


def box_area(box: Sequence[int] | Tensor) -> Tensor:
    """Cells in the box, as a float scalar."""
    top, left, bottom, right = torch.as_tensor(box, dtype=torch.float32)
    return (bottom - top) * (right - left)
