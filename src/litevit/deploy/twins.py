"""Layers rewritten for one runtime: the same function, proven with the file."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litevit.deploy.graph import Graph
from litevit.layers.conv_ffn import ConvFFN
from litevit.layers.csa import ConvolutionalSelfAttention
from litevit.ops.csa import window_means


class FlatCSA(ConvolutionalSelfAttention):
    """CSA on at most five axes; replaces ConvolutionalSelfAttention in files of Core ML and LiteRT, whose limit it is.

    Nothing is won elsewhere: OpenVINO takes as long for both (13.8 and 14.0 ms for 4 x 56 x 56 x 64, Zen 4).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (B, H, W, C). Returns: (B, H, W, C)."""
        B, H, W, C = x.shape
        h, w, N = (H + 1) // 2, (W + 1) // 2, self.num_heads
        padded = F.pad(x, (0, 0, 1, 2 * w + 1 - W, 1, 2 * h + 1 - H))
        values = []
        for position in range(9):
            ky, kx = divmod(position, 3)
            pixels = padded[:, ky : ky + 2 * h : 2, kx : kx + 2 * w : 2]
            values.append(F.linear(pixels, self.value_weight[position]).reshape(B * h * w, N, C // N))
        weights = (self.attn(window_means(x)) * self.scale).reshape(B * h * w, N, 9, 9).softmax(-1)
        mixed = weights @ torch.stack(values, 2)  # BhwN9D
        # As `overlap_add`, one position of all windows at a time.
        p = [F.pad(one.reshape(B, h, w, C), (0, 0, 0, 1, 0, 1)) for one in mixed.unbind(2)]
        here, next_ = slice(None, -1), slice(1, None)
        even_even = p[4][:, here, here]
        even_odd = p[5][:, here, here] + p[3][:, here, next_]
        odd_even = p[7][:, here, here] + p[1][:, next_, here]
        odd_odd = p[8][:, here, here] + p[6][:, here, next_] + p[2][:, next_, here] + p[0][:, next_, next_]
        even_rows = torch.stack([even_even, even_odd], 3).flatten(2, 3)
        odd_rows = torch.stack([odd_even, odd_odd], 3).flatten(2, 3)
        return self.proj(torch.stack([even_rows, odd_rows], 2).flatten(1, 2)[:, :H, :W])


class ChannelsFirstConvFFN(ConvFFN):
    """ConvFFN whose products are 1 x 1 convolutions; replaces ConvFFN in OpenVINO's files of free batch or size.

    There the CPU's plug-in copies a map at each change between the products' layout and the convolution's, and the
    hidden maps are four times as large as those between blocks (litv2_s 9.2 -> 13.0 images/s, Sapphire Rapids). At
    fixed sizes it copies nothing, and the products are the faster form (15.0 and 13.8).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (B, H, W, C). Returns: (B, H, W, C)."""
        hidden = self.dwconv(_pixelwise(self.fc1, x.permute(0, 3, 1, 2)))
        return _pixelwise(self.fc2, F.gelu(hidden)).permute(0, 2, 3, 1)


def _pixelwise(layer: nn.Linear, x: Tensor) -> Tensor:
    """Args: x: (B, C, H, W). Returns: (B, C', H, W)."""
    return F.conv2d(x, layer.weight[:, :, None, None], layer.bias)


def with_few_axes(graph: Graph) -> Graph:
    """A copy of a graph whose layers keep to five axes where we have a twin."""
    return _with_twins(graph, ConvolutionalSelfAttention, FlatCSA)


def with_channels_kept_first(graph: Graph) -> Graph:
    """A copy of a graph whose feed-forward networks stay in their convolution's layout."""
    return _with_twins(graph, ConvFFN, ChannelsFirstConvFFN)


def _with_twins(graph: Graph, plain: type[nn.Module], twin: type[nn.Module]) -> Graph:
    copied = copy.deepcopy(graph)
    for module in list(copied.modules()):
        for name, child in module.named_children():
            if type(child) is plain:
                made = twin.__new__(twin)
                made.__dict__.update(child.__dict__)
                setattr(module, name, made)
    return copied
