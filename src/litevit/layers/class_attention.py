"""Class attention (CaiT, arXiv:2103.17239, sec. 3): a class token reads the patch tokens, which stay as they are.

Shapes: B batch, L patch tokens, C channels, N heads, D head channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litevit.layers.mlp import MLP
from litevit.ops.heads import merge_heads


class ClassAttention(nn.Module):
    """Attention with one query, the class token; keys and values are the class token and all patches.

    Args:
        dim: channels C.
        num_heads: N; must divide dim.
    """

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        if num_heads < 1 or dim < 1 or dim % num_heads:
            raise ValueError(
                f"ClassAttention: dim must be a multiple of num_heads, got dim={dim}, num_heads={num_heads}"
            )
        self.num_heads = num_heads
        self.kv = nn.Linear(dim, 2 * dim, bias=False)
        self.q = nn.Linear(dim, dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Args: tokens: (B, 1 + L, C), class token first. Returns: what it reads, (B, 1, C)."""
        B, _, C = tokens.shape
        N = self.num_heads
        q_BN1D = self.q(tokens[:, :1]).view(B, 1, N, C // N).transpose(1, 2)
        k_BNMD, v_BNMD = self.kv(tokens).view(B, -1, 2, N, C // N).permute(2, 0, 3, 1, 4)
        out_BN1D = F.scaled_dot_product_attention(q_BN1D, k_BNMD, v_BNMD)
        return self.proj(merge_heads(out_BN1D))


class ClassAttentionBlock(nn.Module):
    """cls + ClassAttention(LN([cls | patches])), then cls + MLP(LN(cls)). The patches are only read."""

    def __init__(self, dim: int, num_heads: int, *, mlp_ratio: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-5)
        self.attn = ClassAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-5)
        self.mlp = MLP(dim, dim * mlp_ratio)

    def forward(self, cls: Tensor, patches: Tensor) -> Tensor:
        """Args: cls: (B, 1, C); patches: (B, L, C). Returns: the new cls."""
        cls = cls + self.attn(self.norm1(torch.cat([cls, patches], 1)))
        return cls + self.mlp(self.norm2(cls))
