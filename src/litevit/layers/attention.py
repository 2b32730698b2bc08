"""Global multi-head self-attention: plain (ViT), with spatially reduced keys (PVT), with relative position bias (Swin).

Shapes: B batch, H x W grid, L = H * W queries (one more with a class token), M keys, N heads, D head channels.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litevit.ops.attention import attention
from litevit.ops.linear import conv2d, linear
from litevit.optimize.native import kernels


class Attention(nn.Module):
    """Multi-head self-attention of every token to all tokens.

    Args:
        dim: channels C.
        num_heads: N; must divide dim.
        qkv_bias: bias of the query, key and value projections.
        sr_ratio: R > 1 attends to keys of an R x R times smaller grid (strided convolution and LayerNorm; PVT,
            arXiv:2102.12122, eq. 2-3). R = 1 is full attention.
    """

    native = False  # set by litevit.optimize_for_inference

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

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        B, C = x.shape[0], x.shape[-1]
        if self.sr_ratio > 1:
            q_BNLD = linear(self.q, x).view(B, -1, self.num_heads, C // self.num_heads).transpose(1, 2)
            reduced = self.norm(conv2d(self.sr, x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))  # B H/R W/R C
            kv = linear(self.kv, reduced).view(B, -1, 2, self.num_heads, C // self.num_heads)
            k_BNMD, v_BNMD = kv.permute(2, 0, 3, 1, 4)
            return q_BNLD, k_BNMD, v_BNMD
        qkv = linear(self.qkv, x).view(B, -1, 3, self.num_heads, C // self.num_heads)
        q_BNLD, k_BNMD, v_BNMD = qkv.permute(2, 0, 3, 1, 4)
        return q_BNLD, k_BNMD, v_BNMD

    def bias(self, H: int, W: int) -> Tensor | None:
        """Bias added to the attention logits, broadcastable to (B, N, H*W, H*W); None here."""
        return None

    def _bias_of(self, x: Tensor) -> Tensor | None:
        return self.bias(x.shape[1], x.shape[2]) if x.ndim == 4 else None

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (B, H, W, C), or tokens (B, L, C) where no grid is needed. Returns: as x."""
        q_BNLD, k_BNMD, v_BNMD = self._project(x)
        out_BNLD = attention(q_BNLD, k_BNMD, v_BNMD, bias=self._bias_of(x), native=self.native)
        return linear(self.proj, out_BNLD.transpose(1, 2).reshape(x.shape))

    def attention_probabilities(self, x: Tensor) -> Tensor:
        """Softmax weights, for looking inside. Args: x: as `forward`. Returns: (B, N, L, M)."""
        q_BNLD, k_BNMD, _ = self._project(x)
        logits = (q_BNLD * q_BNLD.shape[-1] ** -0.5) @ k_BNMD.transpose(-2, -1)
        mask = self._bias_of(x)
        return (logits if mask is None else logits + mask).softmax(-1)


MAX_BIAS_BYTES = 16 << 20  # kept of one grid and layer; the 50 x 50 grid of the detectors would take 300 MB


class RelativeAttention(Attention):
    """Attention with a learned bias per head and relative position (Swin, arXiv:2103.14030, eq. 4).

    Args:
        dim, num_heads, qkv_bias: as `Attention`.
        grid_size: the grid (H, W) the table is made for; another grid gets the table resized (bicubic).
    """

    fixed_bias: Tensor | None
    remembers = False  # the bias of the last other grid; set by litevit.optimize_for_inference
    _last_bias: tuple[tuple, Tensor] | None = None

    def __init__(self, dim: int, *, num_heads: int, grid_size: tuple[int, int], qkv_bias: bool = True):
        super().__init__(dim, num_heads=num_heads, qkv_bias=qkv_bias)
        self.grid_size = grid_size
        rows = (2 * grid_size[0] - 1) * (2 * grid_size[1] - 1)
        self.relative_position_bias_table = nn.Parameter(torch.empty(rows, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        # The bias on grid_size, where litevit.optimize_for_inference has looked it up.
        self.register_buffer("fixed_bias", None, persistent=False)

    def bias(self, H: int, W: int) -> Tensor:
        """(N, H*W, H*W): table row (y_i - y_j + H - 1) * (2W - 1) + (x_i - x_j + W - 1) for query i and key j."""
        # Exporting first: the sizes would become conditions of the program.
        if self.fixed_bias is not None and not torch.compiler.is_exporting() and (H, W) == self.grid_size:
            return self.fixed_bias
        if not (self.remembers and kernels.unobserved() and self.fits(H, W)):
            return self._look_up(H, W)
        table = self.relative_position_bias_table
        version = None if table.is_inference() else table._version
        key = (H, W, table.dtype, table.device, table.data_ptr(), version, torch.is_inference_mode_enabled())
        last = self._last_bias  # read once: another thread may be at another grid
        if last is None or last[0] != key:
            last = self._last_bias = (key, self.arranged(self._look_up(H, W)))
        return last[1]

    @torch.no_grad()
    def remember(self) -> None:
        """Looks biases up once: for inference with a table that does not change, but by `load_state_dict`."""
        self.remembers = True
        H, W = self.grid_size
        self.fixed_bias = self.arranged(self._look_up(H, W)) if self.fits(H, W) else None

    def fits(self, H: int, W: int) -> bool:
        """Whether the bias of a grid is small enough to be kept."""
        table = self.relative_position_bias_table
        return self.num_heads * (H * W) ** 2 * table.element_size() <= MAX_BIAS_BYTES

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        if self.remembers:
            self.remember()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_last_bias": None}  # type: ignore[misc]

    def arranged(self, bias: Tensor) -> Tensor:
        """The same values in the order of memory that attention reads: keys first for the C++ kernel."""
        keys_first = self.native and self.qkv.in_features // self.num_heads in kernels.HEAD_DIMS
        return bias.transpose(1, 2).contiguous().transpose(1, 2) if keys_first else bias.contiguous()

    def _look_up(self, H: int, W: int) -> Tensor:
        table = self.relative_position_bias_table.T.view(
            1, self.num_heads, 2 * self.grid_size[0] - 1, 2 * self.grid_size[1] - 1
        )
        if torch.compiler.is_exporting() or (H, W) != self.grid_size:  # exported for any grid
            table = F.interpolate(table, size=(2 * H - 1, 2 * W - 1), mode="bicubic", align_corners=False)
        device = table.device
        dy = torch.arange(H, device=device).view(H, 1) - torch.arange(H, device=device) + (H - 1)  # H H
        dx = torch.arange(W, device=device).view(W, 1) - torch.arange(W, device=device) + (W - 1)  # W W
        index = dy.view(H, 1, H, 1) * (2 * W - 1) + dx.view(1, W, 1, W)
        return table.flatten(2)[0][:, index.reshape(H * W, H * W)]
