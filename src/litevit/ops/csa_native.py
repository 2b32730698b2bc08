"""Convolutional self-attention around the C++ kernel: optimised models on the CPU (LVT, arXiv:2112.10809).

Shapes: B batch, H x W grid, h x w = ceil(H/2) x ceil(W/2) windows, N heads, D head channels, C = N * D.
"""

from torch import Tensor

from litevit.ops.csa import window_means
from litevit.ops.csa_strips import PLANES
from litevit.ops.linear import product
from litevit.ops.native import kernels


def pays(x: Tensor, num_heads: int) -> bool:
    """Whether `attend` below should run."""
    return x.shape[-1] // num_heads % 16 == 0 and kernels.takes(x)


def attend(x: Tensor, attn_weight: Tensor, attn_bias: Tensor, value_weight: Tensor, N: int, scale: float) -> Tensor:
    """The layer up to its output projection.

    Args:
        x: (B, H, W, C).
        attn_weight, attn_bias: C -> N * 81, rows head, destination, source.
        value_weight: (9, C, C).
        N: heads.
        scale: factor on the logits.

    Returns:
        (B, H, W, C).
    """
    C = x.shape[-1]
    weight = attn_weight.view(N, 9, 9, C).transpose(1, 2).reshape(N * 81, C) * scale
    bias = attn_bias.view(N, 9, 9).transpose(1, 2).reshape(N * 81) * scale
    logits = product(window_means(x).contiguous(), weight, bias)
    values = [
        product(plane, value_weight[list(positions)].flatten(0, 1), None)
        for plane, positions in zip(kernels.csa_split(x), PLANES)
    ]
    out = x.new_empty(x.shape)
    kernels.csa_mix(logits, values, out, N)
    return out
