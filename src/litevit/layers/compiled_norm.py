"""LayerNorm as one compiled loop, and together with the addition before it."""

from torch import Tensor, nn

from litevit.ops import fragments
from litevit.ops.native import kernels

CHANNELS = 16  # the C++ kernel takes multiples of it
MAX_CHANNELS = 4096


class CompiledLayerNorm(nn.LayerNorm):
    """What `litevit.optimize_for_inference` makes of a LayerNorm over the last axis."""

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (..., C). Returns: as x."""
        if self._takes(x):
            return kernels.layer_norm(x, self.weight, self.bias, self.eps)[1]
        if x.shape[-1] <= fragments.MAX_NORM_CHANNELS and fragments.pays(x) and self.weight.dtype == x.dtype:
            return fragments.layer_norm(x, self.weight, self.bias, self.eps)
        return super().forward(x)

    def of_sum(self, x: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
        """Args: x, added: (..., C). Returns: x + added and the norm of that, each as x."""
        if self._takes(x) and added.is_contiguous() and added.shape == x.shape and added.dtype == x.dtype:
            return kernels.layer_norm(x, self.weight, self.bias, self.eps, added)
        total = x + added
        return total, self(total)

    def _takes(self, x: Tensor) -> bool:
        C = x.shape[-1]
        return (
            C % CHANNELS == 0 and C <= MAX_CHANNELS and x.is_contiguous() and kernels.takes(x, self.weight, self.bias)
        )


def add_and_norm(norm: nn.Module, x: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
    """x + added and norm(x + added), in one pass where the norm can. Args: x, added: (..., C). Returns: each as x."""
    if type(norm) is CompiledLayerNorm and not norm._forward_hooks and not norm._forward_pre_hooks:
        return norm.of_sum(x, added)
    total = x + added
    return total, norm(total)
