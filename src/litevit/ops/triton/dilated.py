"""Sum over dilations of SiLU(depthwise 3 x 3) with one kernel (LVT's atrous query): one read and one write of the map.

Run on an H200, and in Triton's interpreter. PyTorch needs, for three dilations, three convolutions, three
SiLUs and two sums: 3 * 2 + 3 * 2 + 2 * 3 = 18 passes over the map, and more with a gradient.

Blocks. Pixels, counted over the whole batch, x channels in the tiles of `tiles.py`: no tile is cut short by the end of
a row. A pixel's coordinates cost two divisions for all its channels and taps.

Bytes, for |x| values of b bytes and R dilations: forward 2 |x| b. Backward in two kernels: the first reads x and the
gradient and writes the gradient of every convolution, (2 + R) |x| b, and sums the gradient of the weight on its way;
the second gathers the gradient of x from them, (R + 1) |x| b. Operations: about R (18 + 5) |x| forward, three times
that backward; all taps but the first of a line come from caches. Deterministic: the gradient of the weight is summed
per program into a buffer of at most 256 partial sums, and those in one fixed order.

Shapes: B batch, H x W grid, C channels, R dilations.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from litevit.ops.triton.tiles import rows_and_channels

_MAX_PARTS = 256  # programs along the pixels of the first backward kernel: two a multiprocessor of an H200


@triton.jit
def _pixels(tile, H, W, BP: tl.constexpr):
    """Index over the batch, y and x of the pixels of one tile."""
    pixel = tl.cast(tile, tl.int64) * BP + tl.arange(0, BP)
    return pixel, pixel // W % H, pixel % W


@triton.jit
def _tap(x, pixel, y, column, P, H, W, C, channel, dy, dx, ACC: tl.constexpr):
    """The map dy rows and dx columns away from every pixel, zero outside, (BP, BC); and where it is inside."""
    inside = (pixel < P) & (y + dy >= 0) & (y + dy < H) & (column + dx >= 0) & (column + dx < W)
    seen = inside[:, None] & (channel < C)[None, :]
    at = (pixel + dy * W + dx)[:, None] * C + channel[None, :]
    return tl.load(x + at, mask=seen, other=0.0).to(ACC), seen


@triton.jit
def _convolution(
    x,
    weight,
    pixel,
    y,
    column,
    P,
    H,
    W,
    C,
    channel,
    RATE: tl.constexpr,
    BP: tl.constexpr,
    BC: tl.constexpr,
    ACC: tl.constexpr,
):
    """The depthwise convolution at dilation RATE, or its transpose at -RATE. `weight` is (9, C)."""
    total = tl.zeros([BP, BC], ACC)
    for i in range(3):  # a loop of three bodies of three taps: with nine, or 27, the registers run out
        for j in tl.static_range(3):
            w = tl.load(weight + (3 * i + j) * C + channel, mask=channel < C, other=0.0).to(ACC)
            value, _ = _tap(x, pixel, y, column, P, H, W, C, channel, RATE * (i - 1), RATE * (j - 1), ACC)
            total += w[None, :] * value
    return total


@triton.jit
def dilated_forward(
    x, weight, out, P, H, W, C, RATES: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, ACC: tl.constexpr
):
    pixel, y, column = _pixels(tl.program_id(0), H, W, BP)
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    total = tl.zeros([BP, BC], ACC)
    for i in tl.static_range(len(RATES)):
        z = _convolution(x, weight, pixel, y, column, P, H, W, C, channel, RATES[i], BP, BC, ACC)
        total += z / (1 + tl.exp(-z))
    tl.store(out + pixel[:, None] * C + channel[None, :], total, mask=(pixel < P)[:, None] & (channel < C)[None, :])


@triton.jit
def dilated_backward_convolutions(
    x,
    weight,
    grad,
    grad_z,
    grad_weight,
    tiles,
    P,
    H,
    W,
    C,
    RATES: tl.constexpr,
    BP: tl.constexpr,
    BC: tl.constexpr,
    ACC: tl.constexpr,
):
    """Gradients of the R convolutions' outputs, (R, B, H, W, C), and partial sums (parts, 9, C) of the weight's."""
    part = tl.program_id(0)
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    taps = tl.arange(0, 16)
    grad_w = tl.zeros([16, BC], ACC)
    for tile in range(part, tiles, tl.num_programs(0)):
        pixel, y, column = _pixels(tile, H, W, BP)
        here = pixel[:, None] * C + channel[None, :]
        on = (pixel < P)[:, None] & (channel < C)[None, :]
        g = tl.load(grad + here, mask=on, other=0.0).to(ACC)
        for i in tl.static_range(len(RATES)):
            z = _convolution(x, weight, pixel, y, column, P, H, W, C, channel, RATES[i], BP, BC, ACC)
            s = 1 / (1 + tl.exp(-z))
            slope = g * s * (1 + z * (1 - s))
            tl.store(grad_z + i * tl.cast(P, tl.int64) * C + here, slope, mask=on)
            for ky in range(3):
                for kx in tl.static_range(3):
                    dy = RATES[i] * (ky - 1)
                    dx = RATES[i] * (kx - 1)
                    value, seen = _tap(x, pixel, y, column, P, H, W, C, channel, dy, dx, ACC)
                    product = tl.sum(tl.where(seen, slope * value, 0.0), 0)
                    grad_w += tl.where((taps == 3 * ky + kx)[:, None], product[None, :], 0.0)
    to = grad_weight + (part * 9 + taps)[:, None] * C + channel[None, :]
    tl.store(to, grad_w, mask=(taps < 9)[:, None] & (channel < C)[None, :])


@triton.jit
def dilated_backward_input(
    grad_z, weight, grad_x, P, H, W, C, RATES: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, ACC: tl.constexpr
):
    pixel, y, column = _pixels(tl.program_id(0), H, W, BP)
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    total = tl.zeros([BP, BC], ACC)
    for i in tl.static_range(len(RATES)):
        source = grad_z + i * tl.cast(P, tl.int64) * C
        total += _convolution(source, weight, pixel, y, column, P, H, W, C, channel, -RATES[i], BP, BC, ACC)
    tl.store(grad_x + pixel[:, None] * C + channel[None, :], total, mask=(pixel < P)[:, None] & (channel < C)[None, :])


def _blocks(x: Tensor, rates: Sequence[int]) -> tuple[int, int, dict[str, Any]]:
    """(tiles, channel blocks, block sizes)."""
    B, H, W, C = x.shape
    BP, BC = rows_and_channels(C)
    blocks = {"RATES": tuple(rates), "BP": BP, "BC": BC, "ACC": tl.float64 if x.dtype == torch.float64 else tl.float32}
    return triton.cdiv(B * H * W, BP), triton.cdiv(C, BC), blocks


def _by_tap(weight: Tensor) -> Tensor:
    """(9, C): the channels of a tap side by side, to be read in wide loads."""
    return weight.reshape(-1, 9).t().contiguous()


def _check(x: Tensor, weight: Tensor, rates: Sequence[int]) -> None:
    """Raises ValueError unless the kernels would read and write these maps and nothing else."""
    if x.ndim != 4 or weight.shape != (x.shape[3], 1, 3, 3):
        raise ValueError(
            "dilated_sum: x must be (B, H, W, C) and weight (C, 1, 3, 3), "
            f"got {tuple(x.shape)} and {tuple(weight.shape)}"
        )
    if x.device != weight.device or not (x.is_floating_point() and weight.is_floating_point()):
        raise ValueError(
            "dilated_sum: x and weight must be floating and on one device, "
            f"got {x.dtype} on {x.device} and {weight.dtype} on {weight.device}"
        )
    if not rates or min(rates) < 1:
        raise ValueError(f"dilated_sum: rates must be dilations >= 1, got {list(rates)}")


# Schemas in words: PyTorch 2.5 knows no collections.abc.Sequence.
@torch.library.custom_op(
    "litevit::dilated_silu_sum", mutates_args=(), schema="(Tensor x, Tensor weight, SymInt[] rates) -> Tensor"
)
def dilated_sum(x: Tensor, weight: Tensor, rates: Sequence[int]) -> Tensor:
    """sum over r of SiLU(DWConv3x3(x; weight, dilation r)).

    Args:
        x: (B, H, W, C).
        weight: (C, 1, 3, 3), of any floating dtype.
        rates: dilations r.

    Returns:
        (B, H, W, C), dtype of x.
    """
    _check(x, weight, rates)
    B, H, W, C = x.shape
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if out.numel():
        tiles, parts, blocks = _blocks(x, rates)
        with torch.cuda.device_of(x):
            dilated_forward[(tiles, parts)](x.contiguous(), _by_tap(weight), out, B * H * W, H, W, C, **blocks)
    return out


@dilated_sum.register_fake
def _(x: Tensor, weight: Tensor, rates: Sequence[int]) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op(
    "litevit::dilated_silu_sum_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor x, Tensor weight, SymInt[] rates) -> (Tensor, Tensor)",
)
def dilated_sum_backward(grad: Tensor, x: Tensor, weight: Tensor, rates: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Gradients of x and weight. Args: grad: (B, H, W, C); the others as `dilated_sum`."""
    _check(x, weight, rates)
    if grad.shape != x.shape or grad.device != x.device:
        raise ValueError(
            f"dilated_sum_backward: grad must be {tuple(x.shape)} on {x.device} like x, "
            f"got {tuple(grad.shape)} on {grad.device}"
        )
    B, H, W, C = x.shape
    grad_x = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if x.numel() == 0:
        return grad_x, torch.zeros(weight.shape, dtype=weight.dtype, device=x.device)
    x, by_tap, grad = x.contiguous(), _by_tap(weight), grad.contiguous()
    tiles, channel_blocks, blocks = _blocks(x, rates)
    parts = min(tiles, _MAX_PARTS)
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    grad_z = torch.empty((len(rates), *x.shape), dtype=x.dtype, device=x.device)
    grad_w = torch.empty((parts, 9, C), dtype=wide, device=x.device)
    with torch.cuda.device_of(x):
        dilated_backward_convolutions[(parts, channel_blocks)](
            x, by_tap, grad, grad_z, grad_w, tiles, B * H * W, H, W, C, **blocks
        )
        dilated_backward_input[(tiles, channel_blocks)](grad_z, by_tap, grad_x, B * H * W, H, W, C, **blocks)
    return grad_x, grad_w.sum(0).t().contiguous().view(weight.shape).to(weight.dtype)


@dilated_sum_backward.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, rates: Sequence[int]) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), weight.new_empty(weight.shape)


def _backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    return *dilated_sum_backward(grad, *ctx.saved_tensors, ctx.rates), None


def _save(ctx, inputs: tuple[Tensor, Tensor, Sequence[int]], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.rates = inputs[2]


dilated_sum.register_autograd(_backward, setup_context=_save)
