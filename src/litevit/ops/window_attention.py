"""Attention inside s x s windows of a BHWC map (Hi-Fi of HiLo, arXiv:2205.13213, sec. 3.1).

A 2 x 2 window is 4 queries by 4 keys: far below what matrix-product and attention kernels are made for, and cutting the
map into windows copies it twice. Written as sums over shifted views it needs neither, once a compiler fuses them.

Shapes: B batch, H x W grid, s window side, h x w = H/s x W/s windows, N heads, D head channels.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from litevit.ops.kernels import autocasted, takes_triton
from litevit.ops.linear import is_emulated
from litevit.ops.softmax import softmax_over
from litevit.optimize.native import kernels as native

Backend = Literal["auto", "broadcast", "bmm", "sdpa", "native", "triton"]
BACKENDS: tuple[Backend, ...] = ("auto", "broadcast", "bmm", "sdpa", "native", "triton")
MAX_TRITON_WINDOW = 4  # larger windows belong to matrix products


def window_attention(
    qkv: Tensor, *, num_heads: int, window_size: int, scale: float, backend: Backend = "auto"
) -> Tensor:
    """softmax(scale q k^T) v per window and head.

    Args:
        qkv: (B, H, W, 3 * N * D), laid out [q | k | v][head][channel]; H and W multiples of s.
        num_heads: N.
        window_size: s.
        scale: factor on the logits.
        backend: `"broadcast"`: elementwise products over views of the map, for a compiler to fuse; memory grows with
            s ** 2 without one. `"bmm"`: batched matrix products on cut windows. `"sdpa"`: PyTorch's attention on cut
            windows. `"auto"`: `"broadcast"` when compiled with 2 x 2 windows, `"sdpa"` when exported or on a GPU,
            `"bmm"` otherwise. `"triton"` (s <= 4), never run on a GPU, is taken when asked for here or by
            `litevit.ops.kernels.use("triton")`, and is `"auto"` where Triton cannot run. `"native"`: the C++ kernel, on
            the map itself; `"auto"` where it cannot run.

    Returns:
        (B, H, W, N * D).
    """
    if backend not in BACKENDS:
        raise ValueError(f"window_attention: backend must be one of {BACKENDS}, got {backend!r}")
    _, H, W, _ = qkv.shape
    s = window_size
    if backend != "auto" and not torch.compiler.is_compiling() and (H % s or W % s):
        raise ValueError(f"window_attention: a {H} x {W} grid must be a multiple of window_size={s}")
    if backend == "native":
        if native.attends_windows(qkv, num_heads, s):
            return native.window_attention(qkv, num_heads, s, scale)
        backend = "auto"
    if s <= MAX_TRITON_WINDOW and takes_triton(qkv, backend):
        from litevit.ops.triton.windows import attend_windows

        return attend_windows(autocasted(qkv), num_heads, s, scale)
    if backend in ("auto", "triton"):
        if torch.compiler.is_exporting():
            backend = "sdpa"
        elif torch.compiler.is_compiling() and s == 2:
            backend = "broadcast"
        else:
            backend = "sdpa" if qkv.is_cuda else "bmm"
    if is_emulated(qkv) and backend != "sdpa":
        wide = window_attention(qkv.float(), num_heads=num_heads, window_size=s, scale=scale, backend=backend)
        return wide.to(qkv.dtype)
    if backend == "broadcast":
        return _broadcast(qkv, num_heads, s, scale)
    return _cut(qkv, num_heads, s, scale, backend)


def _broadcast(qkv: Tensor, N: int, s: int, scale: float) -> Tensor:
    B, H, W, E = qkv.shape
    D = E // (3 * N)
    q, k, v = qkv.view(B, H // s, s, W // s, s, 3, N, D).unbind(5)  # B h s w s N D
    q = q * scale
    pixels = [(i, j) for i in range(s) for j in range(s)]
    # Pixel (i, j) of every window as the key of all pixels of that window: B h 1 w 1 N D.
    logits = [(q * k[:, :, i, None, :, j, None]).sum(-1, keepdim=True) for i, j in pixels]
    out = torch.zeros_like(v)
    for weight, (i, j) in zip(softmax_over(logits), pixels):
        out = out + weight * v[:, :, i, None, :, j, None]
    return out.reshape(B, H, W, N * D)


def _cut(qkv: Tensor, N: int, s: int, scale: float, backend: Backend) -> Tensor:
    B, H, W, E = qkv.shape
    D = E // (3 * N)
    h, w = H // s, W // s
    # A clone, where reshape would look for a view and so tie a graph to grids of one window or of more.
    cut = qkv.view(B, h, s, w, s, 3, N, D).permute(5, 0, 1, 3, 6, 2, 4, 7).clone(memory_format=torch.contiguous_format)
    q, k, v = cut.view(3, B * h * w, N, s * s, D)
    if backend == "sdpa":
        out = F.scaled_dot_product_attention(q, k, v, scale=scale)
    else:
        q, k, v = q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)
        out = torch.bmm(torch.bmm(q * scale, k.transpose(1, 2)).softmax(-1), v)
    out = out.view(B, h, w, N, s, s, D)
    if torch.compiler.is_exporting():  # depth to space exports at any size; a reshape would pin H and W
        depth = out.permute(0, 3, 6, 4, 5, 1, 2).reshape(B, N * D * s * s, h, w)
        return F.pixel_shuffle(depth, s).permute(0, 2, 3, 1)
    return out.permute(0, 1, 4, 2, 5, 3, 6).clone(memory_format=torch.contiguous_format).view(B, H, W, N * D)
