"""Shifted windows of a BHWC map (Swin, arXiv:2103.14030, sec. 3.2), cut and put together at any size in one graph.

Shapes: B batch, H x W grid, h x w = ceil(H/s) x ceil(W/s) windows, s window side, L = s * s tokens, C channels.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

APART = -100.0  # on the logits of tokens that do not see each other


def _window_counts(H: int, W: int, s: int) -> tuple[Any, Any]:
    h, w = (H + s - 1) // s, (W + s - 1) // s
    if torch.compiler.is_compiling():
        # The exporter takes an axis of length 1 for a constant: a lone window gets an empty, unseen neighbour.
        return torch.sym_max(h, 2), torch.sym_max(w, 2)
    return h, w


def cut_windows(x: Tensor, s: int, shift: int) -> Tensor:
    """Windows of the map, which moves up and left by `shift` around its borders.

    Args:
        x: (B, H, W, C).

    Returns:
        (B, h*w, L, C).
    """
    _, H, W, _ = x.shape
    h, w = _window_counts(H, W, s)
    x = torch.roll(x, (-shift, -shift), (1, 2)) if shift else x
    x = F.pad(x, (0, 0, 0, w * s - W, 0, h * s - H))
    return _cut(x.permute(0, 3, 1, 2), s)


def join_windows(windows: Tensor, s: int, shift: int, H: int, W: int) -> Tensor:
    """The inverse of `cut_windows`. Args: windows: (B, h*w, L, C). Returns: (B, H, W, C)."""
    h, w = _window_counts(H, W, s)
    depth = windows.permute(0, 3, 2, 1).flatten(1, 2).unflatten(2, (h, w))  # B C*L h w
    x = F.pixel_shuffle(depth, s).permute(0, 2, 3, 1)
    device = x.device
    x = x.index_select(1, torch.arange(H, device=device)).index_select(2, torch.arange(W, device=device))
    return torch.roll(x, (shift, shift), (1, 2)) if shift else x


def apart_mask(x: Tensor, s: int, shift: int) -> Tensor:
    """Keeps tokens apart that the shift brought together from opposite borders.

    Args:
        x: (B, H, W, C).

    Returns:
        (h*w, L, L): `APART` between two of them, 0 elsewhere, in x's dtype.
    """
    _, H, W, _ = x.shape
    h, w = _window_counts(H, W, s)
    rows = _regions(h * s, (H + s - 1) // s * s, s, shift, x)
    columns = _regions(w * s, (W + s - 1) // s * s, s, shift, x)
    region = _cut((3 * rows[:, None] + columns)[None, None], s)[0, :, :, 0]  # h*w L
    return APART * (region[:, None, :] != region[:, :, None]).to(x.dtype)


def _regions(length: int, real: int, s: int, shift: int, x: Tensor) -> Tensor:
    """0 before the last window, 1 in it, 2 in what the shift moved there. Returns: (length,), in x's dtype."""
    place = torch.arange(length, device=x.device)
    return (place >= real - s).to(x.dtype) + (place >= real - shift).to(x.dtype)


def _cut(x: Tensor, s: int) -> Tensor:
    """Args: x: (B, C, h*s, w*s). Returns: (B, h*w, L, C)."""
    return F.pixel_unshuffle(x, s).unflatten(1, (x.shape[1], s * s)).flatten(3).permute(0, 3, 2, 1)
