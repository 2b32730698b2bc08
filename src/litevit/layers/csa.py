"""Convolutional self-attention (CSA) of LVT (arXiv:2112.10809, sec. 3.1): attention inside overlapping 3 x 3 windows.

Official: github.com/Chenglin-Yang/LVT. Shapes: B batch, H x W grid, h x w = ceil(H/2) x ceil(W/2) windows, N heads,
D head channels, C = N * D.
"""

import math

import torch
from torch import Tensor, nn

from litevit.ops import csa_compiled, csa_native, csa_strips, fragments
from litevit.ops.csa import mix_windows, window_means, window_values
from litevit.ops.linear import is_emulated, linear, product, widened


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

    compiled = native = False  # set by litevit.optimize_for_inference

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

    def _logits_TN(self, x: Tensor) -> Tensor:
        """Logits as (B, h, w, N, 9 sources, 9 destinations).

        The rows of `attn` are head, destination, source. Reading them with the source first puts the softmax on the
        last axis but one, where it vectorises (3x on a CPU), and the scale costs nothing on the weights.
        """
        N, C = self.num_heads, x.shape[-1]
        weight = self.attn.weight.view(N, 9, 9, C).transpose(1, 2).reshape(N * 81, C) * self.scale
        bias = self.attn.bias.view(N, 9, 9).transpose(1, 2).reshape(N * 81) * self.scale
        means = window_means(x)
        if weight.dtype == means.dtype:
            means, weight, bias = widened(means, weight, bias)  # type: ignore[assignment]
        logits = product(means, weight, bias)
        return logits.view(*logits.shape[:3], N, 9, 9)

    def attention_probabilities(self, x: Tensor) -> Tensor:
        """Softmax weights, for looking inside. Args: x: as `forward`. Returns: (B, h, w, N, 9, 9)."""
        return self._logits_TN(x).softmax(-2).transpose(-2, -1)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (B, H, W, C). Returns: (B, H, W, C)."""
        if csa_strips.pays(x, self.attn, self.proj) and self.value_weight.dtype == x.dtype:
            if self.native and csa_native.pays(x, self.num_heads):
                return linear(self.proj, csa_native.attend(x, self._logits_TN(x), self.value_weight))
            if self.compiled and fragments.pays(x):
                return linear(self.proj, csa_compiled.attend(x, self._logits_TN(x), self.value_weight))
            return csa_strips.attend(x, self.attn, self.value_weight, self.proj, self.num_heads, self.scale)
        return self.forward_whole(x)

    def forward_whole(self, x: Tensor) -> Tensor:
        """As `forward`, the whole map at once: training, exporting, GPUs. Args: x: (B, H, W, C). Returns: as x."""
        _, H, W, _ = x.shape
        value_weight = self.value_weight
        emulated = is_emulated(x) and value_weight.dtype == x.dtype
        inputs = (x.float(), value_weight.float()) if emulated else (x, value_weight)
        values = window_values(*inputs, self.num_heads)  # B h w N 9 D
        out = mix_windows(self._logits_TN(x), values, H, W)
        return linear(self.proj, out.to(x.dtype) if emulated else out)
