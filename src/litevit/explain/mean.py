"""Mean attention over many images, in the published file layout of LIT's figure 3.

`full_msa_eval_maps.npy`: an object array of four lists, one float32 array (N, L, M) per block with attention; beside it
`attention_map/stage-{0..3}/block{b}/pixel-{p}-block-{b}-head-{h}.png`, the row of one query pixel per stage as a heat
map of its own range, the query framed in lime. Stages count from 0 in these names, as published. A block with two
branches (HiLo) adds the branch's name to both, and its array to a file of its own.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from litevit.explain.attention import LARGEST, Source, _sources, attention_blocks, block_of
from litevit.files import whole_file

PUBLISHED_QUERIES = ((22, 28), (10, 14), (6, 8), (2, 3))  # row and column in maps of 56, 28, 14 and 7 cells


class Mean(NamedTuple):
    stage: int  # 1-4
    block: int
    source: Source  # of the last image; its rows are not those of the mean
    probabilities: Tensor  # (N, L, M), float32


def mean_attention(
    model: nn.Module, images: Iterable[Tensor], *, stage: int | None = None, block: int | None = None
) -> list[Mean]:
    """Attention of every block, averaged over images of one size, a piece of each matrix at a time.

    Args:
        model: any model of litevit.
        images: normalised, (1, 3, H, W).
        stage, block: only these.
    """
    if stage is not None and block is not None:
        block_of(model, stage, block)
    wanted = [(s, b) for s, b in attention_blocks(model) if stage in (None, s) and block in (None, b)]
    if not wanted:
        raise ValueError(f"The model has no attention in {_place(stage, block)}")
    sums: dict[tuple[int, int, str], Tensor] = {}
    last: dict[tuple[int, int, str], Source] = {}
    count, size = 0, None
    for image in images:
        size = size or image.shape
        if image.shape != size:
            raise ValueError(
                f"The mean over images needs one size, got {tuple(size[-2:])} and {tuple(image.shape[-2:])}"
            )
        count += 1
        for (s, b), sources in zip(wanted, _sources(model, image, wanted)):
            for source in sources:
                key = (s, b, source.branch)
                if key not in sums:
                    total = sum(t.numel() for t in sums.values()) + source.num_heads * source.count * source.keys
                    if total > LARGEST:
                        raise ValueError(
                            "The mean attention of these blocks is more than 1 GiB: choose a stage and block, or "
                            "smaller images (--size)"
                        )
                    sums[key] = torch.zeros(source.num_heads, source.count, source.keys)
                for part in source.chunks():
                    sums[key][:, part[0] : part[-1] + 1] += source.rows(part).float().cpu()
                last[key] = _without_rows(source)
    if not count:
        raise ValueError("No images")
    return [Mean(s, b, last[s, b, branch], total.div_(count)) for (s, b, branch), total in sums.items()]


def _place(stage: int | None, block: int | None) -> str:
    if stage is not None:
        return f"stage {stage}"
    return "any block" if block is None else f"a block {block} of any stage"


def _without_rows(source: Source) -> Source:
    """So that queries and keys of an image are not kept."""
    return replace(source, rows=lambda indices: torch.empty(0))


def write_mean(means: list[Mean], out: Path, *, head: int | None = None) -> list[Path]:
    """Arrays and pictures in the published layout. Args: head: only this one. Returns: the files."""
    from matplotlib import colormaps
    from PIL import Image, ImageDraw

    most = max(mean.source.num_heads for mean in means)
    if head is not None and not 0 <= head < most:
        raise ValueError(f"--head must be 0 to {most - 1} here, got {head}")
    written = []
    for branch in sorted({m.source.branch for m in means}):
        stages = np.empty(4, dtype=object)
        for i in range(4):
            stages[i] = [m.probabilities.numpy() for m in means if m.stage == i + 1 and m.source.branch == branch]
        target = out / ("full_msa_eval_maps.npy" if branch == "full" else f"{branch}_eval_maps.npy")
        with whole_file(target) as temporary, open(temporary, "wb") as file:
            np.save(file, stages, allow_pickle=True)
        written.append(target)
    for mean in means:
        source = mean.source
        if head is not None and not 0 <= head < source.num_heads:
            continue
        H, W = source.map_grid
        r, c = PUBLISHED_QUERIES[mean.stage - 1]
        side = 56 >> (mean.stage - 1)
        row, column = r * H // side, c * W // side
        pixel = row * W + column
        index = source.row_of(row, column)
        heat = source.maps(torch.tensor([index]), mean.probabilities[:, [index]]).on_map(0).numpy()
        folder = out / "attention_map" / f"stage-{mean.stage - 1}" / f"block{mean.block}"
        suffix = "" if source.branch in ("full", "window", "csa") else f"-{source.branch}"
        for h in range(source.num_heads) if head is None else [head]:
            low, high = float(heat[h].min()), float(heat[h].max())
            scaled = (heat[h] - low) / (high - low) if high > low else np.zeros_like(heat[h])
            colours = (colormaps["OrRd"](scaled)[..., :3] * 255).round().astype(np.uint8)
            enlarge = max(448 // max(colours.shape[:2]), 1)
            picture = Image.fromarray(colours.repeat(enlarge, 0).repeat(enlarge, 1))
            if source.key_grid == source.map_grid or source.cells is not None:  # else the query is no key
                corner = (column * enlarge, row * enlarge)
                end = (corner[0] + enlarge - 1, corner[1] + enlarge - 1)
                ImageDraw.Draw(picture).rectangle((*corner, *end), outline="lime", width=max(enlarge // 16, 1))
            target = folder / f"pixel-{pixel}-block-{mean.block}-head-{h}{suffix}.png"
            with whole_file(target) as temporary:
                picture.save(temporary, format="PNG")
            written.append(target)
    return written
