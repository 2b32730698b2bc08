"""Attention probabilities of any block, computed aside from the inputs that the block saw.

The model runs its fused attention; a hook looks at the input of the attention module, projects it to queries and keys
once more and takes softmax(scale q k^T + bias) of the rows that are asked for. Rows are computed on demand, so that one
query of a large map costs one row.

Stages count from 1 as in the papers, blocks and heads from 0 as in state-dict names, cells of a map by row and column
from 0. Shapes: N heads, L queries, M keys, D head channels, H x W grid, s window side.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litevit.backbones.swin import ShiftedWindowAttention, SwinBlock
from litevit.explain.inside import as_batch, backbone_of, block_of, evaluation, watch
from litevit.layers.attention import Attention, RelativeAttention
from litevit.layers.csa import ConvolutionalSelfAttention
from litevit.layers.hilo import HiLo
from litevit.layers.rasa import RecursiveAtrousSelfAttention
from litevit.ops.grid import pad_grid
from litevit.ops.shifted_windows import apart_mask

LARGEST = 2**28  # elements of a matrix that is handed out whole: 1 GiB of float32
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
        """Where a row looks: (N, H, W) over the map for windows, (N, h, w) over the keys' grid otherwise."""
        p = self.probabilities[:, row]
        if self.key_cells is None:
            return p[:, self.class_token :].unflatten(-1, self.key_grid)
        cells = self.key_cells[row]
        out = p.new_zeros(len(p), self.map_grid[0] * self.map_grid[1])
        inside = cells >= 0
        return out.index_add(1, cells[inside], p[:, inside]).unflatten(-1, self.map_grid)


class Branches(tuple[AttentionMaps, ...]):
    """The branches of a block: one, or HiLo's two. `maps["lo"]` takes one by name; a lone one is read directly."""

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return super().__getitem__(key)
        for maps in self:
            if maps.branch == key:
                return maps
        raise ValueError(f"This block has no branch {key!r}; it has {', '.join(m.branch for m in self)}")

    def _lone(self) -> AttentionMaps:
        if len(self) != 1:
            raise ValueError(f"This block has {len(self)} branches: say which, maps['hi'] or maps['lo']")
        return self[0]

    @property
    def probabilities(self) -> Tensor:
        return self._lone().probabilities

    @property
    def query_grid(self) -> Grid:
        return self._lone().query_grid

    @property
    def key_grid(self) -> Grid:
        return self._lone().key_grid

    @property
    def branch(self) -> str:
        return self._lone().branch


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


def attention_sources(model: nn.Module, image: Tensor, *, stage: int, block: int) -> tuple[Source, ...]:
    """The branches of a block, their rows not yet computed. Args: as `attention_maps`."""
    return _sources(model, image, [(stage, block)])[0]


def attention_maps(
    model: nn.Module, image: Tensor, *, stage: int, block: int, queries: Sequence[int] | None = None
) -> Branches:
    """Attention probabilities of one block, what softmax(scale q k^T + bias) is in it.

    Args:
        model: a model or backbone of any family; plain, or from `litevit.optimize_for_inference`. It is left as it was.
        image: (3, H, W) or (1, 3, H, W), normalised.
        stage: 1-4.
        block: from 0.
        queries: cells (row * W + column) whose rows are wanted; None takes all, the class token's with them.

    Returns:
        One `AttentionMaps` per branch. Recursive attention (RASA) shows its last pass.

    Raises:
        ValueError: no such stage or block, a block without attention, a query outside the map, or a matrix of more than
            1 GiB.
    """
    found = []
    for source in attention_sources(model, image, stage=stage, block=block):
        if queries is None:
            if source.num_heads * source.count * source.keys > LARGEST:
                raise ValueError(
                    f"All of this attention is {source.num_heads} x {source.count} x {source.keys} numbers, more than "
                    "1 GiB: ask for some of its rows (queries=)"
                )
            rows = torch.cat([source.rows(part) for part in source.chunks()], 1)
            found.append(source.maps(torch.arange(source.count), rows))
        else:
            indices = torch.as_tensor(list(queries), dtype=torch.int64)
            limit = source.count - source.class_token
            if not len(indices) or int(indices.min()) < 0 or int(indices.max()) >= limit:
                raise ValueError(f"queries must be cells 0 to {limit - 1} of the map, got {list(queries)}")
            found.append(source.maps(indices + int(source.class_token)))
    return Branches(found)


def attention_received(source: Source) -> Tensor:
    """Mean over all queries of what each key is given. Returns: (N, h, w), or (N, H, W) for windows."""
    H, W = source.map_grid
    size = source.keys if source.cells is None else H * W
    total = torch.zeros(source.num_heads, size)
    for part in source.chunks():
        p = source.rows(part).float().cpu()
        if source.cells is None:
            total += p.sum(1)
        else:
            cells = source.cells(part).cpu()
            inside = cells >= 0
            total.index_add_(1, cells[inside], p[:, inside])
    total = total[:, source.class_token :] if source.cells is None else total
    return (total / source.count).unflatten(-1, source.key_grid if source.cells is None else source.map_grid)


def attention_rollout(model: nn.Module, image: Tensor, *, stage: int, query: int) -> Tensor:
    """Attention rollout (Abnar and Zuidema, arXiv:2005.00928) of one query through the blocks of a stage.

    A row of the product over the blocks, last to first, of (A + I) / 2, A the mean over heads. Defined where every
    block of the stage attends from all cells to all cells.

    Args:
        model, image, stage: as `attention_maps`.
        query: cell of the stage's map; -1 is the class token.

    Returns:
        (H, W): how much of the query after the stage comes from each cell before it.
    """
    block_of(model, stage, 0)
    backbone: Any = backbone_of(model)
    depth = len(backbone.stages[stage - 1].blocks)
    sources = _sources(model, image, [(stage, block) for block in range(depth)])
    for block, branches in enumerate(sources):
        first = branches[0]
        if len(branches) > 1 or first.cells is not None or first.count != first.keys:
            raise ValueError(
                f"Rollout is defined where every cell attends to every cell; block {block} of stage {stage} has "
                f"{' and '.join(s.branch for s in branches)} attention to {first.keys} keys"
            )
    last = sources[-1][0]
    index = query + int(last.class_token)
    if not 0 <= index < last.count:
        raise ValueError(f"query must be a cell 0 to {last.count - last.class_token - 1}, got {query}")
    row = torch.zeros(last.count)
    row[index] = 1
    for (source,) in reversed(sources):
        mixed = torch.zeros_like(row)
        for part in source.chunks():
            weights = row[part]
            used = weights != 0
            if used.any():
                mixed += weights[used] @ source.rows(part[used]).float().cpu().mean(0)
        row = (row + mixed) / 2
    return row[int(last.class_token) :].unflatten(-1, last.key_grid)


def attention_blocks(model: nn.Module) -> list[tuple[int, int]]:
    """Stage (from 1) and block (from 0) of every attention of a model."""
    stages: Any = backbone_of(model).stages
    return [(i + 1, j) for i, stage in enumerate(stages) for j, b in enumerate(stage.blocks) if hasattr(b, "attn")]


def all_attention_sources(model: nn.Module, image: Tensor) -> Iterator[tuple[int, int, tuple[Source, ...]]]:
    """Stage, block and branches of every attention of a model, in one forward."""
    wanted = attention_blocks(model)
    if not wanted:
        raise ValueError("The model has no attention in any block")
    for (stage, block), sources in zip(wanted, _sources(model, image, wanted)):
        yield stage, block, sources


def _sources(model: nn.Module, image: Tensor, wanted: list[tuple[int, int]]) -> list[tuple[Source, ...]]:
    image = as_batch(image)
    backbone: Any = backbone_of(model)
    before: dict[nn.Module, Callable[..., None]] = {}
    after: dict[nn.Module, Callable[..., None]] = {}
    grids: dict[int, Grid] = {}
    found: dict[tuple[int, int], tuple[Source, ...]] = {}
    for i, embed in enumerate(backbone.embeds):
        after[embed] = lambda out, i=i: grids.__setitem__(i + 1, (out.shape[1], out.shape[2]))
    last: nn.Module | None = None
    for stage, block in wanted:
        module = block_of(model, stage, block)
        attn = getattr(module, "attn", None)
        if attn is None:
            have = sorted({s for s, _ in attention_blocks(model)})
            where = f"stages {', '.join(map(str, have))} have" if have else "no stage has"
            raise ValueError(f"Block {block} of stage {stage} has no attention; {where}")

        def look(*args: Any, key: tuple[int, int] = (stage, block), module: Any = module, **kwargs: Any) -> None:
            found[key] = _branches(module, grids[key[0]], *args, **kwargs)

        before[attn] = look
        last = attn
    deepest = max(stage for stage, _ in wanted)
    after = {embed: look for (i, (embed, look)) in enumerate(after.items()) if i < deepest}
    watch(model, image, before=before, after=after, until=last)
    return [found[key] for key in wanted]


def _branches(block: Any, grid: Grid, *args: Any, **kwargs: Any) -> tuple[Source, ...]:
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
