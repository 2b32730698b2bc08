"""The C++ kernels as functions of tensors: inference on the CPU, in models that went through `optimize_for_inference`.

Callers ask first whether a kernel serves: `attends`, `attends_windows`, `convolves`, `dilates`, `normalises`, `takes`.
Shapes: B batch, H x W grid, C channels, N heads, L queries, M keys, D head channels.
"""

import ctypes
import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from litevit.optimize.native.build import library

HEAD_DIMS = (32, 64)
MAX_WINDOW = 16
CHANNELS = 32  # the depthwise kernels take multiples of it


def available() -> bool:
    """Whether there are kernels for this machine; compiles them if that has not been done."""
    return library() is not None


def unobserved() -> bool:
    """Whether nobody follows PyTorch's operators here: no compiler, tracer, transform or counter.

    A dispatch mode that only looks at tensors as they are made says so by an attribute `counts_tensors_only = True`.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._are_functorch_transforms_active():
        return False
    if not torch._C._len_torch_dispatch_stack():
        return True
    return all(getattr(mode, "counts_tensors_only", False) for mode in _get_current_dispatch_mode_stack())


def takes(x: Tensor, *others: Tensor) -> bool:
    """Whether kernels serve these tensors: inference on the CPU, one dtype that the processor multiplies.

    Whoever follows PyTorch's operators would see nothing of a kernel, and so gets PyTorch's own.
    """
    return (
        all(t.device.type == "cpu" for t in (x, *others))
        and not torch.is_grad_enabled()
        and unobserved()
        and not torch.is_autocast_enabled("cpu")
        and x.dtype in (torch.float32, torch.bfloat16)
        and all(t.dtype == x.dtype for t in others)
        and all(_plain(t) for t in (x, *others))
        and available()
        and (x.dtype == torch.float32 or _has_bfloat16())
    )


def _plain(t: Tensor) -> bool:
    return type(t) in (Tensor, nn.Parameter) and t.stride(-1) == 1 and t.numel() > 0 and not t.is_neg()


@functools.cache
def _has_bfloat16() -> bool:
    kernels = library()
    # Processors with tile units: PyTorch's own kernels use them, and nothing was measured there.
    return kernels is not None and bool(kernels.has_bfloat16()) and not torch.cpu._is_amx_tile_supported()


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
    assert not failed, f"{name}: no kernel for these sizes"


def _name(kernel: str, x: Tensor) -> str:
    return f"{kernel}_{'float' if x.dtype == torch.float32 else 'bfloat16'}"


def attends(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> bool:
    """Whether `attention` serves: nothing is broadcast, D in `HEAD_DIMS`."""
    if not unobserved():  # first: a compiler would make the sizes below conditions of its graph
        return False
    B, N, L, D = q.shape
    M = k.shape[2]
    return (
        D in HEAD_DIMS
        and k.shape == v.shape == (B, N, M, D)
        and (bias is None or (bias.shape == (N, L, M) and bias.dtype == q.dtype and bias.device == q.device))
        and takes(q, k, v)
    )


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """softmax(scale q k^T + bias) v, where `attends` says so.

    Args:
        q: (B, N, L, D), D in `HEAD_DIMS`.
        k, v: (B, N, M, D).
        bias: (N, L, M) or None; best as a transposed view of a dense (N, M, L).
        scale: factor on the logits.

    Returns:
        (B, N, L, D), a view of (B, L, N, D).
    """
    B, N, L, D = q.shape
    out = q.new_empty(B, L, N, D).transpose(1, 2)
    added = None if bias is None else bias.transpose(1, 2).contiguous()
    sizes = [B, N, L, k.shape[2], *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *out.stride()[:3]]
    _call(_name("attention", q), q, k, v, added, out, sizes, D, float(scale))
    return out


def attends_windows(qkv: Tensor, num_heads: int, window_size: int) -> bool:
    """Whether `window_attention` serves: D in `HEAD_DIMS`, windows that fill the grid, of up to 16 x 16."""
    if not unobserved():
        return False
    _, H, W, E = qkv.shape
    fits = H % window_size == 0 and W % window_size == 0 and window_size <= MAX_WINDOW
    return fits and any(E == 3 * num_heads * D for D in HEAD_DIMS) and takes(qkv)


def window_attention(qkv: Tensor, num_heads: int, window_size: int, scale: float) -> Tensor:
    """As `litevit.ops.window_attention.window_attention`, where `attends_windows` says so."""
    B, H, W, E = qkv.shape
    out = qkv.new_empty(B, H, W, E // 3)
    sizes = [B, H, W, num_heads, window_size, *qkv.stride()[:3], *out.stride()[:3]]
    _call(_name("windows", qkv), qkv, out, sizes, E // (3 * num_heads), float(scale))
    return out


def convolves(x: Tensor, conv: nn.Module) -> bool:
    """Whether `depthwise_gelu` does what GELU(conv(x)) does: bfloat16, channels a multiple of `CHANNELS`.

    Args: x: (B, H, W, C); conv: what a user may have put in place of the depthwise 3 x 3 convolution.
    """
    if not unobserved() or type(conv) is not nn.Conv2d or conv.bias is None or conv.padding_mode != "zeros":
        return False
    published = (conv.groups, conv.padding, conv.stride, conv.dilation) == (x.shape[-1], (1, 1), (1, 1), (1, 1))
    return published and convolves_with(x, conv.weight, conv.bias)


def convolves_with(x: Tensor, weight: Tensor, bias: Tensor) -> bool:
    """The same for the parameters of such a convolution."""
    if not unobserved():
        return False
    C = x.shape[-1]
    fits = x.dtype == torch.bfloat16 and C % CHANNELS == 0 and weight.shape == (C, 1, 3, 3) and bias.shape == (C,)
    return fits and weight.is_contiguous() and takes(x, weight, bias)


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
    """Whether `dilated_silu_sum` serves: bfloat16, channels a multiple of `CHANNELS`, up to eight rates."""
    if not unobserved():
        return False
    C = x.shape[-1]
    fits = C % CHANNELS == 0 and weight.shape == (C, 1, 3, 3) and 0 < len(rates) <= 8 and min(rates) > 0
    return fits and x.dtype == torch.bfloat16 and weight.is_contiguous() and takes(x, weight)


def dilated_silu_sum(x: Tensor, weight: Tensor, rates: Sequence[int]) -> Tensor:
    """As `litevit.ops.dilated.dilated_silu_sum`, where `dilates` says so."""
    B, H, W, C = x.shape
    out = x.new_empty(B, H, W, C)
    _call("dilated_silu_sum", x, weight, out, [B, H, W, C, *x.stride()[:3], len(rates), *rates])
    return out


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


def csa_mix(logits: Tensor, planes: Sequence[Tensor], out: Tensor, num_heads: int) -> None:
    """Softmax and mixing of LVT's convolutional self-attention.

    Args:
        logits: (B, h, w, N * 81), rows head, source, destination.
        planes: values of the four planes of `csa_split`, each (B, rows, columns, positions * N * D) with the positions
            of `litevit.ops.csa_strips.PLANES`, D a multiple of 16.
        out: (B, H, W, N * D), written to.
    """
    B, H, W, C = out.shape
    _call(_name("csa_mix", out), logits, *planes, out, [B, H, W, num_heads, C // num_heads])


def normalises(x: Tensor, weight: Tensor, bias: Tensor, added: Tensor | None = None) -> bool:
    """Whether `layer_norm` serves: dense tensors, C a multiple of 16 up to 4096."""
    if not unobserved():
        return False
    C = x.shape[-1]
    fits = C % 16 == 0 and C <= 4096 and weight.shape == bias.shape == (C,) and x.is_contiguous()
    if added is None:
        return fits and takes(x, weight, bias)
    return fits and added.shape == x.shape and added.is_contiguous() and takes(x, weight, bias, added)


def layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, added: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(x + added, LayerNorm of it over the last axis); without `added`, of x.

    Args:
        x, added: (..., C), as `normalises` wants them.
        weight, bias: (C,).

    Returns:
        Two tensors as x.
    """
    C = x.shape[-1]
    total = x if added is None else torch.empty_like(x)
    out = torch.empty_like(x)
    into = None if added is None else total
    _call(_name("layer_norm", x), x, added, into, weight, bias, out, [x.numel() // C, C], float(eps))
    return total, out
