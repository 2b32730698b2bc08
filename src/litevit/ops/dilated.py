"""One 3 x 3 depthwise kernel at several dilations, each through SiLU, summed (LVT's atrous query, arXiv:2112.10809)."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from litevit.ops.kernels import autocasted, takes_triton
from litevit.ops.linear import is_emulated, prefers_onednn
from litevit.optimize.native import kernels as native

Backend = Literal["auto", "torch", "native", "triton"]
BACKENDS: tuple[Backend, ...] = ("auto", "torch", "native", "triton")

# oneDNN's fast depthwise kernels for AVX2 stop at this padding: dilation 5 with padding 5 runs 20 to 40 times slower
# than with one more ring of zeros in the input and padding 4. Those for AVX-512 do not, and the ring costs a sixth.
_MAX_CPU_PADDING = 4
_PADS_ITSELF = torch.backends.cpu.get_cpu_capability() != "AVX512"


def dilated_depthwise(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Depthwise 3 x 3 convolution that keeps the size.

    Args:
        x: (B, C, H, W), best in channels_last memory.
        weight: (C, 1, 3, 3).
    """
    padding = dilation
    if _PADS_ITSELF and x.device.type == "cpu" and padding > _MAX_CPU_PADDING:
        ring = padding - _MAX_CPU_PADDING
        # Padded as BHWC, which stays channels_last.
        x = F.pad(x.permute(0, 2, 3, 1), (0, 0, ring, ring, ring, ring)).permute(0, 3, 1, 2)
        padding = _MAX_CPU_PADDING
    return F.conv2d(x, weight, padding=padding, dilation=dilation, groups=weight.shape[0])


def dilated_silu_sum(x: Tensor, weight: Tensor, rates: Sequence[int], *, backend: Backend = "auto") -> Tensor:
    """sum over r of SiLU(DWConv3x3(x; weight, dilation r)): one kernel for all dilations, x itself is not added.

    Args:
        x: (B, H, W, C).
        weight: (C, 1, 3, 3), no bias.
        rates: dilations r.
        backend: `"torch"`: a convolution per dilation, which `"auto"` takes. `"triton"`, never run on a GPU, is taken
            when asked for here or by `litevit.ops.kernels.use("triton")`, and is `"torch"` where Triton cannot run.
            `"native"`: one C++ pass in bfloat16, which adds before it rounds; `"torch"` where it cannot run.

    Returns:
        (B, H, W, C).
    """
    if backend not in BACKENDS:
        raise ValueError(f"dilated_silu_sum: backend must be one of {BACKENDS}, got {backend!r}")
    if backend == "native":
        if native.dilates(x, weight, rates):
            return native.dilated_silu_sum(x, weight, rates)
        backend = "auto"
    if takes_triton(x, backend):
        from litevit.ops.triton.dilated import dilated_sum

        return dilated_sum(autocasted(x), weight, list(rates))
    if is_emulated(x) and weight.dtype == x.dtype:
        return dilated_silu_sum(x.float(), weight.float(), rates).to(x.dtype)
    view = x.permute(0, 3, 1, 2)  # BCHW view of BHWC memory: channels_last, nothing is copied
    out = _dilated_silu(view, weight, rates[0])
    for rate in rates[1:]:
        out = out + _dilated_silu(view, weight, rate)
    return out.permute(0, 2, 3, 1)


def _dilated_silu(x: Tensor, weight: Tensor, rate: int) -> Tensor:
    if prefers_onednn(x, weight):
        pair = (rate, rate)
        return torch.ops.mkldnn._convolution_pointwise(
            x, weight, None, pair, (1, 1), pair, weight.shape[0], "swish", [], ""
        )
    return F.silu(dilated_depthwise(x, weight, rate))
