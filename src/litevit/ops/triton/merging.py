"""Sampling of deformable merging: the four taps of every merged token, as rows that one matrix product then mixes.

Run on an H200, and in Triton's interpreter. The product stays with cuBLAS: it has nearly all the operations
(8 C O of 8 C (O + 4) per token), and the sampled rows cost one write and one read of as many values as x has.

Blocks. Forward: rows (token, tap) x channels in the tiles of `tiles.py`: four independent loads of 32 bytes or
more a thread. Backward: the same tile walks over all channels, as the gradients of an offset are sums over them.

Bytes, for |x| values of b bytes and local offsets (the corners overlap, caches serve three of four): forward 2 |x| b;
backward reads 2 |x| b and adds 4 values per sampled value atomically into a float32 map. Neighbouring programs add to
the same part of it, which the second-level cache collects: 4 |x| zeroed before, 8 |x| read and written, and
(4 + b) |x| for a cast after in reduced precision. Operations: 8 |x| forward, 16 |x| backward.

The gradient of x is summed by atomic additions: its last bits vary from run to run, also under
`torch.use_deterministic_algorithms(True)`. `litevit.ops.deformable_sampling` is the plain form.

Shapes: B batch, H x W grid, h x w = H//2 x W//2 merged grid, C channels, T = 4 taps, M = B * h * w * T rows.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from litevit.ops.triton.tiles import rows_and_channels


@triton.jit
def _corners(offset, row, M, H, W, h, w, COORD: tl.constexpr):
    """First corner of every row's sampling point, its fractions, and which of the four corners exist.

    A point that is not inside (-1, H) x (-1, W), NaN included, has none: the comparison precedes the conversion to
    integers, which is undefined for NaN, infinity and large values.
    """
    valid = row < M
    tap = row % 4
    cell = row // 4
    y = 2 * (cell // w % h) + tap // 2
    x = 2 * (cell % w) + tap % 2
    py = y.to(COORD) + tl.load(offset + 2 * row, mask=valid, other=0.0).to(COORD)
    px = x.to(COORD) + tl.load(offset + 2 * row + 1, mask=valid, other=0.0).to(COORD)
    inside = valid & (py > -1) & (py < H) & (px > -1) & (px < W)
    py = tl.where(inside, py, 0.0)
    px = tl.where(inside, px, 0.0)
    top = tl.floor(py)
    left = tl.floor(px)
    y0 = top.to(tl.int64)
    x0 = left.to(tl.int64)
    first = (cell // w // h * H + y0) * W + x0  # pixel of the upper left corner; exists only under its mask
    has_top = inside & (y0 >= 0)
    has_bottom = inside & (y0 + 1 < H)
    has_left = x0 >= 0
    has_right = x0 + 1 < W
    return (
        first,
        py - top,
        px - left,
        has_top & has_left,
        has_top & has_right,
        has_bottom & has_left,
        has_bottom & has_right,
    )


@triton.jit
def sample_forward(
    x, offset, out, M, H, W, h, w, C, BM: tl.constexpr, BC: tl.constexpr, COORD: tl.constexpr, ACC: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    first, fy, fx, m00, m01, m10, m11 = _corners(offset, row, M, H, W, h, w, COORD)
    on = (channel < C)[None, :]
    upper_left = x + first[:, None] * C + channel[None, :]
    lower_left = x + (first + W)[:, None] * C + channel[None, :]
    x00 = tl.load(upper_left, mask=m00[:, None] & on, other=0.0).to(ACC)
    x01 = tl.load(upper_left + C, mask=m01[:, None] & on, other=0.0).to(ACC)
    x10 = tl.load(lower_left, mask=m10[:, None] & on, other=0.0).to(ACC)
    x11 = tl.load(lower_left + C, mask=m11[:, None] & on, other=0.0).to(ACC)
    upper = x00 * ((1 - fy) * (1 - fx)).to(ACC)[:, None] + x01 * ((1 - fy) * fx).to(ACC)[:, None]
    lower = x10 * (fy * (1 - fx)).to(ACC)[:, None] + x11 * (fy * fx).to(ACC)[:, None]
    tl.store(out + row[:, None] * C + channel[None, :], upper + lower, mask=(row < M)[:, None] & on)


@triton.jit
def _read_and_add(x, grad_x, at, weight, mask, on, g, ACC: tl.constexpr):
    """One corner: returns <g, x> of every row over this block of channels, and adds weight * g to the gradient of x."""
    mask = mask[:, None] & on
    value = tl.load(x + at, mask=mask, other=0.0).to(ACC)
    tl.atomic_add(grad_x + at, g * weight.to(ACC)[:, None], mask=mask, sem="relaxed")
    return tl.sum(tl.where(mask, g * value, 0.0), 1)


@triton.jit
def sample_backward(
    x,
    offset,
    grad,
    grad_x,
    grad_offset,
    M,
    H,
    W,
    h,
    w,
    C,
    BM: tl.constexpr,
    BC: tl.constexpr,
    COORD: tl.constexpr,
    ACC: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    first, fy, fx, m00, m01, m10, m11 = _corners(offset, row, M, H, W, h, w, COORD)
    s00 = tl.zeros([BM], ACC)
    s01 = tl.zeros([BM], ACC)
    s10 = tl.zeros([BM], ACC)
    s11 = tl.zeros([BM], ACC)
    for start in range(0, C, BC):
        channel = start + tl.arange(0, BC)
        on = (channel < C)[None, :]
        g = tl.load(grad + row[:, None] * C + channel[None, :], mask=(row < M)[:, None] & on, other=0.0).to(ACC)
        at = first[:, None] * C + channel[None, :]
        below = (first + W)[:, None] * C + channel[None, :]
        s00 += _read_and_add(x, grad_x, at, (1 - fy) * (1 - fx), m00, on, g, ACC)
        s01 += _read_and_add(x, grad_x, at + C, (1 - fy) * fx, m01, on, g, ACC)
        s10 += _read_and_add(x, grad_x, below, fy * (1 - fx), m10, on, g, ACC)
        s11 += _read_and_add(x, grad_x, below + C, fy * fx, m11, on, g, ACC)
    # Only corners that exist have moved their sum from 0, so that nothing reaches an offset whose point is outside.
    grad_y = (1 - fx) * (s10 - s00) + fx * (s11 - s01)
    grad_x_coordinate = (1 - fy) * (s01 - s00) + fy * (s11 - s10)
    tl.store(grad_offset + 2 * row, grad_y, mask=row < M)
    tl.store(grad_offset + 2 * row + 1, grad_x_coordinate, mask=row < M)


def _types(x: Tensor, offset: Tensor) -> dict[str, tl.dtype]:
    return {
        "COORD": tl.float64 if offset.dtype == torch.float64 else tl.float32,
        "ACC": tl.float64 if x.dtype == torch.float64 else tl.float32,
    }


def _check(x: Tensor, offset: Tensor) -> None:
    """Raises ValueError unless the kernels would read and write these maps and nothing else."""
    if x.ndim != 4 or offset.shape != (x.shape[0], x.shape[1] // 2, x.shape[2] // 2, 8):
        raise ValueError(
            "deformable_sample: x must be (B, H, W, C) and offset (B, H//2, W//2, 8), "
            f"got {tuple(x.shape)} and {tuple(offset.shape)}"
        )
    if x.device != offset.device or not (x.is_floating_point() and offset.is_floating_point()):
        raise ValueError(
            "deformable_sample: x and offset must be floating and on one device, "
            f"got {x.dtype} on {x.device} and {offset.dtype} on {offset.device}"
        )


@torch.library.custom_op("litevit::deformable_sample", mutates_args=())
def deformable_sample(x: Tensor, offset: Tensor) -> Tensor:
    """Samples the four taps of every merged token bilinearly, zero outside the map.

    Args:
        x: (B, H, W, C).
        offset: (B, h, w, 8), in pixels of x, of any floating dtype; coordinates are float32 (float64 if it is).

    Returns:
        (B, h, w, 4 * C), dtype of x.
    """
    _check(x, offset)
    B, H, W, C = x.shape
    _, h, w, _ = offset.shape
    out = torch.empty((B, h, w, 4 * C), dtype=x.dtype, device=x.device)
    if out.numel() == 0:
        return out
    M = B * h * w * 4
    BM, BC = rows_and_channels(C)
    with torch.cuda.device_of(x):
        sample_forward[(triton.cdiv(M, BM), triton.cdiv(C, BC))](
            x.contiguous(), offset.contiguous(), out, M, H, W, h, w, C, BM=BM, BC=BC, **_types(x, offset)
        )
    return out


@deformable_sample.register_fake
def _(x: Tensor, offset: Tensor) -> Tensor:
    return x.new_empty((*offset.shape[:3], 4 * x.shape[3]))


@torch.library.custom_op("litevit::deformable_sample_backward", mutates_args=())
def deformable_sample_backward(grad: Tensor, x: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x and offset. Args: grad: (B, h, w, 4 * C); x, offset: as `deformable_sample`."""
    _check(x, offset)
    if grad.shape != (*offset.shape[:3], 4 * x.shape[3]) or grad.device != x.device:
        raise ValueError(
            f"deformable_sample_backward: grad must be {(*offset.shape[:3], 4 * x.shape[3])} on {x.device}, "
            f"got {tuple(grad.shape)} on {grad.device}"
        )
    B, H, W, C = x.shape
    _, h, w, _ = offset.shape
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    grad_x = torch.zeros(x.shape, dtype=wide, device=x.device)
    grad_offset = torch.empty(offset.shape, dtype=offset.dtype, device=x.device)
    if grad.numel():
        M = B * h * w * 4
        BM, BC = rows_and_channels(C)
        with torch.cuda.device_of(x):
            sample_backward[(triton.cdiv(M, BM),)](
                x.contiguous(),
                offset.contiguous(),
                grad.contiguous(),
                grad_x,
                grad_offset,
                M,
                H,
                W,
                h,
                w,
                C,
                BM=BM,
                BC=BC,
                **_types(x, offset),
            )
    else:
        grad_offset.zero_()
    return grad_x.to(x.dtype), grad_offset


@deformable_sample_backward.register_fake
def _(grad: Tensor, x: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), offset.new_empty(offset.shape)


def _backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
    return deformable_sample_backward(grad, *ctx.saved_tensors)


def _save(ctx, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


deformable_sample.register_autograd(_backward, setup_context=_save)
