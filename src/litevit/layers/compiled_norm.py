"""LayerNorm as one compiled loop."""

from torch import Tensor, nn

from litevit.ops import fragments


class CompiledLayerNorm(nn.LayerNorm):
    """What `litevit.optimize_for_inference` makes of a LayerNorm over the last axis."""

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (..., C). Returns: as x."""
        if x.shape[-1] <= fragments.MAX_NORM_CHANNELS and fragments.pays(x) and self.weight.dtype == x.dtype:
            return fragments.layer_norm(x, self.weight, self.bias, self.eps)
        return super().forward(x)
