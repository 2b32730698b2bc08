"""Convolutional self-attention around the C++ kernel: optimised models on the CPU (LVT, arXiv:2112.10809).

Shapes: B batch, H x W grid, h x w = ceil(H/2) x ceil(W/2) windows, N heads, D head channels, C = N * D.
"""

from torch import Tensor

from litevit.ops.csa_strips import PLANES
from litevit.ops.linear import product
from litevit.optimize.native import kernels


def pays(x: Tensor, num_heads: int) -> bool:
    """Whether `attend` below should run."""
    return x.shape[-1] // num_heads % 16 == 0 and kernels.takes(x)


def attend(x: Tensor, logits: Tensor, value_weight: Tensor) -> Tensor:
    """Args and result as of `csa_compiled.attend`."""
    values = [
        product(plane, value_weight[list(positions)].flatten(0, 1), None)
        for plane, positions in zip(kernels.csa_split(x), PLANES)
    ]
    out = x.new_empty(x.shape)
    kernels.csa_mix(logits.contiguous(), values, out, logits.shape[3])
    return out
