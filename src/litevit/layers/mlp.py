"""Two-layer perceptron of every Transformer block."""

from torch import Tensor, nn

from litevit.ops import blocked_ffn
from litevit.ops.linear import linear


class MLP(nn.Module):
    """fc2(GELU(fc1(x))), on the last axis."""

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        self.hidden_dim = hidden_dim
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Args: x: (..., C); residual: added to the result, shaped as x. Returns: (..., C)."""
        if blocked_ffn.pays(x, self.hidden_dim, self.fc1, self.fc2):
            return blocked_ffn.mlp(x, self.fc1, self.fc2, residual)
        return linear(self.fc2, linear(self.fc1, x, gelu=True), residual=residual)
