"""Two-layer perceptron of every Transformer block."""

import torch.nn.functional as F
from torch import Tensor, nn


class MLP(nn.Module):
    """fc2(GELU(fc1(x))), on the last axis."""

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (..., C). Returns: (..., C)."""
        return self.fc2(F.gelu(self.fc1(x)))
