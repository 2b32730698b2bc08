"""LayerNorm as one compiled loop, and together with the addition before it."""

from torch import Tensor, nn

from litevit.ops import fragments
from litevit.ops.linear import hooked
from litevit.optimize.native import kernels


class CompiledLayerNorm(nn.LayerNorm):
    """What `litevit.optimize_for_inference` makes of a LayerNorm over the last axis."""

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (..., C). Returns: as x."""
        if kernels.normalises(x, self.weight, self.bias):
            return kernels.layer_norm(x, self.weight, self.bias, self.eps)[1]
        fits = x.shape[-1:] == self.weight.shape and self.weight.dtype == x.dtype and self.weight.device == x.device
        if fits and x.shape[-1] <= fragments.MAX_NORM_CHANNELS and fragments.pays(x):
            return fragments.layer_norm(x, self.weight, self.bias, self.eps)
        return super().forward(x)

    def of_sum(self, x: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
        """Args: x, added: (..., C). Returns: x + added and the norm of that, each as x."""
        if kernels.normalises(x, self.weight, self.bias, added):
            return kernels.layer_norm(x, self.weight, self.bias, self.eps, added)
        total = x + added
        return total, self(total)


def add_and_norm(norm: nn.Module, x: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
    """x + added and norm(x + added), in one pass where the norm can. Args: x, added: (..., C). Returns: each as x."""
    if type(norm) is CompiledLayerNorm and not hooked(norm):
        return norm.of_sum(x, added)
    total = x + added
    return total, norm(total)
