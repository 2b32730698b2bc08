"""Attention in C++ (AVX-512), and relative biases that are kept: inference on the CPU.

Shapes: B batch, H x W grid, L queries, M keys, N heads, D head channels.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from litevit.layers.attention import Attention, RelativeAttention
from litevit.layers.hilo import HiLo
from litevit.layers.rasa import RecursiveAtrousSelfAttention
from litevit.ops.dilated import dilated_silu_sum
from litevit.ops.position import relative_position_bias, resized_relative_table
from litevit.ops.window_attention import window_attention
from litevit.optimize.linear import OneDNNLinear
from litevit.optimize.native import kernels
from litevit.optimize.operators import operator, takes, takes_triton
from litevit.optimize.processor import prefers_onednn

MAX_BIAS_BYTES = 16 << 20  # kept of one grid and layer; the 50 x 50 grid of the detectors would take 300 MB


def _attention_reference(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    mask = None if bias is None else bias[None]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).transpose(1, 2)


def _attention_flops(q: Sequence[int], k: Sequence[int], v: Sequence[int], bias: Any, scale: float) -> int:
    return 4 * q[0] * q[1] * q[2] * k[2] * q[3]


cpu_attention = operator(
    "cpu_attention(Tensor q, Tensor k, Tensor v, Tensor? bias, float scale) -> Tensor",
    kernel=lambda q, k, v, bias, scale: kernels.attention(q, k, v, bias, scale),
    reference=_attention_reference,
    flops=_attention_flops,
)
cpu_window_attention = operator(
    "cpu_window_attention(Tensor qkv, int num_heads, int window_size, float scale) -> Tensor",
    kernel=lambda qkv, num_heads, window_size, scale: kernels.window_attention(qkv, num_heads, window_size, scale),
    reference=lambda qkv, N, s, scale: window_attention(qkv, num_heads=N, window_size=s, scale=scale),
    flops=lambda qkv, N, s, scale: 4 * qkv[0] * qkv[1] * qkv[2] * s * s * qkv[3] // 3,
)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor | None:
    """softmax(scale q k^T + bias) v in C++, (B, N, L, D); None where the kernel does not serve."""
    if takes(q, k, v, bias) and kernels.attends(q, k, v, bias):
        return cpu_attention(q, k, v, bias, scale).transpose(1, 2)
    return None


class NativeAttention(Attention):
    """Attention in C++; replaces Attention in inference."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        """As the plain layer's."""
        bias = None if bias is None else bias.to(q.dtype)
        out = attend(q, k, v, bias, q.shape[-1] ** -0.5)
        return super().attend(q, k, v, bias) if out is None else out


class _Kept(NamedTuple):
    """The bias of a grid, and the table it was looked up in."""

    grid: tuple[int, int]
    table: Tensor  # a copy
    bias: Tensor


class KeptRelativeAttention(NativeAttention, RelativeAttention):
    """Relative biases of the last two grids are kept; replaces RelativeAttention in inference.

    Whether the table is still the same is seen by comparing it with a copy, so that no way of writing to it is missed.
    Biases too large to keep are never made: each row of queries takes a view of what the rows share.
    """

    _kept: tuple[_Kept, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (B, H, W, C). Returns: as x."""
        table, tokens = self.relative_position_bias_table, x.shape[1] * x.shape[2]
        if not takes(x, table) or self.num_heads * tokens**2 * x.element_size() <= MAX_BIAS_BYTES:
            return super().forward(x)
        q, k, v = self.project(x)
        out = _attend_by_rows(q, k, v, table, self.grid_size, (x.shape[1], x.shape[2]))
        return self.proj(out.reshape(x.shape))

    def bias(self, x: Tensor) -> Tensor:
        """As the plain layer's."""
        table = self.relative_position_bias_table
        if not takes(x, table):
            return super().bias(x)
        grid = (x.shape[1], x.shape[2])
        kept = self._kept  # read once: another thread may be at another grid
        for known in kept:
            if known.grid == grid and known.table.dtype == table.dtype and torch.equal(known.table, table):
                return known.bias
        keys_first = self.qkv.in_features // self.num_heads in kernels.HEAD_DIMS and kernels.available()
        bias = relative_position_bias(table, self.grid_size, *grid, keys_first=keys_first)
        if bias.numel() * bias.element_size() <= MAX_BIAS_BYTES:
            others = tuple(known for known in kept if known.grid != grid)
            self._kept = (_Kept(grid, table.detach().clone(), bias), *others[:1])
        return bias

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_kept"}


def _attend_by_rows(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, grid_size: tuple[int, int], grid: tuple[int, int]
) -> Tensor:
    """Attention with relative biases, one row of the grid's queries after the other.

    The bias of query (y, x) to key (v, u) is shared[H - 1 - y + v, u, x]: that of a row of queries is a view, and what
    they share has 2 / H of the size of the whole.

    Args:
        q, k, v: (B, N, H * W, D).
        table, grid_size: as of `relative_position_bias`.
        grid: H and W.

    Returns:
        (B, H * W, N, D).
    """
    H, W = grid
    scale = q.shape[-1] ** -0.5
    rows = resized_relative_table(table, grid_size, H, W).flip(1).to(q.dtype)  # N 2H-1 2W-1
    x = torch.arange(W, device=q.device)
    out = []
    if kernels.attends(q, k, v, None):
        shared = rows[:, :, x - x[:, None] + W - 1]  # N 2H-1, keys, queries
        for y, q_row in enumerate(q.split(W, 2)):
            bias = shared[:, H - 1 - y : 2 * H - 1 - y].flatten(1, 2).transpose(1, 2)
            out.append(cpu_attention(q_row, k, v, bias, scale))
    else:
        shared = rows[:, :, x[:, None] - x + W - 1].transpose(1, 2).contiguous()  # N, queries, 2H-1, keys
        for y, q_row in enumerate(q.split(W, 2)):
            bias = shared[:, :, H - 1 - y : 2 * H - 1 - y].flatten(2)[None]
            row = F.scaled_dot_product_attention(q_row, k, v, attn_mask=bias, scale=scale)
            out.append(row.transpose(1, 2))
    return torch.cat(out, 1)


class NativeHiLo(HiLo):
    """Both branches in C++; replaces HiLo in inference."""

    def hi_fi(self, qkv: Tensor) -> Tensor:
        """As the plain layer's."""
        if takes(qkv) and kernels.attends_windows(qkv, self.hi_heads, self.window_size):
            return cpu_window_attention(qkv, self.hi_heads, self.window_size, self.scale)
        return super().hi_fi(qkv)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As the plain layer's."""
        out = attend(q, k, v, None, self.scale)
        return super().attend(q, k, v) if out is None else out


# ------------------------------------------------------------ RASA


def _dilated(x: Tensor, weight: Tensor, rates: list[int]) -> Tensor:
    if kernels.dilates(x, weight, rates):
        return kernels.dilated_silu_sum(x, weight, rates)
    if not prefers_onednn():
        return dilated_silu_sum(x, weight, rates).contiguous()
    image, out = x.permute(0, 3, 1, 2), None
    for rate in rates:
        pair = (rate, rate)
        part = torch.ops.mkldnn._convolution_pointwise(
            image, weight, None, pair, (1, 1), pair, weight.shape[0], "swish", [], ""
        )
        out = part if out is None else out.add_(part)
    assert out is not None
    return out.permute(0, 2, 3, 1).contiguous()


cpu_dilated_silu_sum = operator(
    "cpu_dilated_silu_sum(Tensor x, Tensor weight, int[] rates) -> Tensor",
    kernel=_dilated,
    reference=dilated_silu_sum,
    flops=lambda x, weight, rates: 2 * 9 * len(rates) * x[0] * x[1] * x[2] * x[3],
)


class NativeRASA(RecursiveAtrousSelfAttention):
    """Attention in C++, SiLU inside products and convolutions, on CUDA one Triton pass; replaces RASA in inference."""

    def dilate(self, q: Tensor) -> Tensor:
        """As the plain layer's."""
        assert self.rates is not None
        if takes(q, self.atrous_weight):
            return cpu_dilated_silu_sum(q, self.atrous_weight, list(self.rates))
        learns = torch.is_grad_enabled() and (q.requires_grad or self.atrous_weight.requires_grad)
        if takes_triton(q, self.atrous_weight) and not learns:  # a training step gains nothing (H200)
            from litevit.ops.triton.dilated import dilated_sum

            return dilated_sum(q, self.atrous_weight.to(q.dtype), list(self.rates))
        return super().dilate(q)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As the plain layer's."""
        out = attend(q, k, v, None, q.shape[-1] ** -0.5)
        return super().attend(q, k, v) if out is None else out

    def one_pass(self, x: Tensor, activation: str = "none") -> Tensor:
        """A(x), through SiLU if wanted. Args: x: (B, H, W, C); activation: "none" or "silu". Returns: as x."""
        mixed = self.attend(*self.project(x)).transpose(1, 2).reshape(x.shape)
        if isinstance(self.proj, OneDNNLinear):
            return self.proj(mixed, activation)
        return F.silu(self.proj(mixed)) if activation == "silu" else self.proj(mixed)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (B, H, W, C), H and W at least sr_ratio. Returns: (B, H, W, C), without x itself."""
        if self.num_recursions == 1:
            return super().forward(x)
        for _ in range(self.num_recursions - 1):
            x = x + self.one_pass(x, "silu")
        return self.one_pass(x, "silu")
