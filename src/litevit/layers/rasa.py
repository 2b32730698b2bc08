"""Recursive atrous self-attention (RASA) of LVT (arXiv:2112.10809, sec. 3.2): multi-scale queries, applied twice.

Official: github.com/Chenglin-Yang/LVT. Shapes: B batch, H x W grid, C channels, N heads, L = H * W queries, M keys,
D head channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litevit.ops.dilated import dilated_silu_sum
from litevit.ops.grid import check_grid
from litevit.ops.heads import merge_heads


class RecursiveAtrousSelfAttention(nn.Module):
    """Global attention whose queries see several dilations, fed back into itself.

    One pass A: the query map goes through one depthwise 3 x 3 kernel at every rate (atrous), keys and values come
    from a map reduced R x R times. Recursion, with the same weights: x <- x + SiLU(A(x)); the result is SiLU(A(x)).

    Args:
        dim: channels C.
        num_heads: N; must divide dim.
        sr_ratio: R, stride of the convolution that reduces keys and values; rows and columns that do not fill an R x R
            cell are left out of them. 1 leaves it away.
        rates: dilations of the query; None takes the query as it is.
        num_recursions: passes; 1 is A(x) alone, without SiLU. Official name: r_num.

    Example:
        >>> import torch
        >>> from litevit.layers.rasa import RecursiveAtrousSelfAttention
        >>> rasa = RecursiveAtrousSelfAttention(dim=64, num_heads=2, sr_ratio=4)
        >>> rasa(torch.randn(2, 28, 28, 64)).shape
        torch.Size([2, 28, 28, 64])
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        sr_ratio: int = 1,
        rates: tuple[int, ...] | None = (1, 3, 5),
        num_recursions: int = 2,
    ):
        super().__init__()
        if num_heads < 1 or dim < 1 or dim % num_heads:
            raise ValueError(
                "RecursiveAtrousSelfAttention: dim must be a multiple of num_heads, "
                f"got dim={dim}, num_heads={num_heads}"
            )
        if sr_ratio < 1 or num_recursions < 1:
            raise ValueError(
                "RecursiveAtrousSelfAttention: sr_ratio and num_recursions must be at least 1, "
                f"got sr_ratio={sr_ratio}, num_recursions={num_recursions}"
            )
        if rates is not None and (not rates or min(rates) < 1):
            raise ValueError(f"RecursiveAtrousSelfAttention: rates must be dilations >= 1 or None, got {rates}")
        self.num_heads = num_heads
        self.sr_ratio = sr_ratio
        self.rates = rates
        self.num_recursions = num_recursions
        self.q = nn.Linear(dim, dim, bias=False)
        self.kv = nn.Linear(dim, 2 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        if sr_ratio > 1:
            self.sr = nn.Conv2d(dim, dim, sr_ratio, stride=sr_ratio)
            self.norm = nn.LayerNorm(dim, eps=1e-5)
        if rates is not None:
            self.atrous_weight = nn.Parameter(torch.empty(dim, 1, 3, 3))  # official: ds.weight
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Official initialisation."""
        for layer in (self.q, self.kv, self.proj):
            nn.init.trunc_normal_(layer.weight, std=0.02)
        nn.init.zeros_(self.proj.bias)
        if self.sr_ratio > 1:
            nn.init.kaiming_normal_(self.sr.weight, mode="fan_out")
            nn.init.zeros_(self.sr.bias)  # type: ignore[arg-type]
        if self.rates is not None:
            nn.init.kaiming_uniform_(self.atrous_weight, a=0)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of one pass.

        Args:
            x: (B, H, W, C).

        Returns:
            (B, N, L, D), (B, N, M, D), (B, N, M, D).
        """
        B, H, W, C = x.shape
        N, D = self.num_heads, C // self.num_heads
        q = self.q(x)
        if self.rates is not None:
            q = self.dilate(q)
        if self.sr_ratio > 1:
            x = self.norm(self.sr(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))  # B H//R W//R C
        k_BNMD, v_BNMD = self.kv(x).view(B, -1, 2, N, D).permute(2, 0, 3, 1, 4)
        return q.reshape(B, H * W, N, D).transpose(1, 2), k_BNMD, v_BNMD

    def dilate(self, q: Tensor) -> Tensor:
        """The atrous query: sum over the rates of SiLU(DWConv(q)). Args: q: (B, H, W, C). Returns: as q."""
        assert self.rates is not None
        return dilated_silu_sum(q, self.atrous_weight, self.rates)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """softmax(q k^T / sqrt(D)) v. Args: q: (B, N, L, D); k, v: (B, N, M, D). Returns: (B, N, L, D)."""
        return F.scaled_dot_product_attention(q, k, v)

    def one_pass(self, x: Tensor) -> Tensor:
        """A(x). Args: x: (B, H, W, C). Returns: (B, H, W, C)."""
        out_BNLD = self.attend(*self.project(x))
        return self.proj(merge_heads(out_BNLD).reshape(x.shape))

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (B, H, W, C), H and W at least sr_ratio. Returns: (B, H, W, C), without x itself."""
        check_grid("RecursiveAtrousSelfAttention", x, least=self.sr_ratio)
        if self.num_recursions == 1:
            return self.one_pass(x)
        # Nothing moves out of the recursion: every projection reads the new x.
        for _ in range(self.num_recursions - 1):
            x = x + F.silu(self.one_pass(x))
        return F.silu(self.one_pass(x))

    def attention_probabilities(self, x: Tensor) -> Tensor:
        """Softmax weights of the last pass, for looking inside. Args: x: as `forward`. Returns: (B, N, L, M)."""
        for _ in range(self.num_recursions - 1):
            x = x + F.silu(self.one_pass(x))
        q_BNLD, k_BNMD, _ = self.project(x)
        return ((q_BNLD * q_BNLD.shape[-1] ** -0.5) @ k_BNMD.transpose(-2, -1)).softmax(-1)
