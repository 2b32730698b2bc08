"""The C++ kernels as functions of dense tensors on a CPU.

Each has a question beside it, whether it serves these shapes here: `attends`, `attends_windows`, `convolves`,
`dilates`, `normalises`, `mixes`. Dtypes and devices are `litevit.optimize.operators.takes`'s business.
Shapes: B batch, H x W grid, C channels, N heads, L queries, M keys, D head channels.
"""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from litevit.optimize.native.build import library
from litevit.optimize.processor import has_tile_units, multiplies_bfloat16

HEAD_DIMS = (32, 64)
MAX_WINDOW = 16
CHANNELS = 32  # the depthwise kernels take multiples of it
OUT_OF_MEMORY = 2  # as in vectors.h


def available() -> bool:
    """Whether the kernels are there: built before, by `build.make`. Nothing is compiled here."""
    return library() is not None


def _serves(x: Tensor) -> bool:
    """Whether there are kernels for x's dtype and layout."""
    if not available() or x.stride(-1) != 1:
        return False
    return x.dtype == torch.float32 or (multiplies_bfloat16() and not has_tile_units())


def _call(name: str, *args: Tensor | Sequence[int] | float | None) -> None:
    values: list[object] = []
    for arg in args:
        if isinstance(arg, Tensor):
            values.append(ctypes.c_void_p(arg.data_ptr()))
        elif arg is None:
            values.append(ctypes.c_void_p(None))
        elif isinstance(arg, float):
            values.append(ctypes.c_float(arg))
        elif isinstance(arg, int):
            values.append(ctypes.c_int64(arg))
        else:
            values.append((ctypes.c_int64 * len(arg))(*arg))
    failed = getattr(library(), name)(*values, ctypes.c_int(torch.get_num_threads()))
    if failed == OUT_OF_MEMORY:
        raise MemoryError(f"{name}: not enough memory for the kernel's buffers")
    assert not failed, f"{name}: no kernel for these sizes"


def _name(kernel: str, x: Tensor) -> str:
    return f"{kernel}_{'float' if x.dtype == torch.float32 else 'bfloat16'}"


def attends(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> bool:
    """Whether `attention` serves: nothing is broadcast, D in `HEAD_DIMS`."""
    B, N, L, D = q.shape
    M = k.shape[2]
    return (
        D in HEAD_DIMS
        and k.shape == v.shape == (B, N, M, D)
        and (bias is None or bias.shape == (N, L, M))
        and _serves(q)
        and k.stride(-1) == v.stride(-1) == 1
    )


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """softmax(scale q k^T + bias) v.

    Args:
        q: (B, N, L, D), D in `HEAD_DIMS`.
        k, v: (B, N, M, D).
        bias: (N, L, M) or None; best as a transposed view of (N, M, L), dense but for heads.
        scale: factor on the logits.

    Returns:
        (B, L, N, D).
    """
    B, N, L, D = q.shape
    made = q.new_empty(B, L, N, D)
    out = made.transpose(1, 2)
    added = None if bias is None else bias.transpose(1, 2)
    if added is not None and added.stride()[1:] != (L, 1):
        added = added.contiguous()
    strides = [*q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *out.stride()[:3]]
    sizes = [B, N, L, k.shape[2], *strides, 0 if added is None else added.stride(0)]
    _call(_name("attention", q), q, k, v, added, out, sizes, D, float(scale))
    return made


def attends_windows(qkv: Tensor, num_heads: int, window_size: int) -> bool:
    """Whether `window_attention` serves: D in `HEAD_DIMS`, windows that fill the grid, of up to 16 x 16."""
    _, H, W, E = qkv.shape
    fits = H % window_size == 0 and W % window_size == 0 and window_size <= MAX_WINDOW
    return fits and any(E == 3 * num_heads * D for D in HEAD_DIMS) and _serves(qkv)


def window_attention(qkv: Tensor, num_heads: int, window_size: int, scale: float) -> Tensor:
    """As `litevit.ops.window_attention.window_attention`."""
    B, H, W, E = qkv.shape
    out = qkv.new_empty(B, H, W, E // 3)
    sizes = [B, H, W, num_heads, window_size, *qkv.stride()[:3], *out.stride()[:3]]
    _call(_name("windows", qkv), qkv, out, sizes, E // (3 * num_heads), float(scale))
    return out


def convolves(x: Tensor, weight: Tensor) -> bool:
    """Whether `depthwise_gelu` serves: bfloat16, channels a multiple of `CHANNELS`, a dense kernel (C, 1, 3, 3)."""
    C = x.shape[-1]
    fits = x.dtype == torch.bfloat16 and C % CHANNELS == 0 and weight.shape == (C, 1, 3, 3)
    return fits and weight.is_contiguous() and _serves(x)


def depthwise_gelu(x: Tensor, weight: Tensor, bias: Tensor, *, pad_rows: bool = True) -> Tensor:
    """GELU(DWConv3x3(x) + bias), with a zero around the map; GELU to 1e-5, below the rounding of bfloat16.

    Args:
        x: (B, H, W, C), bfloat16, C a multiple of `CHANNELS`.
        weight: (C, 1, 3, 3), dense.
        bias: (C,).
        pad_rows: whether the zeros go above and below as well; else the outer rows are only read.

    Returns:
        (B, H, W, C), or (B, H - 2, W, C) without `pad_rows`.
    """
    B, H, W, C = x.shape
    first, rows = (0, H) if pad_rows else (1, H - 2)
    out = x.new_empty(B, rows, W, C)
    _call("depthwise_gelu", x, weight, bias, out, [B, H, W, C, first, rows, *x.stride()[:3]])
    return out


def dilates(x: Tensor, weight: Tensor, rates: Sequence[int]) -> bool:
    """Whether `dilated_silu_sum` serves: as `convolves`, and one to eight rates above 0."""
    return 0 < len(rates) <= 8 and min(rates) > 0 and convolves(x, weight)


def dilated_silu_sum(x: Tensor, weight: Tensor, rates: Sequence[int]) -> Tensor:
    """As `litevit.ops.dilated.dilated_silu_sum`; SiLU to 1e-5 of itself, below the rounding of bfloat16."""
    B, H, W, C = x.shape
    out = x.new_empty(B, H, W, C)
    _call("dilated_silu_sum", x, weight, out, [B, H, W, C, *x.stride()[:3], len(rates), *rates])
    return out


def mixes(x: Tensor, num_heads: int) -> bool:
    """Whether `csa_split` and `csa_mix` serve a map (B, H, W, C): D a multiple of 16."""
    return x.shape[-1] // num_heads % 16 == 0 and _serves(x)


def csa_split(x: Tensor) -> list[Tensor]:
    """The pixels of a map by the parity of row and column: (even, even), (even, odd), (odd, even), (odd, odd).

    Args: x: (B, H, W, C). Returns: four times (B, rows, columns, C), dense.
    """
    B, H, W, C = x.shape
    size = x.element_size()
    planes = x.new_empty(B * H * W, C)
    _call("csa_split", x, planes, [B, H, W, *(size * stride for stride in x.stride()[:3])], C * size)
    rows, columns = ((H + 1) // 2, H // 2), ((W + 1) // 2, W // 2)
    shapes = [(B, row, column, C) for row in rows for column in columns]
    parts = planes.split([B * row * column for _, row, column, _ in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes)]


def csa_mix(logits: Tensor, planes: Sequence[Tensor], out: Tensor, num_heads: int, scale: float) -> None:
    """Softmax and mixing of LVT's convolutional self-attention.

    Args:
        logits: (B, h, w, N, 9 destinations, 9 sources), dense.
        planes: values of the four planes of `csa_split`, each (B, rows, columns, positions * N * D) with the positions
            of `litevit.optimize.csa.PLANES`, D a multiple of 16.
        out: (B, H, W, N * D), written to.
        scale: factor on the logits, above 0.
    """
    B, H, W, C = out.shape
    _call(_name("csa_mix", out), logits, *planes, out, [B, H, W, num_heads, C // num_heads], float(scale))


def normalises(x: Tensor, weight: Tensor, added: Tensor | None = None) -> bool:
    """Whether `layer_norm` and `add_layer_norm` serve: dense tensors, C a multiple of 16 up to 4096."""
    C = x.shape[-1]
    fits = C % 16 == 0 and C <= 4096 and weight.shape == (C,) and x.is_contiguous() and _serves(x)
    return fits and (added is None or (added.shape == x.shape and added.is_contiguous()))


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """LayerNorm over the last axis. Args: x: (..., C); weight, bias: (C,). Returns: as x."""
    out = torch.empty_like(x)
    sizes = [x.numel() // x.shape[-1], x.shape[-1]]
    _call(_name("layer_norm", x), x, None, None, weight, bias, out, sizes, float(eps))
    return out


def add_layer_norm(x: Tensor, added: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x + added and the LayerNorm of it over the last axis. Args: x, added: (..., C). Returns: each as x."""
    total, out = torch.empty_like(x), torch.empty_like(x)
    sizes = [x.numel() // x.shape[-1], x.shape[-1]]
    _call(_name("layer_norm", x), x, added, total, weight, bias, out, sizes, float(eps))
    return total, out
