"""Pictures of what a query attends to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from litevit.explain.attention import Source, attention_blocks, attention_rollout, attention_sources
from litevit.explain.draw.look import Images, Look, pixel_in, strides_of
from litevit.explain.figures import Style, attention_figure, save
from litevit.explain.mean import mean_attention, write_mean

TITLES = {"hi": "Hi-Fi", "lo": "Lo-Fi", "full": "", "window": "window", "csa": "CSA"}
Panels = list[tuple[str, np.ndarray]]  # title and (heads, h, w)


class Query(NamedTuple):
    """One cell of a map, and the pixels it stands for."""

    row: int
    column: int
    stride: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, width, height."""
        return self.column * self.stride, self.row * self.stride, self.stride, self.stride


class Where(NamedTuple):
    """Which attention: stage from 1, block and head from 0. None: the last with attention, and all heads; of the mean
    over images all of them."""

    stage: int | None = None
    block: int | None = None
    head: int | None = None


LAST = Where()


def draw_attention(
    look: Look,
    images: Images,
    out: Path,
    *,
    where: Where = LAST,
    pixel: tuple[int, int] | None = None,
    rollout: bool = False,
    style: Style | None = None,
) -> list[Path]:
    """The heads of a block from one query pixel, or the rollout of its stage.

    Args:
        pixel: X Y of the query; None takes the middle one.
    """
    style = style or Style()
    stage, block = _which(look, where)
    head = where.head
    written = []
    for name, path in images:
        seen = look.see(path)
        x, y = pixel_in(seen.picture, pixel)
        sources = attention_sources(look.model, seen.batch, stage=stage, block=block)
        H, W = sources[0].map_grid
        stride = strides_of(look.model)[stage - 1]
        query = Query(min(y // stride, H - 1), min(x // stride, W - 1), stride)
        arrays: dict[str, Any] = {"query_row": query.row, "query_column": query.column}
        if rollout:
            heat = attention_rollout(look.model, seen.batch, stage=stage, query=query.row * W + query.column)
            arrays["rollout"] = heat.numpy()
            panels: Panels = [("rollout", heat[None].numpy())]
        else:
            panels = _panels(sources, query, head, arrays)
        picture, box = seen.picture, query.box
        if sources[0].branch in ("hi", "window", "csa") and len(sources) == 1:
            picture, panels, box = _closer(picture, panels, query)
        figure = attention_figure(picture, panels, query=box, paper=style.paper)
        kind = "rollout" if rollout else f"block-{block}" + ("" if head is None else f"-head-{head}")
        written += save(figure, out / f"{name}-attention-stage-{stage}-{kind}-pixel-{x}-{y}", arrays, style)
    return written


def draw_mean_attention(look: Look, images: Images, out: Path, *, where: Where = LAST) -> list[Path]:
    """The mean over images, in the published layout."""
    batches = (look.see(path).batch for _, path in images)
    return write_mean(mean_attention(look.model, batches, stage=where.stage, block=where.block), out, head=where.head)


def _which(look: Look, where: Where) -> tuple[int, int]:
    have = attention_blocks(look.model)
    if not have:
        raise ValueError("This model has no attention in any block")
    stage = have[-1][0] if where.stage is None else where.stage
    in_stage = [b for s, b in have if s == stage]
    return stage, where.block if where.block is not None else (in_stage[-1] if in_stage else 0)


def _panels(sources: Sequence[Source], query: Query, head: int | None, arrays: dict[str, Any]) -> Panels:
    """A row of panels per branch. Its probabilities are added to `arrays`."""
    most = max(source.num_heads for source in sources)
    if head is not None and not 0 <= head < most:
        raise ValueError(f"--head must be 0 to {most - 1} here, got {head}")
    panels: Panels = []
    for source in sources:
        if head is not None and head >= source.num_heads:
            continue  # HiLo's smaller group has no such head
        maps = source.maps(torch.tensor([source.row_of(query.row, query.column)]))
        arrays[source.branch] = maps.probabilities[:, 0].cpu().numpy()
        heat = maps.on_map(0).float().cpu().numpy()
        if maps.key_cells is not None:  # outside its window a query cannot look
            inside = np.zeros(source.map_grid, dtype=bool)
            inside.flat[maps.key_cells[0][maps.key_cells[0] >= 0].cpu().numpy()] = True
            heat[:, ~inside] = np.nan
        title = f"{TITLES[source.branch]} head {'{head}' if head is None else head}".strip()
        panels.append((title, heat if head is None else heat[[head]]))
    return panels


def _closer(picture: np.ndarray, panels: Panels, query: Query) -> tuple[np.ndarray, Panels, tuple[int, int, int, int]]:
    """The surroundings of a window: on the whole picture it would be a dot."""
    H, W = panels[0][1].shape[1:]
    stride = query.stride
    there = ~np.isnan(panels[0][1][0])
    there[query.row, query.column] = True
    y, x = np.flatnonzero(there.any(1)), np.flatnonzero(there.any(0))
    if len(y) * len(x) > 0.25 * H * W:
        return picture, panels, query.box
    top, bottom = max(int(y[0]) - 2, 0), min(int(y[-1]) + 3, H)
    left, right = max(int(x[0]) - 2, 0), min(int(x[-1]) + 3, W)
    cut = picture[top * stride : bottom * stride, left * stride : right * stride]
    moved = query._replace(row=query.row - top, column=query.column - left)
    return cut, [(title, maps[:, top:bottom, left:right]) for title, maps in panels], moved.box
