"""What the look view shows: attention, offsets, frequencies and features of one picture, made small for a browser.

Probabilities go as bytes, every row (head, query) against its own greatest value: a heat map shows no finer steps. What
is too large to send whole is sent row by row, as it is asked for.
"""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from litevit.app.packing import Answer
from litevit.explain import (
    chain_pixels,
    cosine_similarity,
    feature_maps,
    frequency_magnitude,
    merging_offsets,
    principal_components,
    sampling_chain,
)
from litevit.explain.attention import Source, attention_blocks, attention_sources
from litevit.explain.frequency import block_amplitudes
from litevit.explain.inside import backbone_of, block_of, evaluation
from litevit.jobs.looking import Look, Seen
from litevit.layers.deformable_merging import DeformableTokenMerging

MOST = 6 * 2**20  # probabilities that go to the browser at once
TITLES = {"hi": "Hi-Fi", "lo": "Lo-Fi", "full": "Attention", "window": "Window", "csa": "CSA"}

Sources = tuple[Source, ...]


def describe(look: Look) -> dict[str, Any]:
    """Which stages and blocks there are, and which of them attend; whether there are offsets."""
    backbone: Any = backbone_of(look.model)
    attending = set(attention_blocks(look.model))
    stages = [[(i + 1, j) in attending for j in range(len(stage.blocks))] for i, stage in enumerate(backbone.stages)]
    merges = sum(isinstance(m, DeformableTokenMerging) for m in backbone.modules())
    return {"stages": stages, "offsets": merges == 3, "strides": strides(look.model)}


def strides(model: nn.Module) -> list[int]:
    """Pixels per cell of the four maps."""
    return [feature.stride for feature in backbone_of(model).features]  # type: ignore[union-attr]


def seen_picture(seen: Seen) -> Answer:
    """The pixels of the model's input, its normalisation undone."""
    return Answer({"kind": "seen"}, {"pixels": _bytes(seen.picture)})


# ---------------------------------------------------------------- attention


def sources_of(look: Look, seen: Seen, stage: int, block: int) -> Sources:
    return attention_sources(look.model, seen.batch, stage=stage, block=block)


def attention(look: Look, sources: Sources, stage: int) -> Answer:
    """All rows of a block where they are few enough, otherwise what is needed to ask for rows one by one."""
    whole = sum(s.num_heads * s.count * s.keys for s in sources) <= MOST
    branches, arrays = [], {}
    for n, source in enumerate(sources):
        branches.append({**_branch(source), "whole": whole})
        arrays[f"rows{n}"] = rows_of_cells(source).numpy().astype(np.int32)
        if whole:
            p, peak = [], []
            for part in source.chunks():
                found, most = _quantised(source.rows(part))
                p.append(found)
                peak.append(most)
            arrays[f"p{n}"], arrays[f"peak{n}"] = np.concatenate(p, 1), np.concatenate(peak, 1)
            if source.cells is not None:
                arrays[f"cells{n}"] = source.cells(torch.arange(source.count)).cpu().numpy().astype(np.int32)
    return Answer({"kind": "attention", "branches": branches, "stride": strides(look.model)[stage - 1]}, arrays)


def attention_row(sources: Sources, cell: int) -> Answer:
    """Where one cell looks, per branch: heads, then rows and columns of the grid that is drawn."""
    branches, arrays = [], {}
    for n, source in enumerate(sources):
        maps = source.maps(rows_of_cells(source)[[_checked(cell, source)]])
        heat = maps.on_map(0)
        arrays[f"p{n}"], arrays[f"peak{n}"] = _quantised(heat.flatten(1)[:, None])
        branches.append({**_branch(source), "grid": list(heat.shape[-2:])})
    return Answer({"kind": "row", "branches": branches}, arrays)


def rows_of_cells(source: Source) -> Tensor:
    """(H * W,) the row of every cell of the map. CSA: the cell's place in the window whose centre is nearest."""
    H, W = source.map_grid
    if source.branch != "csa":
        return torch.arange(H * W) + int(source.class_token)
    h, w = source.query_grid
    row, column = torch.arange(H)[:, None], torch.arange(W)
    down, right = ((row + 1) // 2).clamp(max=h - 1), ((column + 1) // 2).clamp(max=w - 1)
    inside = 3 * (row - 2 * down + 1).clamp(0, 2) + (column - 2 * right + 1).clamp(0, 2)
    return (9 * (down * w + right) + inside).flatten()


def attention_arrays(sources: Sources, cell: int) -> dict[str, np.ndarray]:
    """One cell's rows as `litevit explain attention` writes them."""
    W = sources[0].map_grid[1]
    found: dict[str, Any] = {"query_row": cell // W, "query_column": cell % W}
    for source in sources:
        maps = source.maps(rows_of_cells(source)[[_checked(cell, source)]])
        found[source.branch] = maps.probabilities[:, 0].cpu().numpy()
    return {key: np.asarray(value) for key, value in found.items()}


def _branch(source: Source) -> dict[str, Any]:
    return {
        "branch": source.branch,
        "title": TITLES[source.branch],
        "heads": source.num_heads,
        "queries": source.count,
        "keys": source.keys,
        "mapGrid": list(source.map_grid),
        "keyGrid": list(source.key_grid),
        "windows": source.cells is not None,
        "token": source.class_token,
    }


def _quantised(p: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Args: p: (N, R, M). Returns: (N, R, M) bytes, and (N, R) the value of byte 255."""
    p = p.float().cpu()
    peak = p.amax(-1)
    steps = (p / peak.clamp(min=1e-30)[..., None] * 255).round()
    return steps.to(torch.uint8).numpy(), peak.numpy()


def _checked(cell: int, source: Source) -> int:
    limit = source.map_grid[0] * source.map_grid[1]
    if not 0 <= cell < limit:
        raise ValueError(f"The cell must be 0 to {limit - 1} of the map, got {cell}")
    return cell


# ---------------------------------------------------------------- offsets, frequencies, features


def _offsets(look: Look, seen: Seen) -> list[Tensor]:
    with evaluation(look.model):
        found = merging_offsets(backbone_of(look.model), seen.batch)
    if len(found) != 3:
        raise ValueError(f"Offsets are chained through three mergings; this model has {len(found)}")
    return found


def offsets(look: Look, seen: Seen) -> Answer:
    """The offsets of the three mergings; the page follows the chain of the cell that is clicked."""
    arrays = {f"offsets{n}": o[0].float().cpu().numpy() for n, o in enumerate(_offsets(look, seen))}
    return Answer({"kind": "offsets", "stride": strides(look.model)[0]}, arrays)


def frequency(look: Look, seen: Seen, stage: int, block: int) -> Answer:
    """Magnitudes of a block's attention, and relative log-amplitudes of all blocks."""
    block_of(look.model, stage, block)
    found = frequency_magnitude(look.model, seen.batch, stage=stage, block=block)
    curves = block_amplitudes(look.model, seen.batch)
    arrays = {f"magnitude_{branch}": m.float().numpy() for branch, m in found.items()}
    for n, (_, x, y) in enumerate(curves):
        arrays[f"x{n}"], arrays[f"y{n}"] = x.float().numpy(), y.float().numpy()
    titles = {branch: "Attention output" if branch == "full" else TITLES[branch] for branch in found}
    return Answer({"kind": "frequency", "branches": titles, "curves": [name for name, _, _ in curves]}, arrays)


def features(look: Look, seen: Seen, stage: int) -> Answer:
    """Principal components as colours, and the map itself in bytes per cell for the likeness to any cell."""
    if not 1 <= stage <= 4:
        raise ValueError(f"stage must be 1 to 4, got {stage}")
    found = feature_maps(look.model, seen.batch)[stage - 1][0].float().cpu()
    cells = found.permute(1, 2, 0)
    steps = (cells / cells.abs().amax(-1, keepdim=True).clamp(min=1e-30) * 127).round().to(torch.int8)
    arrays = {"pca": _bytes(principal_components(found).numpy()), "features": steps.numpy()}
    return Answer({"kind": "features", "stride": strides(look.model)[stage - 1]}, arrays)


# ---------------------------------------------------------------- arrays to keep


def arrays_of(
    look: Look, seen: Seen, view: str, *, stage: int, block: int, cell: int, sources: Callable[[], Sources]
) -> bytes:
    """The .npz of a view, under the names that `litevit explain` writes. Args: cell: of the view's own map."""
    found: dict[str, Any]
    if view == "attention":
        found = attention_arrays(sources(), cell)
    elif view == "offsets":
        raw = _offsets(look, seen)
        h, w = raw[-1].shape[1:3]
        if not 0 <= cell < h * w:
            raise ValueError(f"The cell must be 0 to {h * w - 1} of the last map, got {cell}")
        row, column = divmod(cell, w)
        pixels = chain_pixels(
            sampling_chain(raw, row=row, column=column),
            image_size=seen.picture.shape[:2],
            patch_size=strides(look.model)[0],
        )
        found = {f"offsets_{i + 2}": o[0].cpu() for i, o in enumerate(raw)}
        found |= {"cells": np.array([[row, column]]), f"pixels_{row}_{column}": pixels}
    elif view == "frequency":
        magnitudes = frequency_magnitude(look.model, seen.batch, stage=stage, block=block)
        found = {f"{stage}.{block}_{branch}": m for branch, m in magnitudes.items()}
    elif view == "features":
        maps = feature_maps(look.model, seen.batch)
        if not 1 <= stage <= len(maps):
            raise ValueError(f"stage must be 1 to {len(maps)}, got {stage}")
        h, w = maps[stage - 1].shape[-2:]
        found = {f"pca_{i + 1}": principal_components(m) for i, m in enumerate(maps)}
        found[f"cosine_{stage}"] = cosine_similarity(maps[stage - 1], *divmod(min(cell, h * w - 1), w))
    else:
        raise ValueError(f"There is no view {view!r}")
    file = io.BytesIO()
    plain: dict[str, Any] = {key: np.asarray(value) for key, value in found.items()}
    np.savez_compressed(file, **plain)
    return file.getvalue()


def _bytes(values: np.ndarray) -> np.ndarray:
    """Args: values: in [0, 1]."""
    return (np.clip(values, 0, 1) * 255).round().astype(np.uint8)
