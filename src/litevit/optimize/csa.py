"""Convolutional self-attention around one C++ kernel (inference), and on oneDNN's products (training).

Pixels are split by the parity of row and column, so that the values of all windows are four products; softmax, mixing
and the overlapping sum are one pass (native/csa.cpp).
Shapes: B batch, H x W grid, h x w = ceil(H/2) x ceil(W/2) windows, N heads, D head channels, C = N * D.
"""

from collections.abc import Sequence

from torch import Tensor

from litevit.layers.csa import ConvolutionalSelfAttention
from litevit.ops.csa import mix_windows, window_means, window_values
from litevit.optimize.linear import product, trained_product
from litevit.optimize.native import kernels
from litevit.optimize.operators import operator, takes

# Positions 3 * ky + kx of a window by the parity of the pixel they read: (row, column) even even, even odd, odd even,
# odd odd. Within a plane of one parity, position (ky, kx) is at a shift of (ky == 2) rows and (kx == 2) columns.
PLANES = ((4,), (3, 5), (1, 7), (0, 2, 6, 8))


def _reference(x: Tensor, logits: Tensor, value_weight: Tensor, scale: float) -> Tensor:
    _, H, W, _ = x.shape
    return mix_windows(logits * scale, window_values(x, value_weight, logits.shape[3]), H, W)


def _kernel(x: Tensor, logits: Tensor, value_weight: Tensor, scale: float) -> Tensor:
    values = []
    for plane, positions in zip(kernels.csa_split(x), PLANES):
        matrix = value_weight[list(positions)].flatten(0, 1)
        values.append(product(plane, matrix, None))
    out = x.new_empty(x.shape)
    kernels.csa_mix(logits.contiguous(), values, out, logits.shape[3], scale)
    return out


def _flops(x: Sequence[int], logits: Sequence[int], value_weight: Sequence[int], scale: float) -> int:
    windows, C = logits[0] * logits[1] * logits[2], x[3]
    return 2 * windows * (9 * C * C + 81 * C)


cpu_csa = operator(
    "cpu_csa(Tensor x, Tensor logits, Tensor value_weight, float scale) -> Tensor",
    kernel=_kernel,
    reference=_reference,
    flops=_flops,
)


class NativeCSA(ConvolutionalSelfAttention):
    """CSA in C++ between its projections, which are called; replaces ConvolutionalSelfAttention in inference."""

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (B, H, W, C). Returns: (B, H, W, C)."""
        if not (takes(x, self.value_weight) and kernels.mixes(x, self.num_heads)):
            return super().forward(x)
        logits = self.attn(window_means(x))
        logits = logits.view(*logits.shape[:3], self.num_heads, 9, 9)
        if not takes(x, logits):
            return self.proj(_reference(x, logits, self.value_weight, self.scale))
        return self.proj(cpu_csa(x, logits, self.value_weight, self.scale))


class TrainedCSA(ConvolutionalSelfAttention):
    """CSA whose values are oneDNN's products, forward and backward; replaces it in float32 training."""

    def values(self, x: Tensor) -> Tensor:
        """As the plain layer's."""
        return window_values(x, self.value_weight, self.num_heads, product=trained_product)
