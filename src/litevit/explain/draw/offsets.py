"""Pictures of where deformable merging reads."""

from collections.abc import Sequence
from pathlib import Path

from litevit.explain.draw.look import Images, Look, strides_of
from litevit.explain.figures import Style, offsets_figure, offsets_overview, save
from litevit.explain.inside import backbone_of, evaluation
from litevit.explain.offsets import merging_offsets


def draw_offsets(
    look: Look, images: Images, out: Path, *, cells: Sequence[int] = (), style: Style | None = None
) -> list[Path]:
    """The sampling points of chosen cells, or of the middle one and an overview of all.

    Args:
        cells: row and column of each, one after the other, in the last map.
    """
    style = style or Style()
    if len(cells) % 2:
        raise ValueError(f"--cells takes pairs of ROW COLUMN, got {' '.join(map(str, cells))}")
    pairs = list(zip(cells[::2], cells[1::2]))
    written = []
    for name, path in images:
        seen = look.see(path)
        with evaluation(look.model):
            offsets = merging_offsets(backbone_of(look.model), seen.batch)
        if len(offsets) != 3:
            raise ValueError(f"offsets are chained through three mergings; this model has {len(offsets)}")
        patch = strides_of(look.model)[0]
        h, w = offsets[-1].shape[1:3]
        for row, column in pairs:
            if not (0 <= row < h and 0 <= column < w):
                raise ValueError(f"--cells must be in the last map, {h} x {w}; got row {row}, column {column}")
        chosen = pairs or [(h // 2, w // 2)]
        figure, arrays = offsets_figure(seen.picture, offsets, chosen, patch_size=patch, paper=style.paper)
        raw = {f"offsets_{i + 2}": o[0].cpu() for i, o in enumerate(offsets)}
        written += save(figure, out / f"{name}-offsets", {**arrays, **raw}, style)
        if not pairs:
            figure, arrays = offsets_overview(seen.picture, offsets, patch_size=patch, paper=style.paper)
            written += save(figure, out / f"{name}-offsets-overview", arrays, style)
    return written
