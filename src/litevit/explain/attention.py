"""Attention probabilities of any block, computed aside from the inputs that the block saw.

The model runs its fused attention; a hook looks at the input of the attention module, projects it to queries and keys
once more and takes softmax(scale q k^T + bias) of the rows that are asked for. Rows are computed on demand, so that one
query of a large map costs one row.

Stages count from 1 as in the papers, blocks and heads from 0 as in state-dict names, cells of a map by row and column
from 0. Shapes: N heads, L queries, M keys, D head channels, H x W grid, s window side.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from litevit.explain.attention_rows import AttentionMaps, Grid, Source, branches_of
from litevit.explain.inside import as_batch, backbone_of, block_of, watch

LARGEST = 2**28  # elements of a matrix that is handed out whole: 1 GiB of float32


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

    Raises:
        ValueError: no such stage, a block of it that does not attend from all cells to all, a query outside the map.
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
            found[key] = branches_of(module, grids[key[0]], *args, **kwargs)

        before[attn] = look
        last = attn
    deepest = max(stage for stage, _ in wanted)
    after = {embed: look for (i, (embed, look)) in enumerate(after.items()) if i < deepest}
    watch(model, image, before=before, after=after, until=last)
    return [found[key] for key in wanted]
