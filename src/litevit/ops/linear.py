"""Matrix products where the processor has no units for the dtype.

PyTorch runs bfloat16 and float16 products on a CPU without such units (x86 before AVX512-BF16, say) in plain loops: 9
GFLOP/s where float32 reaches 80 on the same core. Casting both operands to float32, multiplying there and rounding
the result once is the same function, with fewer roundings.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _cpu_units() -> dict[torch.dtype, bool]:
    if not torch.backends.mkldnn.is_available():
        return {torch.bfloat16: False, torch.float16: False}
    return {
        torch.bfloat16: bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()),
        torch.float16: bool(torch.ops.mkldnn._is_mkldnn_fp16_supported()),
    }


CPU_UNITS = _cpu_units()


def is_emulated(x: Tensor) -> bool:
    """Whether products in x's dtype run without hardware units: reduced precision on a CPU that lacks them."""
    return x.device.type == "cpu" and not CPU_UNITS.get(x.dtype, True)


def widened(x: Tensor, *parameters: Tensor | None) -> tuple[Tensor | None, ...]:
    """(x, *parameters), in float32 where x's dtype is emulated and as they are otherwise."""
    if not is_emulated(x):
        return x, *parameters
    return x.float(), *(None if p is None else p.float() for p in parameters)


def linear(module: nn.Linear, x: Tensor) -> Tensor:
    """module(x). Args: x: (..., C_in). Returns: (..., C_out), dtype of x."""
    if type(module) is nn.Linear and is_emulated(x) and module.weight.dtype == x.dtype:
        return F.linear(*widened(x, module.weight, module.bias)).to(x.dtype)  # type: ignore[arg-type]
    return module(x)


def conv2d(module: nn.Conv2d, x: Tensor) -> Tensor:
    """module(x). Args: x: (B, C_in, H, W). Returns: (B, C_out, h, w), dtype of x."""
    if type(module) is nn.Conv2d and is_emulated(x) and module.weight.dtype == x.dtype:
        image, weight, bias = widened(x, module.weight, module.bias)
        out = F.conv2d(image, weight, bias, module.stride, module.padding, module.dilation, module.groups)  # type: ignore[arg-type]
        return out.to(x.dtype)
    return module(x)
