"""`litevit explain`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from litevit.cli.terminal import NO_FILES, Device, plain_word, progress

What = Literal["offsets", "attention", "frequency", "features", "cam", "errors"]


def explain(
    what: Positional[What],
    images: Positional[tuple[Path, ...]],
    *,
    model: str | None = None,
    weights: str = "official",
    out: Path = Path("explained"),
    stage: int | None = None,
    block: int | None = None,
    head: int | None = None,
    pixel: tuple[int, int] | None = None,
    cells: tuple[int, ...] = (),
    rollout: bool = False,
    label: int | None = None,
    box: int | None = None,
    method: Literal["gradcam", "layercam"] | None = None,
    published: bool = False,
    size: int | None = None,
    num_classes: int | None = None,
    paper: Literal["single", "double"] | None = None,
    formats: tuple[Literal["png", "svg", "pdf"], ...] = (),
    device: Device = "auto",
) -> None:
    """Draws what a model looks at: offsets, attention, frequencies, features, class activation, its errors.

    Pictures and their arrays (.npz) go to a folder. The model runs as in prediction; nothing of it changes.

    Args:
        what: offsets (deformable merging), attention, frequency, features (principal components), cam (class
            activation), errors (of a classifier on a folder with one folder per class).
        images: image files or folders; of several, attention and frequency draw the mean.
        model: name of a model; default: litv2_s, or what the checkpoint of a training run says.
        weights: 'official' (downloaded once; of a classifier also 'imagenet'), 'none' (random), a checkpoint file, or
            the folder of a training run.
        out: folder for the pictures.
        stage: 1-4; default: of attention the last with attention, of cam 4 (of a box 3), of frequency all.
        block: from 0, as in state-dict names; default: the last of the stage, of frequency all.
        head: one head, from 0; default: all.
        pixel: X Y in the picture that the model sees: the query of attention, what features are compared with.
        cells: ROW COLUMN pairs of the last map, for offsets; default: its middle one, and an overview.
        rollout: attention rolled out over the blocks of a stage, where every cell attends to every cell.
        label: class of cam, from 0; default: the one the model finds.
        box: which of a detector's boxes cam explains, from 0, the surest first; default: 0.
        method: of cam; default: gradcam, of a box layercam.
        published: offsets as the published script draws them: 224 x 224 squashed, pixels not normalised.
        size: side of the square input, of detectors and segmenters the short side; default: the published one.
        num_classes: of the checkpoint, where it is not the published one's.
        paper: sizes and type of a paper's single or double column, as PDF and SVG with text as text.
        formats: default: png; with --paper png, svg and pdf.
        device: where to run.
    """
    from litevit.devices import find_device
    from litevit.explain import draw
    from litevit.explain.figures import Style
    from litevit.jobs.looking import open_look
    from litevit.jobs.predict import find_images, why_none
    from litevit.jobs.predict_dense import unique_names

    given = {
        "--stage": stage, "--block": block, "--head": head, "--pixel": pixel, "--cells": cells or None,
        "--rollout": rollout or None, "--label": label, "--box": box, "--method": method,
        "--published": published or None,
    }  # fmt: skip
    _refuse_others(what, {name for name, value in given.items() if value is not None})
    if rollout and (block is not None or head is not None):
        option = "--block" if head is None else "--head"
        raise ValueError(f"--rollout goes over all blocks and heads of a stage: leave out {option}")
    weights = plain_word(weights)
    if weights in NO_FILES:
        model = model or "litv2_s"
    paths = find_images(images)
    if reasons := why_none(paths):  # nothing to load a model for
        raise ValueError(reasons[0] + (f" (nor is any of {len(paths) - 1} others)" if len(paths) > 1 else ""))
    look = open_look(
        model,
        None if weights == "none" else weights,
        size=size,
        num_classes=num_classes,
        published=published,
        device=find_device(device),
    )
    style = Style(paper, formats or (("png", "svg", "pdf") if paper else ("png",)))
    stream: Iterator[tuple[str, Path]] = progress(unique_names(paths), len(paths), "images")
    if what == "offsets":
        written = draw.draw_offsets(look, stream, out, cells=cells, style=style)
    elif what == "attention" and len(paths) > 1:
        if rollout or pixel:
            raise ValueError(f"{'--rollout' if rollout else '--pixel'} takes one image; of several the mean is drawn")
        if paper or formats:
            option = "--paper" if paper else "--formats"
            raise ValueError(f"The mean over images has the published layout, PNG and .npy, without {option}")
        written = draw.draw_mean_attention(look, stream, out, where=draw.Where(stage, block, head))
    elif what == "attention":
        written = draw.draw_attention(
            look, stream, out, where=draw.Where(stage, block, head), pixel=pixel, rollout=rollout, style=style
        )
    elif what == "frequency":
        written = draw.draw_frequency(look, stream, out, stage=stage, block=block, style=style)
    elif what == "features":
        written = draw.draw_features(look, stream, out, pixel=pixel, style=style)
    elif what == "cam":
        written = draw.draw_cam(look, stream, out, label=label, box=box, method=method, stage=stage, style=style)
    else:
        if len(images) != 1:
            raise ValueError(f"errors takes one folder with one folder per class, got {len(images)} paths")
        written = draw.draw_errors(look, stream, images[0], out, style=style)
    if weights == "none":
        print("Random weights: these pictures mean nothing.", file=sys.stderr)
    print(f"Wrote {len(written)} files to {out}:", file=sys.stderr)
    for path in written[:12]:
        print(path)
    if len(written) > 12:
        print(f"and {len(written) - 12} more")


# Options that not every picture has.
TAKES = {
    "offsets": {"--cells", "--published"},
    "attention": {"--stage", "--block", "--head", "--pixel", "--rollout"},
    "frequency": {"--stage", "--block"},
    "features": {"--pixel"},
    "cam": {"--label", "--box", "--method", "--stage"},
    "errors": set(),
}


def _refuse_others(what: What, given: set[str]) -> None:
    if wrong := sorted(given - TAKES[what]):
        raise ValueError(
            f"{what} does not take {' and '.join(wrong)}; it takes {', '.join(sorted(TAKES[what])) or 'none of these'}"
        )
