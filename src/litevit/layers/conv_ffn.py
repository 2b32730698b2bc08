"""Convolutional feed-forward network of LITv2 (arXiv:2205.13213, sec. 3.2): position through zero padding."""

import math

import torch.nn.functional as F
from torch import Tensor, nn


class ConvFFN(nn.Module):
    """fc2(GELU(DW3x3(fc1(x)))): the 3 x 3 depthwise convolution acts on fc1's output, before the only activation."""

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.dwconv = nn.Conv2d(hidden_dim, hidden_dim, 3, padding=1, groups=hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)
        nn.init.normal_(self.dwconv.weight, std=math.sqrt(2 / 9))  # fan-out of a depthwise 3 x 3
        nn.init.zeros_(self.dwconv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (B, H, W, C). Returns: (B, H, W, C)."""
        x = self.fc1(x)
        x = self.dwconv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # channels_last view: nothing is copied
        return self.fc2(F.gelu(x))
