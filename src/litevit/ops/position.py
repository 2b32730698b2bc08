"""Position tables on any grid: relative bias (Swin, arXiv:2103.14030, eq. 4), absolute embedding (PVT)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from litevit.ops.grid import recorded_once


def relative_position_bias(
    table: Tensor, grid_size: tuple[int, int], H: int, W: int, *, keys_first: bool = False
) -> Tensor:
    """Bias of every query and key of a grid.

    Args:
        table: ((2 h - 1) * (2 w - 1), N), made for a grid of h x w.
        grid_size: h and w. Another grid gets the table resized (bicubic).
        H, W: the grid.
        keys_first: whether keys, not queries, lie apart in memory; the values are the same.

    Returns:
        (N, H * W, H * W): row (y_i - y_j + H - 1) * (2W - 1) + (x_i - x_j + W - 1) for query i and key j.
    """
    rows = resized_relative_table(table, grid_size, H, W)  # N 2H-1 2W-1
    device = table.device
    y, x = torch.arange(H, device=device), torch.arange(W, device=device)
    dy, dx = y.view(H, 1) - y, x.view(W, 1) - x  # query, key
    if keys_first:
        dy, dx = -dy, -dx  # key, query
    # Columns first, for every dy: what is then looked up, once per query and row of keys, are W values side by side.
    # Half the time of looking every value up by itself, the gradient a third.
    by_column = rows[:, :, dx + (W - 1)].flatten(1, 2)  # N (2H-1)*W W
    bias = by_column[:, (dy + (H - 1)).view(H, 1, H) * W + x.view(W, 1)].view(-1, H * W, H * W)
    return bias.transpose(1, 2) if keys_first else bias


def resized_relative_table(table: Tensor, grid_size: tuple[int, int], H: int, W: int) -> Tensor:
    """The table of a grid, (N, 2H - 1, 2W - 1), by y_i - y_j and x_i - x_j. Args: as of `relative_position_bias`."""
    h, w = grid_size
    rows = table.T.view(1, -1, 2 * h - 1, 2 * w - 1)
    # Written down for any grid: the sizes would become conditions of the program.
    if recorded_once() or (H, W) != (h, w):
        rows = F.interpolate(rows, size=(2 * H - 1, 2 * W - 1), mode="bicubic", align_corners=False)
    return rows[0]


def resized_position(table: Tensor, grid_size: tuple[int, int], H: int, W: int) -> Tensor:
    """An absolute position table on another grid (bilinear).

    Args:
        table: (1, h * w, C).
        grid_size: h and w.

    Returns:
        (1, H, W, C).
    """
    table = table.view(1, *grid_size, table.shape[-1])
    if recorded_once() or (H, W) != grid_size:
        return F.interpolate(table.permute(0, 3, 1, 2), size=(H, W), mode="bilinear").permute(0, 2, 3, 1)
    return table
