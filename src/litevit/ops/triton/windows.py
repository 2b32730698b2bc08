"""Attention inside s x s windows (Hi-Fi of HiLo), read from and written to the map itself: nothing is cut or copied.

Never run on a GPU; checked with Triton's interpreter. One program holds the queries of a few windows of one head and
walks over their s * s keys with a running maximum and sum, so that neither the logits nor the weights leave registers.

Blocks. Windows x pixels x channels in tiles of 2048 values (D = 32: 16 windows of 2 x 2, 4 of 4 x 4), 16 a thread
for the queries and 16 for the sums. Pixels and channels are padded to powers of two: nothing at 2 x 2, 4 x 4, D = 32.

Bytes, for a map of P pixels of E = N * D channels of b bytes: forward reads 3 P E b and writes P E b, backward reads
4 P E b (logits are computed again, nothing but the input is kept) and writes 3 P E b. Operations: 4 s^2 P E forward,
14 s^2 P E backward: 2 and 4 operations a byte for 2 x 2 in 16 bits, bound by memory; 8 and 16 for 4 x 4, near what an
H200 does without its matrix units, so that `tl.dot` would be the next thing to measure there. Deterministic: every
value is written by one program.

Shapes: B batch, H x W grid, s window side, h x w = H/s x W/s windows, N heads, D head channels, P = s * s pixels.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from litevit.ops.triton.tiles import TILE, next_power_of_2


@triton.jit
def _places(windows, h, w, s_b, s_y, s_x, S: tl.constexpr, BW: tl.constexpr):
    """Address of the first pixel of every window of this program, and which of them exist."""
    window = tl.program_id(0).to(tl.int64) * BW + tl.arange(0, BW)
    column = window % w
    row = window // w % h
    return window // w // h * s_b + row * S * s_y + column * S * s_x, window < windows


@triton.jit
def window_forward(
    qkv,
    out,
    windows,
    h,
    w,
    s_b,
    s_y,
    s_x,
    HW,
    W,
    N,
    scale: tl.constexpr,
    S: tl.constexpr,
    PIXELS: tl.constexpr,
    D: tl.constexpr,
    BD: tl.constexpr,
    BW: tl.constexpr,
    ACC: tl.constexpr,
):
    head = tl.program_id(1)
    place, exists = _places(windows, h, w, s_b, s_y, s_x, S, BW)
    goal, _ = _places(windows, h, w, HW, W, 1, S, BW)  # in pixels
    pixel = tl.arange(0, PIXELS)
    channel = tl.arange(0, BD)
    on_key = exists[:, None] & (channel < D)[None, :]
    on = exists[:, None, None] & (pixel < S * S)[None, :, None] & (channel < D)[None, None, :]
    inner = (pixel // S * s_y + pixel % S * s_x)[None, :, None] + channel[None, None, :]
    q = tl.load(qkv + head * D + place[:, None, None] + inner, mask=on, other=0.0).to(ACC) * scale
    key = qkv + (N + head) * D + place[:, None] + channel[None, :]
    top = tl.full([BW, PIXELS], -3.4e38, ACC)  # finite: a logit of -inf must leave weight 0, not -inf - -inf
    total = tl.zeros([BW, PIXELS], ACC)
    mixed = tl.zeros([BW, PIXELS, BD], ACC)
    for i in range(S):
        for j in tl.static_range(S):
            at = key + (i * s_y + j * s_x)
            k = tl.load(at, mask=on_key, other=0.0).to(ACC)
            v = tl.load(at + N * D, mask=on_key, other=0.0).to(ACC)
            logit = tl.sum(q * k[:, None, :], 2)
            new_top = tl.maximum(top, logit)
            rescale = tl.exp(top - new_top)
            weight = tl.exp(logit - new_top)
            total = total * rescale + weight
            mixed = mixed * rescale[:, :, None] + weight[:, :, None] * v[:, None, :]
            top = new_top
    pixels = goal[:, None, None] + (pixel // S * W + pixel % S)[None, :, None]
    tl.store(out + pixels * (N * D) + head * D + channel[None, None, :], mixed / total[:, :, None], mask=on)


@triton.jit
def window_backward(
    qkv,
    grad,
    grad_qkv,
    windows,
    h,
    w,
    s_b,
    s_y,
    s_x,
    HW,
    W,
    N,
    scale: tl.constexpr,
    S: tl.constexpr,
    PIXELS: tl.constexpr,
    D: tl.constexpr,
    BD: tl.constexpr,
    BW: tl.constexpr,
    ACC: tl.constexpr,
):
    """Two walks over the keys: the first finds the softmax and <weights, their gradients>, the second all gradients."""
    head = tl.program_id(1)
    place, exists = _places(windows, h, w, s_b, s_y, s_x, S, BW)
    goal, _ = _places(windows, h, w, HW, W, 1, S, BW)  # in pixels
    pixel = tl.arange(0, PIXELS)
    channel = tl.arange(0, BD)
    on_key = exists[:, None] & (channel < D)[None, :]
    on = exists[:, None, None] & (pixel < S * S)[None, :, None] & (channel < D)[None, None, :]
    inner = (pixel // S * s_y + pixel % S * s_x)[None, :, None] + channel[None, None, :]
    q = tl.load(qkv + head * D + place[:, None, None] + inner, mask=on, other=0.0).to(ACC)
    pixels = goal[:, None, None] + (pixel // S * W + pixel % S)[None, :, None]
    g = tl.load(grad + pixels * (N * D) + head * D + channel[None, None, :], mask=on, other=0.0).to(ACC)
    key = qkv + (N + head) * D + place[:, None] + channel[None, :]
    top = tl.full([BW, PIXELS], -3.4e38, ACC)
    total = tl.zeros([BW, PIXELS], ACC)
    mean = tl.zeros([BW, PIXELS], ACC)
    for i in range(S):
        for j in tl.static_range(S):
            at = key + (i * s_y + j * s_x)
            k = tl.load(at, mask=on_key, other=0.0).to(ACC)
            v = tl.load(at + N * D, mask=on_key, other=0.0).to(ACC)
            logit = tl.sum(q * k[:, None, :], 2) * scale
            new_top = tl.maximum(top, logit)
            rescale = tl.exp(top - new_top)
            weight = tl.exp(logit - new_top)
            total = total * rescale + weight
            mean = mean * rescale + weight * tl.sum(g * v[:, None, :], 2)
            top = new_top
    mean = mean / total
    grad_q = tl.zeros([BW, PIXELS, BD], ACC)
    grad_key = grad_qkv + (N + head) * D + channel[None, :]
    for i in range(S):
        for j in tl.static_range(S):
            at = key + (i * s_y + j * s_x)
            k = tl.load(at, mask=on_key, other=0.0).to(ACC)
            v = tl.load(at + N * D, mask=on_key, other=0.0).to(ACC)
            weight = tl.exp(tl.sum(q * k[:, None, :], 2) * scale - top) / total
            weight = tl.where((pixel < S * S)[None, :], weight, 0.0)
            grad_logit = weight * (tl.sum(g * v[:, None, :], 2) - mean) * scale
            grad_q += grad_logit[:, :, None] * k[:, None, :]
            to = grad_key + (goal + (i * W + j))[:, None] * (3 * N * D)
            tl.store(to, tl.sum(grad_logit[:, :, None] * q, 1), mask=on_key)
            tl.store(to + N * D, tl.sum(weight[:, :, None] * g, 1), mask=on_key)
    tl.store(grad_qkv + pixels * (3 * N * D) + head * D + channel[None, None, :], grad_q, mask=on)


def _geometry(qkv: Tensor, N: int, s: int) -> tuple[Tensor, tuple[int, ...], tuple[int, int], dict[str, Any]]:
    """The map with its channels side by side, the kernels' sizes and strides, the grid, and the blocks."""
    B, H, W, E = qkv.shape
    if qkv.stride(3) != 1:
        qkv = qkv.contiguous()
    D = E // (3 * N)
    BD = next_power_of_2(D)
    PIXELS = next_power_of_2(s * s)
    BW = max(1, TILE // (PIXELS * BD))
    windows = B * (H // s) * (W // s)
    sizes = (windows, H // s, W // s, *qkv.stride()[:3], H * W, W, N)
    blocks: dict[str, Any] = {"S": s, "PIXELS": PIXELS, "D": D, "BD": BD, "BW": BW}
    blocks["ACC"] = tl.float64 if qkv.dtype == torch.float64 else tl.float32
    return qkv, sizes, (triton.cdiv(windows, BW), N), blocks


@torch.library.custom_op("litevit::window_attention", mutates_args=())
def attend_windows(qkv: Tensor, num_heads: int, window_size: int, scale: float) -> Tensor:
    """softmax(scale q k^T) v per window and head.

    Args:
        qkv: (B, H, W, 3 * N * D), laid out [q | k | v][head][channel], also a slice of a wider map.
        num_heads, window_size: N, s; H and W are multiples of s, made for s <= 4.
        scale: factor on the logits.

    Returns:
        (B, H, W, N * D).
    """
    B, H, W, E = qkv.shape
    if H % window_size or W % window_size:  # the pixels left over would stay unwritten
        raise ValueError(f"window_attention: a {H} x {W} grid must be a multiple of window_size={window_size}")
    out = torch.empty((B, H, W, E // 3), dtype=qkv.dtype, device=qkv.device)
    if out.numel():
        source, sizes, grid, blocks = _geometry(qkv, num_heads, window_size)
        with torch.cuda.device_of(qkv):
            window_forward[grid](source, out, *sizes, scale=scale, **blocks)
    return out


@attend_windows.register_fake
def _(qkv: Tensor, num_heads: int, window_size: int, scale: float) -> Tensor:
    return qkv.new_empty((*qkv.shape[:3], qkv.shape[3] // 3))


@torch.library.custom_op("litevit::window_attention_backward", mutates_args=())
def attend_windows_backward(grad: Tensor, qkv: Tensor, num_heads: int, window_size: int, scale: float) -> Tensor:
    """Gradient of qkv. Args: grad: (B, H, W, N * D); the others as `attend_windows`."""
    grad_qkv = torch.empty(qkv.shape, dtype=qkv.dtype, device=qkv.device)
    if grad_qkv.numel():
        source, sizes, grid, blocks = _geometry(qkv, num_heads, window_size)
        with torch.cuda.device_of(qkv):
            window_backward[grid](source, grad.contiguous(), grad_qkv, *sizes, scale=scale, **blocks)
    return grad_qkv


@attend_windows_backward.register_fake
def _(grad: Tensor, qkv: Tensor, num_heads: int, window_size: int, scale: float) -> Tensor:
    return qkv.new_empty(qkv.shape)


def _backward(ctx, grad: Tensor) -> tuple[Tensor, None, None, None]:
    (qkv,) = ctx.saved_tensors
    return attend_windows_backward(grad, qkv, *ctx.arguments), None, None, None


def _save(ctx, inputs: tuple[Tensor, int, int, float], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])
    ctx.arguments = inputs[1:]


attend_windows.register_autograd(_backward, setup_context=_save)
