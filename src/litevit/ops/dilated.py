"""One 3 x 3 depthwise kernel at several dilations, each through SiLU, summed (LVT's atrous query, arXiv:2112.10809)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

# oneDNN's fast depthwise kernels for AVX2 stop at this padding: dilation 5 with padding 5 runs 20 to 40 times slower
# than with one more ring of zeros in the input and padding 4. Where they do not stop (AVX-512) the ring costs a sixth;
# twins leave it out there.
_MAX_CPU_PADDING = 4


def dilated_depthwise(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Depthwise 3 x 3 convolution that keeps the size.

    Args:
        x: (B, C, H, W), best in channels_last memory.
        weight: (C, 1, 3, 3).
    """
    padding = dilation
    if x.device.type == "cpu" and padding > _MAX_CPU_PADDING:
        ring = padding - _MAX_CPU_PADDING
        # Padded as BHWC, which stays channels_last.
        x = F.pad(x.permute(0, 2, 3, 1), (0, 0, ring, ring, ring, ring)).permute(0, 3, 1, 2)
        padding = _MAX_CPU_PADDING
    return F.conv2d(x, weight, padding=padding, dilation=dilation, groups=weight.shape[0])


def dilated_silu_sum(x: Tensor, weight: Tensor, rates: Sequence[int]) -> Tensor:
    """sum over r of SiLU(DWConv3x3(x; weight, dilation r)): one kernel for all dilations, x itself is not added.

    Args:
        x: (B, H, W, C).
        weight: (C, 1, 3, 3), no bias.
        rates: dilations r.

    Returns:
        (B, H, W, C).
    """
    view = x.permute(0, 3, 1, 2)  # BCHW view of BHWC memory: channels_last, nothing is copied
    out = F.silu(dilated_depthwise(view, weight, rates[0]))
    for rate in rates[1:]:
        out = out + F.silu(dilated_depthwise(view, weight, rate))
    return out.permute(0, 2, 3, 1)
