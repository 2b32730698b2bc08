"""Convolutional self-attention with its small sums compiled: optimised models on the CPU (LVT, arXiv:2112.10809).

As `csa_strips`, pixels are split by the parity of row and column, so that the values of all windows are four products
and position (ky, kx) of a window is a shift. Softmax and mixing are one compiled loop each, vectorised over channels:
nothing is turned around and nothing but the values is written. Half the time of the strips (docs/performance.md).

Shapes: B batch, H x W grid, h x w = ceil(H/2) x ceil(W/2) windows, N heads, D head channels, C = N * D.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from litevit.ops.csa_strips import PLANES
from litevit.ops.fragments import Fragment
from litevit.ops.linear import product
from litevit.ops.softmax import softmax_over


def attend(x: Tensor, logits: Tensor, value_weight: Tensor) -> Tensor:
    """The layer between its logits and its output projection.

    Args:
        x: (B, H, W, C).
        logits: (B, h, w, N, 9 sources, 9 destinations): what a softmax runs over are nine short rows.
        value_weight: (9, C, C).

    Returns:
        (B, H, W, C).
    """
    B, _, _, C = x.shape
    h, w, N = logits.shape[1:4]
    key = (C, N, x.dtype)
    mixing = _WEIGHTS(key, logits)
    values = []
    for (odd_row, odd_column), positions in zip(_PARITIES, PLANES):
        # Cell (i, j) holds row 2 i or 2 i - 1 and column 2 j or 2 j - 1, by parity; zero outside the map.
        plane = x[:, odd_row::2, odd_column::2]
        below, right = h + 2 - odd_row - plane.shape[1], w + 2 - odd_column - plane.shape[2]
        plane = F.pad(plane, (0, 0, odd_column, right, odd_row, below))
        values.append(
            product(plane, value_weight[list(positions)].flatten(0, 1), None).view(B, h + 2, w + 2, -1, N, C // N)
        )
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    for (odd_row, odd_column), mixed in zip(_PARITIES, _MIX(key, mixing, *values)):
        target = out[:, odd_row::2, odd_column::2]
        target.copy_(mixed.flatten(3)[:, : target.shape[1], : target.shape[2]])
    return out


_PARITIES = ((0, 0), (0, 1), (1, 0), (1, 1))  # of row and column, in the order of PLANES


def _softmax(logits: Tensor) -> Tensor:
    """Args: logits: (B, h, w, N, 9, 9). Returns: (B, h + 1, w + 1, N, 9, 9), float32, zero behind the last windows."""
    weights = softmax_over(logits.float().unbind(4))
    return F.pad(torch.stack(weights, 4), (0, 0, 0, 0, 0, 0, 0, 1, 0, 1))


def _mix(mixing: Tensor, *planes: Tensor) -> list[Tensor]:
    """What the windows say about the pixels of each parity.

    Args:
        mixing: (B, h + 1, w + 1, N, 9 sources, 9 destinations).
        planes: four times (B, h + 2, w + 2, positions of the plane, N, D).

    Returns:
        Four times (B, h, w, N, D).
    """
    h, w = mixing.shape[1] - 1, mixing.shape[2] - 1
    values = {s: plane[:, :, :, i] for plane, positions in zip(planes, PLANES) for i, s in enumerate(positions)}

    def said(destination: int, down: int, right: int) -> Tensor:
        """By the window itself, or the one below or to the right of it."""
        total = torch.zeros((), dtype=mixing.dtype)
        for source, value in values.items():
            top, left = down + source // 6, right + source % 3 // 2
            weight = mixing[:, down : down + h, right : right + w, :, source, destination, None]
            total = total + weight * value[:, top : top + h, left : left + w].float()
        return total

    even_even = said(4, 0, 0)
    even_odd = said(5, 0, 0) + said(3, 0, 1)
    odd_even = said(7, 0, 0) + said(1, 1, 0)
    odd_odd = said(8, 0, 0) + said(6, 0, 1) + said(2, 1, 0) + said(0, 1, 1)
    return [out.to(planes[0].dtype) for out in (even_even, even_odd, odd_even, odd_odd)]


_WEIGHTS = Fragment(_softmax, dynamic=None)
_MIX = Fragment(_mix, dynamic=None)
