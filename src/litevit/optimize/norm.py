"""LayerNorm in one pass with the addition before it, and the residual blocks that use it: inference on the CPU."""

import torch.nn.functional as F
from torch import Tensor, nn

from litevit.layers.block import AttentionBlock, FeedForwardBlock
from litevit.optimize.feed_forward import BlockedConvFFN, BlockedMLP
from litevit.optimize.native import kernels
from litevit.optimize.operators import operator, takes


def _reference(x: Tensor, added: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    total = x + added
    return total, F.layer_norm(total, weight.shape, weight, bias, eps)


cpu_layer_norm = operator(
    "cpu_layer_norm(Tensor x, Tensor weight, Tensor bias, float eps) -> Tensor",
    kernel=lambda x, weight, bias, eps: kernels.layer_norm(x, weight, bias, eps),
    reference=lambda x, weight, bias, eps: F.layer_norm(x, weight.shape, weight, bias, eps),
)
cpu_add_layer_norm = operator(
    "cpu_add_layer_norm(Tensor x, Tensor added, Tensor weight, Tensor bias, float eps) -> (Tensor, Tensor)",
    kernel=lambda x, added, weight, bias, eps: kernels.add_layer_norm(x, added, weight, bias, eps),
    reference=_reference,
)


class NativeLayerNorm(nn.LayerNorm):
    """LayerNorm over the last axis in C++, with the addition before it; replaces nn.LayerNorm in inference."""

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:  # type: ignore[override]
        """Args: x, added: (..., C). Returns: the norm of x; or, given both, x + added and the norm of that."""
        serves = takes(x, added, self.weight, self.bias) and kernels.normalises(x, self.weight, added)
        if added is None:
            return cpu_layer_norm(x, self.weight, self.bias, self.eps) if serves else super().forward(x)
        if serves:
            return cpu_add_layer_norm(x, added, self.weight, self.bias, self.eps)
        total = x + added
        return total, super().forward(total)


ADDS_INSIDE = (BlockedMLP, BlockedConvFFN)  # a tuple: older torch.compile does not read A | B


class FusedFeedForwardBlock(FeedForwardBlock):
    """The residual is added while the feed-forward network writes; replaces FeedForwardBlock in inference."""

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (B, H, W, C) or (B, L, C). Returns: as x."""
        normed = self.norm2(x)
        if isinstance(self.mlp, ADDS_INSIDE):
            return self.mlp(normed, x)
        return x + self.mlp(normed)


class FusedAttentionBlock(AttentionBlock):
    """Additions happen inside the norm and the feed-forward network; replaces AttentionBlock in inference."""

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (B, H, W, C) or (B, L, C). Returns: as x."""
        attended = self.attn(self.norm1(x))
        if isinstance(self.norm2, NativeLayerNorm):
            x, normed = self.norm2(x, attended)
        else:
            x = x + attended
            normed = self.norm2(x)
        if isinstance(self.mlp, ADDS_INSIDE):
            return self.mlp(normed, x)
        return x + self.mlp(normed)
