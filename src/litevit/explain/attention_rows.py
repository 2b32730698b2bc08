"""Rows of attention by mechanism, softmax(scale q k^T + bias) of the queries asked for, and where their keys lie.

Each is written from the layer's own projections, beside its forward. Letters as in `litevit.explain.attention`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from litevit.backbones.swin import ShiftedWindowAttention, SwinBlock
from litevit.explain.inside import evaluation
from litevit.layers.attention import Attention, RelativeAttention
from litevit.layers.csa import ConvolutionalSelfAttention
from litevit.layers.hilo import HiLo
from litevit.layers.rasa import RecursiveAtrousSelfAttention
from litevit.ops.grid import pad_grid
from litevit.ops.shifted_windows import apart_mask

CHUNK = 2**24  # elements that are computed at a time

Grid = tuple[int, int]


@dataclass(frozen=True)
class AttentionMaps:
    """Attention probabilities of one branch of one block.

    Attributes:
        probabilities: (N, L, M); every row adds up to 1. With `class_token` the first row and column are its own. CSA:
            L = windows * 9 destinations, row-major by windows, M = 9 sources; `unflatten(1, (h, w, 9))` tells them
            apart.
        branch: "full" (all keys), "hi" (Hi-Fi, inside windows), "lo" (Lo-Fi, window averages), "window" (Swin), "csa".
        query_grid: H and W of the map that the queries are cells of; of "csa" the grid of its windows.
        key_grid: h and w of the keys: the reduced map, or the sides of a window.
        map_grid: H and W of the map that goes in; what `on_map` and `key_cells` speak of.
        queries: which cells the L rows are of (of "csa": 9 * window + destination), -1 the class token.
        key_cells: (L, M) cells of the map for keys in windows, -1 outside it; None where keys are a grid.
        class_token: whether the first key is a class token.
    """

    probabilities: Tensor
    branch: str
    query_grid: Grid
    key_grid: Grid
    map_grid: Grid
    queries: Tensor
    key_cells: Tensor | None = None
    class_token: bool = False

    def on_map(self, row: int) -> Tensor:
        """Where a row looks.

        Args:
            row: of `probabilities`, 0 to L - 1; `queries[row]` says which cell it is of.

        Returns:
            (N, H, W) over the map for windows, (N, h, w) over the keys' grid otherwise.
        """
        p = self.probabilities[:, row]
        if self.key_cells is None:
            return p[:, self.class_token :].unflatten(-1, self.key_grid)
        cells = self.key_cells[row]
        out = p.new_zeros(len(p), self.map_grid[0] * self.map_grid[1])
        inside = cells >= 0
        return out.index_add(1, cells[inside], p[:, inside]).unflatten(-1, self.map_grid)


@dataclass(frozen=True)
class Source:
    """One branch before its rows are computed. `rows` maps indices (R,) of queries to probabilities (N, R, M)."""

    branch: str
    num_heads: int
    count: int  # L, the class token included
    keys: int  # M
    query_grid: Grid
    key_grid: Grid
    map_grid: Grid
    rows: Callable[[Tensor], Tensor]
    cells: Callable[[Tensor], Tensor] | None = None  # (R,) -> (R, M)
    class_token: bool = False

    def row_of(self, row: int, column: int) -> int:
        """Which query is the cell of the map. CSA: the cell as a destination of the window centred at it, or of the
        last one before the border."""
        if self.branch != "csa":
            return row * self.map_grid[1] + column + int(self.class_token)
        h, w = self.query_grid
        down, right = min((row + 1) // 2, h - 1), min((column + 1) // 2, w - 1)
        return 9 * (down * w + right) + 3 * (row - 2 * down + 1) + column - 2 * right + 1

    def maps(self, indices: Tensor, probabilities: Tensor | None = None) -> AttentionMaps:
        """Args: indices: (R,). probabilities: (N, R, M) where they are there already."""
        return AttentionMaps(
            self.rows(indices) if probabilities is None else probabilities,
            self.branch,
            self.query_grid,
            self.key_grid,
            self.map_grid,
            indices - int(self.class_token),
            None if self.cells is None else self.cells(indices),
            self.class_token,
        )

    def chunks(self) -> Iterator[Tensor]:
        """The indices of all queries, in pieces whose rows fit in memory."""
        return iter(torch.arange(self.count).split(max(CHUNK // (self.num_heads * self.keys), 1)))


def branches_of(block: Any, grid: Grid, *args: Any, **kwargs: Any) -> tuple[Source, ...]:
    """What a block's attention computes from the input it was given, by mechanism: one branch, or HiLo's two."""
    attn = block.attn
    with evaluation(attn):
        if isinstance(attn, ShiftedWindowAttention):
            return (_swin(block, grid, args[0]),)
        if isinstance(attn, HiLo):
            return _hilo(attn, args[0])
        if isinstance(attn, ConvolutionalSelfAttention):
            return (_csa(attn, args[0]),)
        if isinstance(attn, RecursiveAtrousSelfAttention):
            return (_rasa(attn, grid, args[0]),)
        if isinstance(attn, Attention):
            return (_full(attn, grid, args[0]),)
    raise ValueError(f"explain does not know the attention {type(attn).__name__}")


def _softmax(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)


def _full(attn: Attention, grid: Grid, x: Tensor) -> Source:
    q, k, _ = (t[0] for t in attn.project(x))  # N L D, N M D
    q = q * q.shape[-1] ** -0.5
    R = attn.sr_ratio
    bias = _relative_rows(attn, grid) if isinstance(attn, RelativeAttention) else None

    def rows(indices: Tensor) -> Tensor:
        indices = indices.to(q.device)
        logits = q[:, indices] @ k.transpose(-2, -1)
        return _softmax(logits if bias is None else logits + bias(indices))

    token = x.dim() == 3 and x.shape[1] == grid[0] * grid[1] + 1
    small = (grid[0] // R, grid[1] // R)
    return Source("full", len(q), q.shape[1], k.shape[1], grid, small, grid, rows, class_token=token)


def _relative_rows(attn: RelativeAttention, grid: Grid) -> Callable[[Tensor], Tensor]:
    """Rows of `relative_position_bias` without the others: (R,) -> (N, R, L)."""
    H, W = grid
    h, w = attn.grid_size
    table = attn.relative_position_bias_table.detach().T.view(1, -1, 2 * h - 1, 2 * w - 1)
    if (h, w) != grid:
        table = F.interpolate(table, size=(2 * H - 1, 2 * W - 1), mode="bicubic", align_corners=False)

    def rows(indices: Tensor) -> Tensor:
        down = torch.arange(H, device=table.device)
        right = torch.arange(W, device=table.device)
        dy = (indices // W)[:, None] - down + H - 1  # R H
        dx = (indices % W)[:, None] - right + W - 1
        return table[0][:, dy[:, :, None], dx[:, None, :]].flatten(2)

    return rows


def _hilo(attn: HiLo, x: Tensor) -> tuple[Source, ...]:
    H, W = x.shape[1:3]
    s, D = attn.window_size, attn.head_dim
    x = pad_grid(x, s) if attn.pad_windows and s > 1 else x
    height, width = x.shape[1:3]
    projected = attn.in_proj(x)[0]
    found = []
    if attn.hi_heads:
        N = attn.hi_heads
        q, k, _ = projected[..., attn.lo_dim :].reshape(height * width, 3, N, D).unbind(1)  # cells N D

        def cells(indices: Tensor) -> Tensor:
            """All cells of the windows, numbered on the padded map."""
            top, left = indices // W // s * s, indices % W // s * s
            inside = torch.arange(s, device=indices.device)
            down, right = top[:, None, None] + inside[:, None], left[:, None, None] + inside
            return (down * width + right).flatten(1)  # R s*s

        def shown(indices: Tensor) -> Tensor:
            there = cells(indices)
            row, column = there // width, there % width
            return torch.where((row < H) & (column < W), row * W + column, -1)

        def hi_rows(indices: Tensor) -> Tensor:
            indices = indices.to(q.device)
            own = q[indices // W * width + indices % W] * attn.scale  # R N D
            return _softmax(torch.einsum("rnd,rknd->nrk", own, k[cells(indices)]))

        found.append(Source("hi", N, H * W, s * s, (H, W), (s, s), (H, W), hi_rows, shown))
    if attn.lo_heads:
        N = attn.lo_heads
        lo_q = projected[..., : attn.lo_dim].reshape(height * width, N, D)
        pooled = attn.pool(x)
        lo_k = attn.lo_kv(pooled)[0].view(-1, 2, N, D)[:, 0]  # M N D

        def lo_rows(indices: Tensor) -> Tensor:
            indices = indices.to(lo_q.device)
            own = lo_q[indices // W * width + indices % W].transpose(0, 1) * attn.scale
            return _softmax(own @ lo_k.permute(1, 2, 0))

        grid = (pooled.shape[1], pooled.shape[2])
        found.append(Source("lo", N, H * W, len(lo_k), (H, W), grid, (H, W), lo_rows))
    return tuple(found)


def _csa(attn: ConvolutionalSelfAttention, x: Tensor) -> Source:
    H, W = x.shape[1:3]
    logits = attn.logits(x)[0]  # h w N 9 9
    h, w, N = logits.shape[:3]
    flat = logits.permute(2, 0, 1, 3, 4).reshape(N, h * w * 9, 9)

    def cells(indices: Tensor) -> Tensor:
        window = indices // 9
        step = torch.arange(3, device=indices.device) - 1
        row = (2 * (window // w))[:, None, None] + step[:, None]
        column = (2 * (window % w))[:, None, None] + step
        inside = (row >= 0) & (row < H) & (column >= 0) & (column < W)
        return torch.where(inside, row * W + column, -1).flatten(1)

    def rows(indices: Tensor) -> Tensor:
        return _softmax(flat[:, indices.to(flat.device)])

    return Source("csa", N, h * w * 9, 9, (h, w), (3, 3), (H, W), rows, cells)


def _rasa(attn: RecursiveAtrousSelfAttention, grid: Grid, x: Tensor) -> Source:
    for _ in range(attn.num_recursions - 1):
        x = x + F.silu(attn.one_pass(x))
    q, k, _ = (t[0] for t in attn.project(x))
    q = q * q.shape[-1] ** -0.5
    small = (grid[0] // attn.sr_ratio, grid[1] // attn.sr_ratio)

    def rows(indices: Tensor) -> Tensor:
        return _softmax(q[:, indices.to(q.device)] @ k.transpose(-2, -1))

    return Source("full", len(q), q.shape[1], k.shape[1], grid, small, grid, rows)


def _swin(block: SwinBlock, grid: Grid, windows: Tensor) -> Source:
    attn: Any = block.attn
    H, W = grid
    s, shift, N = block.window_size[0], block.shift, attn.num_heads
    across = -(-W // s)
    q, k, _ = attn.qkv(windows)[0].unflatten(-1, (3, N, -1)).unbind(2)  # windows s*s N D
    q = q * q.shape[-1] ** -0.5
    bias = attn._get_rel_pos_bias()[0]  # N s*s s*s
    mask = apart_mask(windows.new_empty(1, H, W, 1), s, shift) if shift else None  # windows s*s s*s

    def place(indices: Tensor) -> tuple[Tensor, Tensor]:
        row, column = (indices // W - shift) % H, (indices % W - shift) % W  # after the roll
        return row // s * across + column // s, row % s * s + column % s

    def rows(indices: Tensor) -> Tensor:
        window, inside = place(indices.to(q.device))
        logits = torch.einsum("rnd,rknd->nrk", q[window, inside], k[window]) + bias[:, inside]
        return _softmax(logits if mask is None else logits + mask[window, inside])

    def cells(indices: Tensor) -> Tensor:
        window, _ = place(indices)
        step = torch.arange(s, device=indices.device)
        row = (window // across * s)[:, None, None] + step[:, None]
        column = (window % across * s)[:, None, None] + step
        inside = (row < H) & (column < W)
        return torch.where(inside, (row + shift) % H * W + (column + shift) % W, -1).flatten(1)

    return Source("window", N, H * W, s * s, grid, (s, s), grid, rows, cells)
