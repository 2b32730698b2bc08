"""Convolutional self-attention (CSA) of LVT (arXiv:2112.10809, sec. 3.1): attention inside overlapping 3 x 3 windows.

Official: github.com/Chenglin-Yang/LVT. Shapes: B batch, H x W grid, h x w = ceil(H/2) x ceil(W/2) windows, N heads,
D head channels, C = N * D.
"""

import math

import torch
from torch import Tensor, nn

from litevit.ops.csa import mix_windows, window_means, window_values


class ConvolutionalSelfAttention(nn.Module):
    """Each 3 x 3 window mixes its pixels by a 9 x 9 softmax, predicted from a mean; overlapping windows add up.

    The values are a 3 x 3 convolution without its sum over the window: every position has its own matrix. There is one
    window per 2 x 2 pixels, so that a pixel takes part in 1, 2 or 4 windows, by its parity. Zeros around the map take
    part in the softmax. Odd sizes are legal.

    Args:
        dim: channels C.
        num_heads: N; must divide dim.
        kernel_size, stride: 3 and 2, the published ones; nothing else is implemented.

    Example:
        >>> import torch
        >>> from litevit.layers.csa import ConvolutionalSelfAttention
        >>> csa = ConvolutionalSelfAttention(dim=64, num_heads=2)
        >>> csa(torch.randn(2, 56, 56, 64)).shape
        torch.Size([2, 56, 56, 64])
    """

    def __init__(self, dim: int, num_heads: int = 2, kernel_size: int = 3, stride: int = 2):
        super().__init__()
        if num_heads < 1 or dim < 1 or dim % num_heads:
            raise ValueError(
                f"ConvolutionalSelfAttention: dim must be a multiple of num_heads, got dim={dim}, num_heads={num_heads}"
            )
        if (kernel_size, stride) != (3, 2):
            raise ValueError(
                "ConvolutionalSelfAttention: kernel_size must be 3 and stride 2, as published, "
                f"got kernel_size={kernel_size}, stride={stride}"
            )
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.attn = nn.Linear(dim, num_heads * 81)
        self.value_weight = nn.Parameter(torch.empty(9, dim, dim))  # official: weight.weight, (9 * C, C, 1, 1)
        self.proj = nn.Linear(dim, dim)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Official initialisation."""
        for layer in (self.attn, self.proj):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.value_weight, std=math.sqrt(2 / (9 * self.value_weight.shape[1])))

    def logits(self, x: Tensor) -> Tensor:
        """Args: x: (B, H, W, C). Returns: (B, h, w, N, 9 destinations, 9 sources)."""
        logits = self.attn(window_means(x)) * self.scale
        return logits.view(*logits.shape[:3], self.num_heads, 9, 9)

    def values(self, x: Tensor) -> Tensor:
        """Args: x: (B, H, W, C). Returns: (B, h, w, N, 9, D)."""
        return window_values(x, self.value_weight, self.num_heads)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (B, H, W, C). Returns: (B, H, W, C)."""
        _, H, W, _ = x.shape
        return self.proj(mix_windows(self.logits(x), self.values(x), H, W))

    def attention_probabilities(self, x: Tensor) -> Tensor:
        """Softmax weights, for looking inside. Args: x: as `forward`. Returns: (B, h, w, N, 9, 9)."""
        return self.logits(x).softmax(-1)
