"""Convolutional self-attention whole, in strips that stay in cache: inference on the CPU (LVT, arXiv:2112.10809).

The softmax and the mixing of a 3 x 3 window are 9 x 9 by 9 x D: too small for matrix-product kernels. Turned around, so
that the windows of a strip lie side by side in memory, both are a handful of passes over long rows, and the overlapping
sum is an addition of shifted rows. One layer at 56 x 56 x 64, batch 8, takes half the time (docs/performance.md).

Shapes: B batch, H x W grid, h x w = ceil(H/2) x ceil(W/2) windows, N heads, D head channels, C = N * D, P cells of a
strip: rows of w + 1, one more than windows, so that a neighbour is a fixed shift and the last cell of a row is zero.
"""

import torch
from torch import Tensor, nn

from litevit.ops.csa import window_means
from litevit.ops.kernels import takes_triton
from litevit.ops.linear import CPU_UNITS, is_emulated

STRIP_BYTES = 3 << 20  # of the values of one strip

# Positions 3 * ky + kx of a window by the parity of the pixel they read: (row, column) even even, even odd, odd even,
# odd odd. Within a plane of one parity, position (ky, kx) is at a shift of (ky == 2) rows and (kx == 2) columns.
PLANES = ((4,), (3, 5), (1, 7), (0, 2, 6, 8))


def pays(x: Tensor, *modules: nn.Module) -> bool:
    """Whether `attend` below should run: inference on the CPU, modules nobody has replaced."""
    if x.device.type != "cpu" or torch.is_grad_enabled() or x.dtype == torch.float64 or takes_triton(x, "auto"):
        return False
    if torch.compiler.is_exporting() or torch.jit.is_tracing() or torch.is_autocast_enabled("cpu"):
        return False
    if any(type(m) is not nn.Linear or m._forward_hooks or m._forward_pre_hooks for m in modules):
        return False
    return all(p.dtype == x.dtype and p.device == x.device for m in modules for p in m.parameters())


def attend(x: Tensor, attn: nn.Linear, value_weight: Tensor, proj: nn.Linear, num_heads: int, scale: float) -> Tensor:
    """The layer, its output projection included.

    Args:
        x: (B, H, W, C).
        attn: C -> N * 81, rows head, destination, source.
        value_weight: (9, C, C).
        proj: C -> C.
        num_heads: N.
        scale: factor on the logits.

    Returns:
        (B, H, W, C).
    """
    run = _attend_op if torch.compiler.is_compiling() else _attend
    return run(x, attn.weight, attn.bias, value_weight, proj.weight, proj.bias, num_heads, scale)


def _attend(
    x: Tensor,
    attn_weight: Tensor,
    attn_bias: Tensor,
    value_weight: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    num_heads: int,
    scale: float,
) -> Tensor:
    _, H, W, C = x.shape
    N, h, w = num_heads, (H + 1) // 2, (W + 1) // 2
    # Products in x's dtype where there are units for it; softmax and sums in float32 always.
    dtype = torch.float32 if is_emulated(x) or not CPU_UNITS.get(x.dtype, True) else x.dtype
    weights = [
        # Sources first: the softmax runs over rows.
        (attn_weight.float().view(N, 9, 9, C).transpose(1, 2).reshape(N * 81, C) * scale).to(dtype),
        (attn_bias.float().view(N, 9, 9).transpose(1, 2).reshape(N * 81, 1) * scale).to(dtype),
        *(value_weight[list(plane)].flatten(0, 1).to(dtype) for plane in PLANES),
    ]
    proj_weight, proj_bias = proj_weight.to(dtype), proj_bias.to(dtype)
    means = window_means(x).to(dtype)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    rows = max(1, min(h, STRIP_BYTES // (36 * C * (w + 1))))
    for image, image_means, image_out in zip(x, means, out):
        for top in range(0, h, rows):
            strip = _strip(image, image_means, top, min(rows, h - top), weights, N)
            _project(strip, image_out, top, proj_weight, proj_bias)
    return out


def _strip(image: Tensor, means: Tensor, top: int, R: int, weights: list[Tensor], N: int) -> Tensor:
    """Overlapping sums of windows top .. top + R, by parity of the pixel.

    Args:
        image: (H, W, C).
        means: (h, w, C).
        top, R: first window row, number of window rows.
        weights: of the logits, their bias, of the values of each plane.
        N: heads.

    Returns:
        (4, C, R, w + 1), float32; the last column means nothing.
    """
    C = image.shape[-1]
    h, w, _ = means.shape
    wide, dtype = w + 1, weights[0].dtype
    length = (R + 1) * wide  # cells of the windows, those of the row below included: their sums reach into the strip
    # Cell (i, j) holds row 2 (top + i) or 2 (top + i) - 1 and column 2 j or 2 j - 1, by parity; zero outside the map.
    planes = torch.zeros(4, C, R + 3, wide, dtype=dtype)
    cells = torch.zeros(R + 1, wide, C, dtype=dtype)
    known = min(R + 1, h - top)
    cells[:known, :w] = means[top : top + known]
    for odd_row in (0, 1):
        first = 2 * top - odd_row
        skip = 1 if first < 0 else 0
        strip_rows = image[first + 2 * skip : 2 * (top + R) + 2 : 2]
        n = strip_rows.shape[0]
        for odd_column in (0, 1):
            pixels = strip_rows[:, odd_column::2].permute(2, 0, 1)
            target = planes[2 * odd_row + odd_column]
            target[:, skip : skip + n, odd_column : odd_column + pixels.shape[2]] = pixels
    logits = torch.addmm(weights[1], weights[0], cells.view(length, C).t())
    mixing = logits.float().view(N, 9, 9, R + 1, wide).softmax(1)
    mixing[..., known:, :] = 0  # windows that do not exist
    mixing[..., w] = 0
    mixing = mixing.view(N, 9, 9, 1, length)
    mixed = torch.empty(N, 9, C // N, length)
    started = False
    for plane, positions, weight in zip(planes, PLANES, weights[2:]):
        values = torch.mm(weight, plane.view(C, -1)).view(len(positions), N, 1, C // N, -1)
        for source, value in zip(positions, values.float()):
            ky, kx = divmod(source, 3)
            start = (ky == 2) * wide + (kx == 2)
            value = value[..., start : start + length]
            if started:
                mixed.addcmul_(mixing[:, source], value)
            else:
                torch.mul(mixing[:, source], value, out=mixed)
                started = True
    return _overlap(mixed, R, wide)


def _overlap(mixed: Tensor, R: int, wide: int) -> Tensor:
    """Args: mixed: (N, 9, D, (R + 1) * wide). Returns: (4, N * D, R, wide)."""
    N, _, D, _ = mixed.shape
    out = mixed.new_empty(4, N, D, R * wide)
    here, right = slice(0, R * wide), slice(1, R * wide + 1)
    below, both = slice(wide, (R + 1) * wide), slice(wide + 1, (R + 1) * wide)
    out[0] = mixed[:, 4, :, here]
    torch.add(mixed[:, 5, :, here], mixed[:, 3, :, right], out=out[1])
    torch.add(mixed[:, 7, :, here], mixed[:, 1, :, below], out=out[2])
    torch.add(mixed[:, 8, :, here], mixed[:, 6, :, right], out=out[3])
    out[3] += mixed[:, 2, :, below]
    out[3, ..., :-1] += mixed[:, 0, :, both]
    return out.view(4, N * D, R, wide)


def _project(strip: Tensor, out: Tensor, top: int, weight: Tensor, bias: Tensor) -> None:
    """Output projection of each plane, into its pixels of `out` (H, W, C)."""
    _, C, R, wide = strip.shape
    for parity, plane in enumerate(strip.to(weight.dtype)):
        odd_row, odd_column = divmod(parity, 2)
        target = out[2 * top + odd_row : 2 * (top + R) : 2, odd_column::2]
        tokens = torch.addmm(bias, plane.view(C, -1).t(), weight.t()).view(R, wide, -1)
        target.copy_(tokens[: target.shape[0], : target.shape[1]])


# As a custom operator a compiler takes it whole: its loops are neither unrolled nor broken up.
@torch.library.custom_op("litevit::csa_strips", mutates_args=(), device_types="cpu")
def _attend_op(
    x: Tensor,
    attn_weight: Tensor,
    attn_bias: Tensor,
    value_weight: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    num_heads: int,
    scale: float,
) -> Tensor:
    return _attend(x, attn_weight, attn_bias, value_weight, proj_weight, proj_bias, num_heads, scale)


@_attend_op.register_fake
def _(
    x: Tensor,
    attn_weight: Tensor,
    attn_bias: Tensor,
    value_weight: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    num_heads: int,
    scale: float,
) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)
