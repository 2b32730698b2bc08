"""Global multi-head self-attention: plain (ViT), with spatially reduced keys (PVT), with relative position bias (Swin).

Shapes: B batch, H x W grid, L = H * W queries (one more with a class token), M keys, N heads, D head channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litevit.ops.heads import merge_heads
from litevit.ops.position import relative_position_bias


class Attention(nn.Module):
    """Multi-head self-attention of every token to all tokens.

    Args:
        dim: channels C.
        num_heads: N; must divide dim.
        qkv_bias: bias of the query, key and value projections.
        sr_ratio: R > 1 attends to keys of an R x R times smaller grid (strided convolution and LayerNorm; PVT,
            arXiv:2102.12122, eq. 2-3). R = 1 is full attention.
    """

    def __init__(self, dim: int, *, num_heads: int, qkv_bias: bool = True, sr_ratio: int = 1):
        super().__init__()
        if num_heads < 1 or dim < 1 or dim % num_heads:
            raise ValueError(f"Attention: dim must be a multiple of num_heads, got dim={dim}, num_heads={num_heads}")
        self.num_heads = num_heads
        self.sr_ratio = sr_ratio
        if sr_ratio > 1:
            self.q = nn.Linear(dim, dim, bias=qkv_bias)
            self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
            self.sr = nn.Conv2d(dim, dim, sr_ratio, stride=sr_ratio)
            self.norm = nn.LayerNorm(dim, eps=1e-5)
        else:
            self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values. Args: x: as `forward`. Returns: (B, N, L, D), (B, N, M, D), (B, N, M, D)."""
        B, N, D = x.shape[0], self.num_heads, x.shape[-1] // self.num_heads
        if self.sr_ratio > 1:
            q_BNLD = self.q(x).view(B, -1, N, D).transpose(1, 2)
            reduced = self.norm(self.sr(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))  # B H/R W/R C
            k_BNMD, v_BNMD = self.kv(reduced).view(B, -1, 2, N, D).permute(2, 0, 3, 1, 4)
            return q_BNLD, k_BNMD, v_BNMD
        q_BNLD, k_BNMD, v_BNMD = self.qkv(x).view(B, -1, 3, N, D).permute(2, 0, 3, 1, 4)
        return q_BNLD, k_BNMD, v_BNMD

    def bias(self, x: Tensor) -> Tensor | None:
        """What is added to the logits, (N, L, M), or None. Args: x: as `forward`."""
        return None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        """softmax(q k^T / sqrt(D) + bias) v. Args: as `project` and `bias` give them. Returns: (B, N, L, D)."""
        # PyTorch's CPU kernel takes masks of two or four axes; with three it falls back to the formula, 4x slower.
        mask = None if bias is None else bias[None].to(q.dtype)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (B, H, W, C), or tokens (B, L, C) where no grid is needed. Returns: as x."""
        out_BNLD = self.attend(*self.project(x), self.bias(x))
        return self.proj(merge_heads(out_BNLD).reshape(x.shape))

    def attention_probabilities(self, x: Tensor) -> Tensor:
        """Softmax weights, for looking inside. Args: x: as `forward`. Returns: (B, N, L, M)."""
        q_BNLD, k_BNMD, _ = self.project(x)
        logits = (q_BNLD * q_BNLD.shape[-1] ** -0.5) @ k_BNMD.transpose(-2, -1)
        bias = self.bias(x)
        return (logits if bias is None else logits + bias).softmax(-1)


class RelativeAttention(Attention):
    """Attention with a learned bias per head and relative position (Swin, arXiv:2103.14030, eq. 4).

    Args:
        dim, num_heads, qkv_bias: as `Attention`.
        grid_size: the grid (H, W) the table is made for; another grid gets the table resized (bicubic).
    """

    def __init__(self, dim: int, *, num_heads: int, grid_size: tuple[int, int], qkv_bias: bool = True):
        super().__init__(dim, num_heads=num_heads, qkv_bias=qkv_bias)
        self.grid_size = grid_size
        rows = (2 * grid_size[0] - 1) * (2 * grid_size[1] - 1)
        self.relative_position_bias_table = nn.Parameter(torch.empty(rows, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def bias(self, x: Tensor) -> Tensor:
        """Args: x: (B, H, W, C). Returns: (N, H * W, H * W)."""
        return relative_position_bias(self.relative_position_bias_table, self.grid_size, x.shape[1], x.shape[2])
