"""The two pre-norm residual blocks that every family is made of; a family says what goes into them.

Shapes: B batch, H x W grid, C channels.
"""

from timm.layers import DropPath
from torch import Tensor, nn


def _drop_path(rate: float) -> nn.Module:
    return DropPath(rate) if rate > 0 else nn.Identity()


class FeedForwardBlock(nn.Module):
    """x + MLP(LN(x)): a block without attention. Its only norm keeps the official name `norm2`.

    Args:
        dim: channels C.
        mlp: (B, H, W, C) -> (B, H, W, C).
        drop_path: probability that a sample skips the branch.
    """

    def __init__(self, dim: int, mlp: nn.Module, *, drop_path: float, norm_eps: float = 1e-5):
        super().__init__()
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = mlp
        self.drop_path = _drop_path(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (B, H, W, C) or (B, L, C). Returns: as x."""
        return x + self.drop_path(self.mlp(self.norm2(x)))


class AttentionBlock(nn.Module):
    """x + Attention(LN(x)), then x + MLP(LN(x)).

    Args:
        dim: channels C.
        attn, mlp: (B, H, W, C) -> (B, H, W, C).
        drop_path: probability that a sample skips a branch.
    """

    def __init__(self, dim: int, attn: nn.Module, mlp: nn.Module, *, drop_path: float, norm_eps: float = 1e-5):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = mlp
        self.drop_path = _drop_path(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (B, H, W, C) or (B, L, C). Returns: as x."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))
