"""Attention inside s x s windows of a BHWC map (Hi-Fi of HiLo, arXiv:2205.13213, sec. 3.1).

Shapes: B batch, H x W grid, s window side, h x w = H/s x W/s windows, N heads, D head channels, E = 3 * N * D.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from litevit.ops.grid import in_one_graph


def window_attention(qkv: Tensor, *, num_heads: int, window_size: int, scale: float) -> Tensor:
    """softmax(scale q k^T) v per window and head, as batched products: a window is too small for attention kernels.

    Args:
        qkv: (B, H, W, 3 * N * D), laid out [q | k | v][head][channel]; H and W multiples of s.
        num_heads: N.
        window_size: s.
        scale: factor on the logits.

    Returns:
        (B, H, W, N * D).
    """
    B, H, W, E = qkv.shape
    N, s, D = num_heads, window_size, E // (3 * num_heads)
    if not in_one_graph() and (H % s or W % s):
        raise ValueError(f"window_attention: a {H} x {W} grid must be a multiple of window_size={s}")
    h, w = H // s, W // s
    # A clone, where reshape would look for a view and so tie a graph to grids of one window or of more.
    cut = qkv.view(B, h, s, w, s, 3, N, D).permute(5, 0, 1, 3, 6, 2, 4, 7).clone(memory_format=torch.contiguous_format)
    q, k, v = cut.view(3, B * h * w * N, s * s, D)
    out = torch.bmm(torch.bmm(q * scale, k.transpose(1, 2)).softmax(-1).to(v.dtype), v)
    out = out.view(B, h, w, N, s, s, D)
    if torch.compiler.is_exporting():  # depth to space exports at any size; a reshape would pin H and W
        depth = out.permute(0, 3, 6, 4, 5, 1, 2).reshape(B, N * D * s * s, h, w)
        return F.pixel_shuffle(depth, s).permute(0, 2, 3, 1)
    return out.permute(0, 1, 4, 2, 5, 3, 6).clone(memory_format=torch.contiguous_format).view(B, H, W, N * D)
