"""Matrix products by the library, and in the dtype, that the processor is fast in.

oneDNN: `F.linear` in float32 goes to MKL on a CPU. On AMD processors with AVX-512 oneDNN's products are 8 to 30 %
faster on the shapes of these models, and its GELU costs less inside the product than after it (docs/performance.md);
on Zen 5 twice as fast; with AVX2 the two libraries were within 5 %. So oneDNN is called where there is AVX-512. Its
operator has no gradient: training goes through `linear_gradients.py`.

Emulation: PyTorch runs bfloat16 and float16 products on a CPU without units for them (x86 before AVX512-BF16, say) in
plain loops: 9 GFLOP/s where float32 reaches 80 on the same core. Casting both operands to float32, multiplying there
and rounding the result once is the same function, with fewer roundings.
"""

import math
from collections.abc import MutableMapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula
from torch.utils.weak import WeakIdKeyDictionary

from litevit.ops.linear_gradients import OneDNNLinear


def _cpu_units() -> dict[torch.dtype, bool]:
    if not torch.backends.mkldnn.is_available():
        return {torch.bfloat16: False, torch.float16: False}
    return {
        torch.bfloat16: bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()),
        torch.float16: bool(torch.ops.mkldnn._is_mkldnn_fp16_supported()),
    }


CPU_UNITS = _cpu_units()
ONEDNN_PRODUCTS = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"
_PACKED: MutableMapping[Tensor, tuple[Any, Tensor]] = WeakIdKeyDictionary()
_MIN_ROWS = 32  # with fewer rows a call costs more than the product saves


def _count_flops(x_shape: Sequence[int], second: Sequence[int], third: Any, *args: Any, **kwargs: Any) -> int:
    # The weight comes second, or third after what is added.
    weight_shape = third if third is not None and len(third) == 2 else second
    return 2 * math.prod(x_shape) * weight_shape[0]


if torch.backends.mkldnn.is_available():  # FlopCounterMode knows aten's products alone
    register_flop_formula(torch.ops.mkldnn._linear_pointwise)(_count_flops)


def is_emulated(x: Tensor) -> bool:
    """Whether products in x's dtype run without hardware units: reduced precision on a CPU that lacks them."""
    return x.device.type == "cpu" and not CPU_UNITS.get(x.dtype, True)


def widened(x: Tensor, *parameters: Tensor | None) -> tuple[Tensor | None, ...]:
    """(x, *parameters), in float32 where x's dtype is emulated and as they are otherwise."""
    if not is_emulated(x):
        return x, *parameters
    return x.float(), *(None if p is None else p.float() for p in parameters)


def hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def prefers_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether to call oneDNN's operators for a product or a convolution: inference on a CPU that is faster there."""
    return not torch.is_grad_enabled() and x.dtype in (torch.float32, torch.bfloat16) and _onednn_serves(x, weight)


def trains_on_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether a product that may need a gradient runs by oneDNN, forward and backward: float32, as above."""
    return (
        torch.is_grad_enabled()
        and x.dtype == torch.float32
        and type(weight) in (Tensor, nn.Parameter)  # neither sharded nor fake
        and type(x) is Tensor
        and not torch._C._are_functorch_transforms_active()
        and _onednn_serves(x, weight)
    )


def _onednn_serves(x: Tensor, weight: Tensor) -> bool:
    return bool(
        ONEDNN_PRODUCTS
        and torch.backends.mkldnn.enabled
        and x.device.type == "cpu"
        and x.dtype == weight.dtype
        and CPU_UNITS.get(x.dtype, True)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()  # dynamic shapes, and a compiler has plans of its own
        and not torch.jit.is_tracing()
    )


def pack_when_used(weight: Tensor) -> None:
    """Lets `product` keep a copy of a weight in the order oneDNN wants, made at the first call: 2 to 4 % faster.

    For weights that do not change any more. Moving or casting the weight, and writing to it in place, makes a new copy.
    """
    _PACKED[weight] = (None, weight.new_empty(0))


def _packed(weight: Tensor) -> Tensor:
    if weight not in _PACKED:
        return weight
    state = (weight.data_ptr(), weight.dtype, None if weight.is_inference() else weight._version)
    known, packed = _PACKED[weight]
    if known != state:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), None)
        _PACKED[weight] = (state, packed)
    return packed


def product(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    gelu: bool = False,
    silu: bool = False,
    residual: Tensor | None = None,
) -> Tensor:
    """x @ weight.T + bias, then GELU or SiLU if wanted, or + residual.

    Args:
        x: (..., C_in).
        weight: (C_out, C_in).
        bias: (C_out,) or None.
        gelu, silu: whether GELU, or SiLU, follows the bias.
        residual: (..., C_out), in place of either.

    Returns:
        (..., C_out), dtype of x.
    """
    # The sizes last: a compiler, which never gets that far, would make them conditions of its graph.
    onednn, training = prefers_onednn(x, weight), trains_on_onednn(x, weight)
    if (onednn or training) and x.shape[-1] == weight.shape[1] and x.numel() >= _MIN_ROWS * x.shape[-1]:
        if training:
            out: Tensor = OneDNNLinear.apply(x, weight, bias)
            return _finished(out, gelu, silu, residual)
        if residual is not None:
            binary = torch.ops.mkldnn._linear_pointwise.binary
            return binary(x, residual.contiguous(), _packed(weight), bias, "add")
        name, form = ("gelu", "none") if gelu else ("swish" if silu else "none", "")
        return torch.ops.mkldnn._linear_pointwise(x, _packed(weight), bias, name, [], form)
    if is_emulated(x) and weight.dtype == x.dtype:
        wide = F.linear(*widened(x, weight, bias))  # type: ignore[arg-type]
        return _finished(wide, gelu, silu, residual).to(x.dtype)
    return _finished(F.linear(x, weight, bias), gelu, silu, residual)


def _finished(out: Tensor, gelu: bool, silu: bool, residual: Tensor | None) -> Tensor:
    out = F.gelu(out) if gelu else F.silu(out) if silu else out
    return out if residual is None else residual + out


def linear(
    module: nn.Module, x: Tensor, *, gelu: bool = False, silu: bool = False, residual: Tensor | None = None
) -> Tensor:
    """module(x), then GELU, SiLU or + residual if wanted. Args: as `product`. Returns: (..., C_out), dtype of x."""
    if type(module) is nn.Linear and not hooked(module):
        return product(x, module.weight, module.bias, gelu=gelu, silu=silu, residual=residual)
    return _finished(module(x), gelu, silu, residual)


def conv2d(module: nn.Conv2d, x: Tensor, *, gelu: bool = False) -> Tensor:
    """module(x), then GELU if wanted. Args: x: (B, C_in, H, W). Returns: (B, C_out, h, w), dtype of x."""
    if type(module) is not nn.Conv2d or hooked(module) or module.padding_mode != "zeros":
        out = module(x)
        return F.gelu(out) if gelu else out
    weight, bias, stride, padding = module.weight, module.bias, module.stride, module.padding
    if x.ndim == 4 and prefers_onednn(x, weight) and not torch._C._are_functorch_transforms_active():
        # Images come plane by plane: with their pixels together the convolution is 3 times as fast.
        x = x.contiguous(memory_format=torch.channels_last)
    if gelu and not isinstance(padding, str) and prefers_onednn(x, weight):
        return torch.ops.mkldnn._convolution_pointwise(
            x, weight, bias, padding, stride, module.dilation, module.groups, "gelu", [], "none"
        )
    emulated = is_emulated(x) and weight.dtype == x.dtype
    image, weight, bias = widened(x, weight, bias) if emulated else (x, weight, bias)  # type: ignore[assignment]
    out = F.conv2d(image, weight, bias, stride, padding, module.dilation, module.groups)  # type: ignore[arg-type]
    return (F.gelu(out) if gelu else out).to(x.dtype)
