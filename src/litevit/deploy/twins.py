"""Layers rewritten for runtimes that take tensors of few axes: the same function, proven with the file."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litevit.deploy.graph import Graph
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


def with_few_axes(graph: Graph) -> Graph:
    """A copy of a graph whose layers keep to five axes where we have a twin."""
    copied = copy.deepcopy(graph)
    for module in list(copied.modules()):
        for name, child in module.named_children():
            if type(child) is ConvolutionalSelfAttention:
                setattr(module, name, _flat(child))
    return copied


def _flat(layer: ConvolutionalSelfAttention) -> nn.Module:
    twin = FlatCSA.__new__(FlatCSA)
    twin.__dict__.update(layer.__dict__)
    return twin
