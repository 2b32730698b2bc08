"""Pictures of what `litevit.explain` finds, for the screen and for a paper.

Every function takes arrays and returns a Matplotlib figure; `save` writes it and its arrays. Pictures are (H, W, 3)
in [0, 1].
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from litevit.explain.offsets import chain_pixels, sampling_chain
from litevit.files import whole_file

Paper = Literal["single", "double"]
WIDTHS = {"single": 3.5, "double": 7.16}  # inches: the columns of two-column papers
FORMATS = ("png", "svg", "pdf")
HEAT = "inferno"


class Style(NamedTuple):
    """How pictures are made and written."""

    paper: Paper | None = None
    formats: Sequence[str] = ("png",)


def new_figure(
    columns: int,
    rows: int,
    *,
    panel: float = 3.0,
    aspect: float = 1.0,
    paper: Paper | None = None,
    legend: float = 0.0,
    title: float = 0.3,
) -> Any:
    """A figure and its (rows, columns) axes.

    Args:
        panel: inches per column where it is not for a paper.
        aspect: height / width of a panel.
        legend: inches at the bottom.
        title: inches above each panel.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("Pictures need Matplotlib: pip install 'litevit[explain]'") from None
    width = WIDTHS[paper] if paper else min(max(panel * columns, 4.5), 14.0)
    height = rows * (width / columns * aspect + title) + legend + 0.25
    with rc_context({"font.size": font_size(paper)}):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, axes


def font_size(paper: Paper | None) -> float:
    return 7.0 if paper else 10.0


def save(
    figure: Any, path: Path, arrays: Mapping[str, Any], style: Style | None = None, *, dpi: int = 200
) -> list[Path]:
    """Writes `path` with every format's ending, and the arrays as .npz beside; each file appears whole or not at all.

    Text of SVG and PDF stays text.
    """
    from matplotlib import rc_context
    from matplotlib.transforms import Bbox

    written = []
    with rc_context({"pdf.fonttype": 42, "svg.fonttype": "none"}):
        figure.draw_without_rendering()
        used = figure.get_tightbbox()  # the width is the paper's, the height what is needed
        box = Bbox.from_extents(0, used.y0 - 0.04, figure.get_figwidth(), used.y1 + 0.04)
        for kind in (style or Style()).formats:
            if kind not in FORMATS:
                raise ValueError(f"formats must be of {', '.join(FORMATS)}, got {kind}")
            target = path.with_name(f"{path.name}.{kind}")
            with whole_file(target) as temporary:
                figure.savefig(temporary, format=kind, dpi=dpi, bbox_inches=box)
            written.append(target)
    target = path.with_name(f"{path.name}.npz")
    everything: dict[str, Any] = {key: np.asarray(value) for key, value in arrays.items()}
    with whole_file(target) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **everything)
    return [*written, target]


def offsets_figure(
    picture: np.ndarray,
    offsets: Sequence[Any],
    cells: Sequence[tuple[int, int]],
    *,
    patch_size: int = 4,
    paper: Paper | None = None,
) -> tuple[Any, dict[str, Any]]:
    """The pixels that cells of the last map were merged from (red) beside the regular patch (green): LIT, figure 2.

    Args:
        offsets: of `merging_offsets`.
        cells: row and column, one panel each.
        patch_size: pixels per cell of the first map.
    """
    H, W = picture.shape[:2]
    columns = min(len(cells), 2 if paper == "single" else 4)
    rows = math.ceil(len(cells) / columns)
    figure, axes = new_figure(columns, rows, aspect=H / W, paper=paper, legend=0.3)
    arrays: dict[str, Any] = {"cells": np.array(cells)}
    side = patch_size * 2 ** len(offsets)
    size = font_size(paper)
    # Half a patch wide, in points: regular ones stay apart at every size.
    dot = min(max(0.5 * patch_size * 72 * figure.get_figwidth() / columns / W, 0.8), 4.0)
    for axis, (row, column) in zip(axes.flat, cells):
        chain = sampling_chain(list(offsets), row=row, column=column)
        pixels = chain_pixels(chain, image_size=(H, W), patch_size=patch_size)
        arrays[f"pixels_{row}_{column}"] = pixels
        axis.imshow(picture, extent=(0, W, H, 0))
        (points,) = axis.plot(*(pixels.T + 0.5), "s", color="red", markersize=dot, markeredgewidth=0, linestyle="none")
        patch = _rectangle(side * column, side * row, side, side, edgecolor="lime", linewidth=1.2)
        axis.add_patch(patch)
        axis.set_title(f"cell ({row}, {column})", fontsize=size)
    _legend(figure, [points, patch], [f"{4 ** len(offsets)} sampling points", f"regular {side} x {side} patch"], size)
    return figure, arrays


def offsets_overview(
    picture: np.ndarray, offsets: Sequence[Any], *, patch_size: int = 4, paper: Paper | None = None
) -> tuple[Any, dict[str, Any]]:
    """All cells at once: where pixels are read how often, and where each cell looks on average, as an arrow."""
    H, W = picture.shape[:2]
    h, w = offsets[-1].shape[-3:-1]
    side = patch_size * 2 ** len(offsets)
    figure, axes = new_figure(2, 1, panel=4.5, aspect=0.8 * H / W, paper=paper)
    size = font_size(paper)
    every, centres, means = [], [], []
    for row in range(h):
        for column in range(w):
            points = sampling_chain(list(offsets), row=row, column=column)
            if not len(points):
                continue
            xy = (patch_size * (points + 0.5))[:, ::-1]
            every.append(chain_pixels(points, image_size=(H, W), patch_size=patch_size))
            centres.append(((column + 0.5) * side, (row + 0.5) * side))
            means.append(xy.mean(0))
    pixels = np.concatenate(every)
    density, _, _ = np.histogram2d(
        pixels[:, 1], pixels[:, 0], bins=(max(H // patch_size, 1), max(W // patch_size, 1)), range=((0, H), (0, W))
    )
    start, end = np.array(centres), np.array(means)
    left, right = axes[0]
    left.imshow(_grey(picture), extent=(0, W, H, 0))
    top = max(float(np.quantile(density, 0.99)), 2.0)
    shown = left.imshow(density, cmap=HEAT, alpha=0.6, extent=(0, W, H, 0), vmin=0, vmax=top, interpolation="nearest")
    left.set_title(f"points per {patch_size} x {patch_size} pixels", fontsize=size)
    _colour_bar(figure, shown, left, size)
    right.imshow(picture, extent=(0, W, H, 0), alpha=0.75)
    move = end - start
    length = np.hypot(*move.T)
    arrows = right.quiver(
        *start.T,
        *move.T,
        length,
        cmap="cool",
        angles="xy",
        scale_units="xy",
        scale=1,
        width=min(0.008, 0.1 / w),  # heads stay smaller than cells
        headwidth=3.5,
        headlength=4,
    )
    arrows.set_clim(0, max(float(length.max()), 1e-3))
    right.set_xlim(0, W)
    right.set_ylim(H, 0)
    right.set_title("mean displacement", fontsize=size)
    bar = _colour_bar(figure, arrows, right, size)
    bar.set_label("pixels", fontsize=size)
    return figure, {"density": density, "centres_xy": start, "mean_xy": end}


def attention_figure(
    picture: np.ndarray,
    rows: Sequence[tuple[str, np.ndarray]],
    *,
    query: tuple[float, float, float, float] | None = None,
    paper: Paper | None = None,
) -> Any:
    """Heat of every head over the picture, a row of panels per branch, each head on its own scale.

    Args:
        rows: title and (N, h, w), of `AttentionMaps.on_map`; NaN where a head cannot look.
        query: left, top, width, height of the query's cell, in pixels.
    """
    H, W = picture.shape[:2]
    size = font_size(paper)
    alone = sum(len(maps) for _, maps in rows) == 1  # a lone head stands beside the picture
    most = max(len(maps) for _, maps in rows)
    columns = 2 if alone else min(most, 4 if paper == "single" else 6 if most > 4 else 4)
    lines = [math.ceil(len(maps) / columns) for _, maps in rows]
    figure, axes = new_figure(columns, sum(lines), aspect=H / W, paper=paper, legend=0.4, title=0.1 + 2 * size / 60)
    shown, line, used = None, 0, []
    panels = list(axes.flat)
    if alone:
        panels = panels[1:]
        used.append(axes[0, 0])
        axes[0, 0].imshow(picture, extent=(0, W, H, 0))
        axes[0, 0].set_title("image", fontsize=size)
        if query is not None:
            axes[0, 0].add_patch(_rectangle(*query, edgecolor="cyan", linewidth=1.2))
    for (title, maps), count in zip(rows, lines):
        for head, heat in enumerate(maps):
            axis = panels[line * columns + head]
            used.append(axis)
            axis.imshow(_grey(picture), extent=(0, W, H, 0))
            low, high = float(np.nanmin(heat)), float(np.nanmax(heat))
            scaled = (heat - low) / (high - low) if high > low else heat * 0
            shown = axis.imshow(
                scaled, cmap=HEAT, alpha=0.65, extent=(0, W, H, 0), vmin=0, vmax=1, interpolation="nearest"
            )
            if query is not None:
                axis.add_patch(_rectangle(*query, edgecolor="cyan", linewidth=0.8 if paper else 1.2))
            axis.set_title(title.format(head=head) + f"\nmax {high:.2g}", fontsize=size)
        line += count
    bar = figure.colorbar(
        shown, ax=used, orientation="horizontal", fraction=0.05, aspect=40, shrink=0.6, ticks=[0, 0.5, 1]
    )
    bar.set_label("attention between its least and most" + (", query in cyan" if query else ""), fontsize=size)
    bar.ax.tick_params(labelsize=size)
    return figure


def frequency_figure(found: Sequence[tuple[str, Mapping[str, np.ndarray]]], *, paper: Paper | None = None) -> Any:
    """Centred log-magnitudes: a row of panels per block, a column per branch, one colour scale per row."""
    names = {"hi": "Hi-Fi", "lo": "Lo-Fi", "full": "whole output"}
    present = [name for name in names if any(name in maps for _, maps in found)]
    blocks_across = max(1, min(len(found), (4 if paper == "single" else 6) // len(present)))
    rows = math.ceil(len(found) / blocks_across)
    H, W = next(iter(found[0][1].values())).shape
    columns = blocks_across * len(present)
    figure, axes = new_figure(columns, rows, aspect=0.9 * H / W, paper=paper, legend=0.3, title=0.22)
    size = font_size(paper)
    for k, (title, maps) in enumerate(found):
        row, first = k // blocks_across, k % blocks_across * len(present)
        low = min(float(m.min()) for m in maps.values())
        high = max(float(m.max()) for m in maps.values())
        shown, used = None, []
        for j, name in enumerate(present):
            if name in maps:
                axis = axes[row, first + j]
                used.append(axis)
                shown = axis.imshow(maps[name], cmap="magma", vmin=low, vmax=high, interpolation="nearest")
                label = names[name] if len(present) > 1 else ""
                axis.set_title(f"{title} {label}".strip(), fontsize=size)
        _colour_bar(figure, shown, used, size)
    figure.supxlabel("log-magnitude; zero frequency in the middle, pi at the edges", fontsize=size)
    return figure


def amplitude_figure(curves: Sequence[tuple[str, np.ndarray, np.ndarray]], *, paper: Paper | None = None) -> Any:
    """Relative log-amplitude against frequency, a line per block, and that of the highest frequency over depth."""
    figure, axes = new_figure(2, 1, aspect=0.8, paper=paper, legend=0.5)
    from matplotlib import colormaps

    size = font_size(paper)
    left, right = axes[0]
    colours = colormaps["viridis"](np.linspace(0, 0.95, len(curves)))
    for (name, frequencies, values), colour in zip(curves, colours):
        left.plot(frequencies, values, color=colour, linewidth=1, label=name)
    ends = [float(values[-1]) for _, _, values in curves]
    right.plot(range(len(curves)), ends, color="0.6", linewidth=1)
    right.scatter(range(len(curves)), ends, c=colours, s=14, zorder=3)
    step = math.ceil(len(curves) / (8 if paper == "single" else 16))
    right.set_xticks(range(0, len(curves), step), [curves[i][0] for i in range(0, len(curves), step)], rotation=90)
    left.set_xlabel("frequency / pi", fontsize=size)
    left.set_ylabel("relative log-amplitude", fontsize=size)
    right.set_xlabel("stage.block", fontsize=size)
    right.set_ylabel("at the highest frequency", fontsize=size)
    for axis in (left, right):
        axis.set_axis_on()
        axis.grid(alpha=0.3)
        axis.tick_params(labelsize=size)
    if len(curves) <= 14:
        figure.legend(
            *left.get_legend_handles_labels(),
            loc="outside lower center",
            title="stage.block",
            title_fontsize=size - 1,
            fontsize=size - 1,
            ncols=7,
            handlelength=1,
        )
    return figure


def features_figure(
    picture: np.ndarray,
    components: Sequence[np.ndarray],
    similarity: Sequence[np.ndarray] = (),
    *,
    pixel: tuple[int, int] | None = None,
    paper: Paper | None = None,
) -> Any:
    """The picture, the principal components of each stage as colours, and below the likeness to a pixel."""
    H, W = picture.shape[:2]
    figure, axes = new_figure(5, 2 if len(similarity) else 1, aspect=0.93 * H / W, paper=paper, title=0.25)
    size = font_size(paper)
    pca, cosine, at = (
        ("PCA {}", "cosine {}", "{}, {}")
        if paper == "single"
        else ("stage {}, PCA", "stage {}, cosine", "pixel ({}, {})")
    )
    axes[0, 0].imshow(picture, extent=(0, W, H, 0))
    axes[0, 0].set_title("image", fontsize=size)
    for i, colours in enumerate(components):
        axes[0, i + 1].imshow(colours, extent=(0, W, H, 0), interpolation="nearest")
        axes[0, i + 1].set_title(pca.format(i + 1), fontsize=size)
    if len(similarity):
        axes[1, 0].imshow(picture, extent=(0, W, H, 0))
        assert pixel is not None
        axes[1, 0].plot(pixel[0] + 0.5, pixel[1] + 0.5, "+", color="red", markersize=8)
        axes[1, 0].set_title(at.format(*pixel), fontsize=size)
        for i, likeness in enumerate(similarity):
            shown = axes[1, i + 1].imshow(
                likeness, cmap="RdBu_r", vmin=-1, vmax=1, extent=(0, W, H, 0), interpolation="nearest"
            )
            axes[1, i + 1].plot(pixel[0] + 0.5, pixel[1] + 0.5, "+", color="black", markersize=6)
            axes[1, i + 1].set_title(cosine.format(i + 1), fontsize=size)
        _colour_bar(figure, shown, list(axes[1, 1:]), size)
    return figure


def cam_figure(
    picture: np.ndarray,
    heat: np.ndarray,
    title: str,
    *,
    box: Sequence[float] | None = None,
    paper: Paper | None = None,
) -> Any:
    """The picture beside its class activation. Args: heat: (H, W) in [0, 1]. box: xyxy."""
    H, W = picture.shape[:2]
    size = font_size(paper)
    title = _wrapped(title, 0.45 * (WIDTHS[paper] if paper else 6.0), size)
    figure, axes = new_figure(2, 1, aspect=0.9 * H / W, paper=paper, title=0.1 + (title.count("\n") + 1) * size / 50)
    left, right = axes[0]
    left.imshow(picture, extent=(0, W, H, 0))
    left.set_title("image", fontsize=size)
    right.imshow(_grey(picture), extent=(0, W, H, 0))
    shown = right.imshow(heat, cmap=HEAT, alpha=0.6, extent=(0, W, H, 0), vmin=0, vmax=1)
    right.set_title(title, fontsize=size)
    if box is not None:
        for axis in (left, right):
            x1, y1, x2, y2 = box
            axis.add_patch(_rectangle(x1, y1, x2 - x1, y2 - y1, edgecolor="cyan", linewidth=1.2))
    bar = _colour_bar(figure, shown, right, size)
    bar.set_label("activation", fontsize=size)
    return figure


def errors_figure(rows: Sequence[tuple[str, Sequence[tuple[np.ndarray, str]]]], *, paper: Paper | None = None) -> Any:
    """A sheet of pictures: a titled row each. Args: rows: title, and pictures with their captions."""
    columns = max(len(items) for _, items in rows)
    figure, axes = new_figure(columns, len(rows), aspect=1.05, paper=paper)
    size = font_size(paper) - 1
    for line, (title, items) in zip(axes, rows):
        for axis, (picture, caption) in zip(line, items):
            axis.imshow(picture)
            axis.set_title(caption, fontsize=size)
        line[0].text(
            -0.08, 0.5, title, rotation=90, ha="right", va="center", fontsize=size, transform=line[0].transAxes
        )
    return figure


def _wrapped(text: str, inches: float, size: float) -> str:
    """The text in lines that stay within a width: ImageNet's names of a class go up to 121 letters."""
    letters = int(inches * 72 / (0.6 * size))
    return "\n".join(part for line in text.split("\n") for part in textwrap.wrap(line, letters))


def _rectangle(x: float, y: float, width: float, height: float, **look: Any) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, height, fill=False, **look)


def _legend(figure: Any, handles: Sequence[Any], names: Sequence[str], size: float) -> None:
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), fontsize=size, frameon=False)


def _colour_bar(figure: Any, shown: Any, axis: Any, size: float) -> Any:
    bar = figure.colorbar(shown, ax=axis, fraction=0.046, pad=0.03, shrink=0.8 if isinstance(axis, list) else 1.0)
    bar.ax.tick_params(labelsize=size - 1)
    return bar


def _grey(picture: np.ndarray) -> np.ndarray:
    return np.repeat((picture @ np.array([0.299, 0.587, 0.114]))[..., None], 3, -1)
