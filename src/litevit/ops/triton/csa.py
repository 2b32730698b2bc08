"""The middle of convolutional self-attention: softmax of the logits, mix of the values, overlapping windows added.

Never run on a GPU; checked with Triton's interpreter. The two matrix products before (logits, values) stay with
cuBLAS; without this kernel the weights (81 per window and head), the mixed values (9 D) and the sums of their parts
go through memory.

Blocks. A program makes the 2 x 2 output pixels of a few cells of one head, from the windows of each cell and of its
right, lower and lower right neighbours: every (window, destination) pair belongs to exactly one pixel, so that the
softmax of its nine logits is computed once and nothing is added atomically. Cells x 16 sources (9 used) x D channels
in tiles of 2048 values: 4 cells at D = 32. Backward: the same tile per window, whose nine pixels' gradients it reads.

Bytes per window and head, b bytes a value: forward reads 81 + 9 D and writes 4 D values (values are read by four
programs, three times from caches): 994 bytes at D = 32 in 16 bits; backward reads 81 + 9 D + 4 D and writes 81 + 9 D.
Operations: 162 D forward, 324 D backward: 5 to 6 a byte, bound by memory. Deterministic: every value is written by one
program.

Shapes: B batch, H x W grid, h x w = ceil(H/2) x ceil(W/2) windows, N heads, D head channels, C = N * D.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from litevit.ops.triton.tiles import TILE, next_power_of_2

_SOURCES = tl.constexpr(16)  # nine, padded to a power of two


@triton.jit
def _weights(logits, window, exists, destination: tl.constexpr, ACC: tl.constexpr):
    """Softmax over the sources of one destination, (cells, 16). A window that does not exist has finite weights."""
    source = tl.arange(0, _SOURCES)
    at = logits + window[:, None] * 81 + (source * 9 + destination)[None, :]
    logit = tl.load(at, mask=exists[:, None] & (source < 9)[None, :], other=0.0).to(ACC)
    logit = tl.where((source < 9)[None, :], logit, float("-inf"))
    weight = tl.exp(logit - tl.max(logit, 1)[:, None])
    weight = weight / tl.sum(weight, 1)[:, None]
    return tl.where((source < 9)[None, :], weight, 0.0)


@triton.jit
def _values(values, window, exists, D: tl.constexpr, BD: tl.constexpr, ACC: tl.constexpr):
    """What the nine positions hold, (cells, 16, BD), zero where the window or the position does not exist."""
    source = tl.arange(0, _SOURCES)[None, :, None]
    channel = tl.arange(0, BD)[None, None, :]
    at = values + window[:, None, None] * (9 * D) + source * D + channel
    return tl.load(at, mask=exists[:, None, None] & (source < 9) & (channel < D), other=0.0).to(ACC)


@triton.jit
def _mix(v, logits, window, exists, destination: tl.constexpr, ACC: tl.constexpr):
    """What a window says about one of its positions, (cells, BD)."""
    return tl.sum(_weights(logits, window, exists, destination, ACC)[:, :, None] * v, 1)


@triton.jit
def csa_forward(
    logits,
    values,
    out,
    cells,
    h,
    w,
    H,
    W,
    N,
    D: tl.constexpr,
    BD: tl.constexpr,
    BW: tl.constexpr,
    ACC: tl.constexpr,
):
    head = tl.program_id(1)
    cell = tl.program_id(0).to(tl.int64) * BW + tl.arange(0, BW)
    r = cell // w % h
    c = cell % w
    here = cell < cells
    right = here & (c + 1 < w)
    below = here & (r + 1 < h)
    diagonal = right & below
    window = cell * N + head
    v = _values(values, window, here, D, BD, ACC)
    even_even = _mix(v, logits, window, here, 4, ACC)
    even_odd = _mix(v, logits, window, here, 5, ACC)
    odd_even = _mix(v, logits, window, here, 7, ACC)
    odd_odd = _mix(v, logits, window, here, 8, ACC)
    window = (cell + 1) * N + head
    v = _values(values, window, right, D, BD, ACC)
    even_odd += _mix(v, logits, window, right, 3, ACC)
    odd_odd += _mix(v, logits, window, right, 6, ACC)
    window = (cell + w) * N + head
    v = _values(values, window, below, D, BD, ACC)
    odd_even += _mix(v, logits, window, below, 1, ACC)
    odd_odd += _mix(v, logits, window, below, 2, ACC)
    window = (cell + w + 1) * N + head
    v = _values(values, window, diagonal, D, BD, ACC)
    odd_odd += _mix(v, logits, window, diagonal, 0, ACC)
    channel = tl.arange(0, BD)
    pixel = (cell // w // h * H + 2 * r) * W + 2 * c
    target = out + (pixel * N + head)[:, None] * D + channel[None, :]
    on = (channel < D)[None, :]
    odd_column = here & (2 * c + 1 < W)
    odd_row = here & (2 * r + 1 < H)
    lower = target + tl.cast(W, tl.int64) * N * D
    tl.store(target, even_even, mask=here[:, None] & on)
    tl.store(target + N * D, even_odd, mask=odd_column[:, None] & on)
    tl.store(lower, odd_even, mask=odd_row[:, None] & on)
    tl.store(lower + N * D, odd_odd, mask=(odd_row & odd_column)[:, None] & on)


@triton.jit
def csa_backward(
    logits,
    values,
    grad,
    grad_logits,
    grad_values,
    cells,
    h,
    w,
    H,
    W,
    N,
    D: tl.constexpr,
    BD: tl.constexpr,
    BW: tl.constexpr,
    ACC: tl.constexpr,
):
    head = tl.program_id(1)
    cell = tl.program_id(0).to(tl.int64) * BW + tl.arange(0, BW)
    r = cell // w % h
    c = cell % w
    exists = cell < cells
    window = cell * N + head
    source = tl.arange(0, _SOURCES)
    channel = tl.arange(0, BD)
    v = _values(values, window, exists, D, BD, ACC)
    grad_v = tl.zeros([BW, _SOURCES, BD], ACC)
    for t in tl.static_range(9):
        y = 2 * r - 1 + t // 3
        x = 2 * c - 1 + t % 3
        seen = exists & (y >= 0) & (y < H) & (x >= 0) & (x < W)
        pixel = (cell // w // h * H + y) * W + x
        at = grad + (pixel * N + head)[:, None] * D + channel[None, :]
        g = tl.load(at, mask=seen[:, None] & (channel < D)[None, :], other=0.0).to(ACC)
        weight = _weights(logits, window, exists, t, ACC)
        grad_v += weight[:, :, None] * g[:, None, :]
        grad_weight = tl.sum(v * g[:, None, :], 2)
        grad_logit = weight * (grad_weight - tl.sum(weight * grad_weight, 1)[:, None])
        to = grad_logits + window[:, None] * 81 + (source * 9 + t)[None, :]
        tl.store(to, grad_logit, mask=exists[:, None] & (source < 9)[None, :])
    to = grad_values + window[:, None, None] * (9 * D) + source[None, :, None] * D + channel[None, None, :]
    on = exists[:, None, None] & (source < 9)[None, :, None] & (channel < D)[None, None, :]
    tl.store(to, grad_v, mask=on)


def _geometry(values: Tensor, H: int, W: int) -> tuple[tuple[int, ...], tuple[int, int], dict[str, Any]]:
    """The kernels' sizes, the grid and the blocks."""
    B, h, w, N, _, D = values.shape
    BD = next_power_of_2(D)
    BW = max(1, TILE // (16 * BD))
    cells = B * h * w
    acc = tl.float64 if values.dtype == torch.float64 else tl.float32
    return (cells, h, w, H, W, N), (triton.cdiv(cells, BW), N), {"D": D, "BD": BD, "BW": BW, "ACC": acc}


@torch.library.custom_op("litevit::csa_mix", mutates_args=())
def csa_mix(logits: Tensor, values: Tensor, height: int, width: int) -> Tensor:
    """Softmax over the sources, mix of the values, sum of the overlapping windows.

    Args:
        logits: (B, h, w, N, 9 sources, 9 destinations), of any floating dtype. Sources come first, where
            `litevit.ops.csa.mix_windows` has destinations first: `logits.transpose(-2, -1)` makes one of the other.
        values: (B, h, w, N, 9, D).
        height, width: H and W; h and w are their halves, rounded up.

    Returns:
        (B, H, W, C), dtype of values.
    """
    B, h, w, N, _, D = values.shape
    if (h, w) != ((height + 1) // 2, (width + 1) // 2):  # the kernel would write outside the map, or not all of it
        expected = f"{(height + 1) // 2} x {(width + 1) // 2}"
        raise ValueError(f"csa_mix: a {height} x {width} map needs {expected} windows, got {h} x {w}")
    out = torch.empty((B, height, width, N * D), dtype=values.dtype, device=values.device)
    if out.numel():
        sizes, grid, blocks = _geometry(values, height, width)
        with torch.cuda.device_of(values):
            csa_forward[grid](logits.contiguous(), values.contiguous(), out, *sizes, **blocks)
    return out


@csa_mix.register_fake
def _(logits: Tensor, values: Tensor, height: int, width: int) -> Tensor:
    return values.new_empty((values.shape[0], height, width, values.shape[3] * values.shape[5]))


@torch.library.custom_op("litevit::csa_mix_backward", mutates_args=())
def csa_mix_backward(grad: Tensor, logits: Tensor, values: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Gradients of logits and values. Args: grad: (B, H, W, C); the others as `csa_mix`."""
    grad_logits = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    grad_values = torch.empty(values.shape, dtype=values.dtype, device=values.device)
    if values.numel():
        sizes, grid, blocks = _geometry(values, height, width)
        with torch.cuda.device_of(values):
            csa_backward[grid](
                logits.contiguous(), values.contiguous(), grad.contiguous(), grad_logits, grad_values, *sizes, **blocks
            )
    return grad_logits, grad_values


@csa_mix_backward.register_fake
def _(grad: Tensor, logits: Tensor, values: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    return logits.new_empty(logits.shape), values.new_empty(values.shape)


def _backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
    return *csa_mix_backward(grad, *ctx.saved_tensors, *ctx.size), None, None


def _save(ctx, inputs: tuple[Tensor, Tensor, int, int], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.size = inputs[2:]


csa_mix.register_autograd(_backward, setup_context=_save)
