"""Convolutional feed-forward network of LITv2 (arXiv:2205.13213, sec. 3.2): position through zero padding."""

import math

from torch import Tensor, nn

from litevit.ops import blocked_ffn
from litevit.ops.linear import conv2d, hooked, linear
from litevit.optimize.native import kernels


class ConvFFN(nn.Module):
    """fc2(GELU(DW3x3(fc1(x)))): the 3 x 3 depthwise convolution acts on fc1's output, before the only activation."""

    native = False  # set by litevit.optimize_for_inference

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.dwconv = nn.Conv2d(hidden_dim, hidden_dim, 3, padding=1, groups=hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)
        nn.init.normal_(self.dwconv.weight, std=math.sqrt(2 / 9))  # fan-out of a depthwise 3 x 3
        nn.init.zeros_(self.dwconv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Args: x: (B, H, W, C); residual: added to the result, shaped as x. Returns: (B, H, W, C)."""
        if blocked_ffn.pays(x, self.dwconv.out_channels, self.fc1, self.dwconv, self.fc2):
            return blocked_ffn.conv_ffn(x, self.fc1, self.dwconv, self.fc2, residual, native=self.native)
        x = linear(self.fc1, x)
        dwconv = self.dwconv
        if self.native and not hooked(dwconv) and kernels.convolves(x, dwconv):
            x = kernels.depthwise_gelu(x, dwconv.weight, dwconv.bias)  # type: ignore[arg-type]
        else:  # on a BCHW view of BHWC memory: channels_last, nothing is copied
            x = conv2d(dwconv, x.permute(0, 3, 1, 2), gelu=True).permute(0, 2, 3, 1)
        return linear(self.fc2, x, residual=residual)
