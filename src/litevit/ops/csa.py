"""Convolutional self-attention between its projections (LVT, arXiv:2112.10809, sec. 3.1): values, mix, overlapping sum.

Windows of 3 x 3 pixels, one per 2 x 2 pixels: window (r, c) is centred at pixel (2r, 2c), and position 3 * ky + kx of
it is pixel (2r - 1 + ky, 2c - 1 + kx), zero outside the map. There is no unfold and no fold: a map padded by one row
and column splits into even and odd rows and columns, and position (ky, kx) of every window is one strided slice of it.
Shapes: B batch, H x W grid, h x w = ceil(H/2) x ceil(W/2) windows, N heads, D head channels, C = N * D.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from litevit.ops.grid import in_one_graph


def window_values(
    x: Tensor, weight: Tensor, num_heads: int, *, product: Callable[[Tensor, Tensor], Tensor] = F.linear
) -> Tensor:
    """What each window position holds, each position through its own matrix.

    Args:
        x: (B, H, W, C).
        weight: (9, C, C), one matrix per position; output channels first, as in `F.linear`.
        product: of pixels (B, h, w, C) and a matrix.

    Returns:
        (B, h, w, N, 9, D).
    """
    B, H, W, _ = x.shape
    h, w = (H + 1) // 2, (W + 1) // 2
    # Padded row y is pixel row y - 1. (Splitting the padded axes by a view would tie a graph to even H and W.)
    padded = F.pad(x, (0, 0, 1, 2 * w + 1 - W, 1, 2 * h + 1 - H))
    values = []
    for ky in range(3):
        for kx in range(3):
            pixels = padded[:, ky : ky + 2 * h : 2, kx : kx + 2 * w : 2]  # B h w C
            values.append(product(pixels, weight[3 * ky + kx]).view(B, h, w, num_heads, -1))
    return torch.stack(values, 4)


def mix_windows(logits: Tensor, values: Tensor, height: int, width: int) -> Tensor:
    """Each position of a window becomes a mixture of its nine, by a softmax over them; overlapping windows add up.

    Args:
        logits: (B, h, w, N, 9 destinations, 9 sources).
        values: (B, h, w, N, 9, D).
        height, width: H and W.

    Returns:
        (B, H, W, C).
    """
    # Sources first: a softmax over the last axis but one vectorises on a CPU, over nine values it does not (3x).
    weights = logits.transpose(-2, -1).contiguous().softmax(-2).to(values.dtype)
    mixed = torch.bmm(weights.flatten(0, 3).transpose(1, 2), values.flatten(0, 3))
    # In two steps: a graph with dynamic sizes cannot prove that w divides w * N.
    mixed = mixed.unflatten(0, (-1, values.shape[3])).view(values.shape)
    return overlap_add(mixed, height, width)


def overlap_add(windows: Tensor, height: int, width: int) -> Tensor:
    """Sums what the windows say about each pixel (1, 2 or 4 of them); what falls outside the map is dropped.

    Args:
        windows: (B, h, w, N, 9, D).
        height, width: H and W.

    Returns:
        (B, H, W, C).
    """
    h, w = windows.shape[1:3]
    # A further row and column of zero windows, so that every pixel of the last ones has all its neighbours.
    p = F.pad(windows, (0, 0, 0, 0, 0, 0, 0, 1, 0, 1)).unbind(4)
    this, following = slice(None, -1), slice(1, None)
    even_even = p[4][:, this, this]
    even_odd = p[5][:, this, this] + p[3][:, this, following]
    odd_even = p[7][:, this, this] + p[1][:, following, this]
    odd_odd = p[8][:, this, this] + p[6][:, this, following] + p[2][:, following, this] + p[0][:, following, following]
    even_rows = torch.stack([even_even, even_odd], 3).flatten(2, 3)  # B h 2w N D
    odd_rows = torch.stack([odd_even, odd_odd], 3).flatten(2, 3)
    out = torch.stack([even_rows, odd_rows], 2).flatten(1, 2).flatten(3)  # B 2h 2w C
    if in_one_graph():
        # As `out[:, :height, :width]`, which a graph with dynamic sizes cannot prove to be legal.
        rows, columns = torch.arange(height, device=out.device), torch.arange(width, device=out.device)
        return out.index_select(1, rows).index_select(2, columns)
    return out if (height, width) == (2 * h, 2 * w) else out[:, :height, :width]


def window_means(x: Tensor) -> Tensor:
    """2 x 2 averages with stride 2; at an odd border only of the pixels that exist.

    Args:
        x: (B, H, W, C).

    Returns:
        (B, h, w, C).
    """
    H, W = x.shape[1:3]
    if in_one_graph() or H % 2 or W % 2:
        # The last row and column once more: at an odd border its average with itself, at an even one left out by the
        # pooling. (ceil_mode, or padding by H % 2, would tie a graph to the parity of H and W; the gradient of
        # replication padding does not compile in PyTorch 2.15.)
        x = torch.cat([x, x[:, -1:]], 1)
        x = torch.cat([x, x[:, :, -1:]], 2)
    return F.avg_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
