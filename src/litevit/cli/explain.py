"""`litevit explain`."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tyro.conf import Positional

from litevit.cli.terminal import NO_FILES, Device, plain_word, progress

What = Literal["offsets", "attention", "frequency", "features", "cam", "errors"]


class Look(NamedTuple):
    """What a verb looks at."""

    model: Any
    dense: Any  # `DenseModel`, None of classifiers
    prepare: Any  # path -> Seen


class Seen(NamedTuple):
    batch: Any  # (1, 3, H, W), normalised
    picture: Any  # (H, W, 3) in [0, 1], the pixels of `batch`
    pixels: Any  # (3, h, w) in [0, 1], as the file has them; None of classifiers
    scale: tuple[float, float]  # x and y from `pixels` to `batch`


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
    box: int = 0,
    method: Literal["gradcam", "layercam"] = "gradcam",
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
        stage: 1-4; default: of attention the last with attention, of cam 4, of frequency all.
        block: from 0, as in state-dict names; default: the last of the stage, of frequency all.
        head: one head, from 0; default: all.
        pixel: X Y in the picture that the model sees: the query of attention, what features are compared with.
        cells: ROW COLUMN pairs of the last map, for offsets; default: its middle one, and an overview.
        rollout: attention rolled out over the blocks of a stage, where every cell attends to every cell.
        label: class of cam, from 0; default: the one the model finds.
        box: which of a detector's boxes cam explains, from 0, the surest first.
        method: of cam.
        published: offsets as the published script draws them: 224 x 224 squashed, pixels not normalised.
        size: side of the square input, of detectors and segmenters the short side; default: the published one.
        num_classes: of the checkpoint, where it is not the published one's.
        paper: sizes and type of a paper's single or double column, as PDF and SVG with text as text.
        formats: default: png; with --paper png, svg and pdf.
        device: where to run.
    """
    from litevit.jobs.predict import find_images

    paths = find_images(images)
    how = {"formats": formats or (("png", "svg", "pdf") if paper else ("png",))}
    weights = plain_word(weights)
    look = _open(model, weights, size, num_classes, published=published, device=device)
    if weights == "none":
        print("Random weights: these pictures mean nothing.", file=sys.stderr)
    if what == "offsets":
        written = _offsets(look, paths, out, cells, paper, how)
    elif what == "attention":
        written = _attention(look, paths, out, (stage, block, head, pixel), rollout, paper, how)
    elif what == "frequency":
        written = _frequency(look, paths, out, stage, block, paper, how)
    elif what == "features":
        written = _features(look, paths, out, pixel, paper, how)
    elif what == "cam":
        written = _cam(look, paths, out, (label, box, method, stage or 4), paper, how)
    else:
        written = _errors(look, images, paths, out, weights, paper, how)
    print(f"Wrote {len(written)} files to {out}:", file=sys.stderr)
    for path in written[:12]:
        print(path)
    if len(written) > 12:
        print(f"and {len(written) - 12} more")


def _open(
    name: str | None, weights: str, size: int | None, num_classes: int | None, *, published: bool, device: Device
) -> Look:
    from dataclasses import replace

    import torch
    from PIL import Image
    from torchvision.transforms.v2.functional import to_dtype, to_image

    from litevit.data.images import read_image
    from litevit.devices import find_device
    from litevit.jobs import dense_models
    from litevit.jobs.predict import load_classifier
    from litevit.jobs.preprocessing import of_classifier
    from litevit.tasks.detection import prepare_images

    if size is not None and size < 32:
        raise ValueError(f"--size must be at least 32, got {size}")
    given = None if weights == "none" else weights
    if weights in NO_FILES:
        name = name or "litv2_s"
    place = find_device(device)

    def floats(image: Image.Image) -> Any:
        return to_dtype(to_image(image), torch.float32, scale=True).as_subclass(torch.Tensor)

    if dense_models.task_of(name, given) == "classification":
        network, preprocessing = load_classifier(name, given, num_classes=num_classes)
        if size is not None:
            preprocessing = replace(preprocessing, size=size)
        prepare = of_classifier(preprocessing)
        mean, std = (torch.tensor(v)[:, None, None] for v in (preprocessing.mean, preprocessing.std))

        def see(path: Path) -> Seen:
            if published:
                image = floats(read_image(path).resize((224, 224), Image.Resampling.BILINEAR))
                return Seen(image[None].to(place), image.permute(1, 2, 0).numpy(), None, (1, 1))
            x = prepare(read_image(path))
            picture = (x * std + mean).clamp(0, 1).permute(1, 2, 0).numpy()
            return Seen(x[None].to(place), picture, None, (1, 1))

        return Look(network.eval().to(place), None, see)
    if published:
        raise ValueError("--published is the published script's way with classifiers; leave it out for this model")
    dense = dense_models.load_dense(name, given, num_classes=num_classes, size=size)
    config: Any = dense.model.config
    if dense.task == dense_models.SEMANTIC:
        scale = config.test.scale
        limits: dict[str, Any] = {
            "resize": scale is not None,
            "min_size": min(scale or (1,)),
            "max_size": max(scale or (1,)),
        }
    else:
        limits = {"resize": config.resize, "min_size": config.min_size, "max_size": config.max_size}
    imagenet = dense_models.published.IMAGENET_224
    mean, std = (torch.tensor(v)[:, None, None] for v in (imagenet.mean, imagenet.std))

    def see_dense(path: Path) -> Seen:
        pixels = floats(read_image(path))
        prepared = prepare_images([pixels], **limits)
        picture = (prepared.images[0] * std + mean).clamp(0, 1)
        h, w = prepared.sizes[0]
        picture[:, h:], picture[:, :, w:] = 1, 1  # padding
        return Seen(prepared.images.to(place), picture.permute(1, 2, 0).numpy(), pixels, prepared.scale(0))

    return Look(dense.model.to(place), dense, see_dense)


def _names(paths: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    from litevit.jobs.predict_dense import unique_names

    for name, path in unique_names(paths):
        yield Path(name).stem if len({p.stem for p in paths}) == len(paths) else name.replace("/", "-"), path


def _offsets(
    look: Look, paths: Sequence[Path], out: Path, cells: Sequence[int], paper: Any, how: dict[str, Any]
) -> list[Path]:
    from litevit.explain import figures, merging_offsets
    from litevit.explain.inside import backbone_of, evaluation

    if len(cells) % 2:
        raise ValueError(f"--cells takes pairs of ROW COLUMN, got {' '.join(map(str, cells))}")
    pairs = list(zip(cells[::2], cells[1::2]))
    written = []
    for name, path in progress(list(_names(paths)), len(paths), "images"):
        seen = look.prepare(path)
        with evaluation(look.model):
            offsets = merging_offsets(backbone_of(look.model), seen.batch)
        if len(offsets) != 3:
            raise ValueError(f"offsets are chained through three mergings; this model has {len(offsets)}")
        h, w = offsets[-1].shape[1:3]
        for row, column in pairs:
            if not (0 <= row < h and 0 <= column < w):
                raise ValueError(f"--cells must be in the last map, {h} x {w}; got row {row}, column {column}")
        figure, arrays = figures.offsets_figure(seen.picture, offsets, pairs or [(h // 2, w // 2)], paper=paper)
        raw = {f"offsets_{i + 2}": o[0].cpu() for i, o in enumerate(offsets)}
        written += figures.save(figure, out / f"{name}-offsets", {**arrays, **raw}, **how)
        if not pairs:
            figure, arrays = figures.offsets_overview(seen.picture, offsets, paper=paper)
            written += figures.save(figure, out / f"{name}-offsets-overview", arrays, **how)
    return written


def _attention(
    look: Look,
    paths: Sequence[Path],
    out: Path,
    where: tuple[int | None, int | None, int | None, tuple[int, int] | None],
    rollout: bool,
    paper: Any,
    how: dict[str, Any],
) -> list[Path]:
    from litevit.explain import attention_rollout, figures
    from litevit.explain.attention import attention_blocks, attention_sources
    from litevit.explain.mean import mean_attention, write_mean

    stage, block, head, pixel = where
    if len(paths) > 1:
        if rollout:
            raise ValueError("--rollout takes one image")
        stream = (look.prepare(path).batch for path in progress(paths, len(paths), "images"))
        means = mean_attention(look.model, stream, stage=stage, block=block)
        return write_mean(means, out, head=head)
    have = attention_blocks(look.model)
    if not have:
        raise ValueError("This model has no attention in any block")
    stage = have[-1][0] if stage is None else stage
    in_stage = [b for s, b in have if s == stage]
    if block is None:
        block = in_stage[-1] if in_stage else 0
    name, path = next(_names(paths))
    seen = look.prepare(path)
    height, width = seen.picture.shape[:2]
    if pixel is not None and not (0 <= pixel[0] < width and 0 <= pixel[1] < height):
        raise ValueError(f"--pixel must be in the picture that the model sees, {width} x {height}; got {pixel}")
    sources = attention_sources(look.model, seen.batch, stage=stage, block=block)
    H, W = sources[0].map_grid
    stride = 4 * 2 ** (stage - 1)
    x, y = pixel or (width // 2, height // 2)
    row, column = min(y // stride, H - 1), min(x // stride, W - 1)
    cell = (column * stride, row * stride, stride, stride)
    titles = {"hi": "Hi-Fi", "lo": "Lo-Fi", "full": "", "window": "window", "csa": "CSA"}
    rows: list[tuple[str, Any]] = []
    arrays: dict[str, Any] = {"query_row": row, "query_column": column}
    if rollout:
        heat = attention_rollout(look.model, seen.batch, stage=stage, query=row * W + column)
        arrays["rollout"] = heat.numpy()
        rows.append(("rollout", heat[None].numpy()))
    else:
        import torch

        for source in sources:
            if source.branch == "csa":  # what the query, a destination, takes from its window's nine
                window = min((row + 1) // 2, source.query_grid[0] - 1) * source.query_grid[1]
                window += min((column + 1) // 2, source.query_grid[1] - 1)
                top, left = (2 * (window // source.query_grid[1]) - 1, 2 * (window % source.query_grid[1]) - 1)
                index = 9 * window + 3 * (row - top) + column - left
            else:
                index = row * W + column + int(source.class_token)
            maps = source.maps(torch.tensor([index]))
            heads = range(source.num_heads) if head is None else [head]
            if head is not None and not 0 <= head < source.num_heads:
                if len(sources) > 1 and 0 <= head < max(s.num_heads for s in sources):
                    continue
                raise ValueError(f"--head must be 0 to {source.num_heads - 1} here, got {head}")
            picked = maps.on_map(0).float().cpu().numpy()[list(heads)]
            arrays[source.branch] = maps.probabilities[:, 0].cpu().numpy()
            if head is None:
                for n, one in enumerate(picked):
                    rows.append((f"{titles[source.branch]} head {n}".strip(), one[None]))
            else:
                rows.append((f"{titles[source.branch]} head {head}".strip(), picked))
        rows = _together(rows, sources, head, titles)
    seen_picture = seen.picture
    if sources[0].branch in ("hi", "window", "csa") and len(sources) == 1:
        seen_picture, rows, cell = _closer(seen.picture, rows, cell, stride, (H, W))
    figure = figures.attention_figure(seen_picture, rows, query=cell, paper=paper)
    kind = "rollout" if rollout else f"block-{block}" + ("" if head is None else f"-head-{head}")
    target = out / f"{name}-attention-stage-{stage}-{kind}-pixel-{x}-{y}"
    return figures.save(figure, target, arrays, **how)


def _together(rows: Sequence[tuple[str, Any]], sources: Any, head: int | None, titles: dict[str, str]) -> Any:
    """One row of panels per branch."""
    import numpy as np

    if head is not None:
        return list(rows)
    found, start = [], 0
    for source in sources:
        part = rows[start : start + source.num_heads]
        found.append((f"{titles[source.branch]} head {{head}}".strip(), np.concatenate([m for _, m in part])))
        start += source.num_heads
    return found


def _closer(picture: Any, rows: Any, cell: Any, stride: int, grid: tuple[int, int]) -> Any:
    """The surroundings of a window: on the whole picture it would be a dot."""
    import numpy as np

    there = np.max([maps.max(0) for _, maps in rows], 0) > 0
    there[cell[1] // stride, cell[0] // stride] = True
    y, x = np.flatnonzero(there.any(1)), np.flatnonzero(there.any(0))
    if len(y) * len(x) > 0.25 * grid[0] * grid[1]:
        return picture, rows, cell
    top, bottom = max(int(y[0]) - 2, 0), min(int(y[-1]) + 3, grid[0])
    left, right = max(int(x[0]) - 2, 0), min(int(x[-1]) + 3, grid[1])
    cut = picture[top * stride : bottom * stride, left * stride : right * stride]
    moved = (cell[0] - left * stride, cell[1] - top * stride, *cell[2:])
    return cut, [(title, maps[:, top:bottom, left:right]) for title, maps in rows], moved


def _frequency(
    look: Look, paths: Sequence[Path], out: Path, stage: int | None, block: int | None, paper: Any, how: dict[str, Any]
) -> list[Path]:
    from litevit.explain import figures, frequency_magnitude
    from litevit.explain.attention import attention_blocks
    from litevit.explain.frequency import block_amplitudes

    if block is not None and stage is None:
        raise ValueError("--block needs its --stage")
    wanted = [(s, b) for s, b in attention_blocks(look.model) if stage in (None, s) and block in (None, b)]
    if not wanted:
        wanted = [(stage or 4, block or 0)]  # says what is wrong with it
    sums: dict[tuple[int, int], dict[str, Any]] = {}
    curves: list[tuple[str, Any, Any]] = []
    size = None
    for path in progress(paths, len(paths), "images"):
        seen = look.prepare(path)
        size = size or seen.picture.shape
        if seen.picture.shape != size:
            raise ValueError(f"The mean over images needs one size; {path} is {seen.picture.shape[:2]}, not {size[:2]}")
        for key in wanted:
            for name, m in frequency_magnitude(look.model, seen.batch, stage=key[0], block=key[1]).items():
                maps = sums.setdefault(key, {})
                maps[name] = maps.get(name, 0) + m / len(paths)
        found = block_amplitudes(look.model, seen.batch)
        old = [values for _, _, values in curves] or [0] * len(found)
        curves = [(n, f, v / len(paths) + o) for (n, f, v), o in zip(found, old)]
    name = next(_names(paths))[0] if len(paths) == 1 else f"mean-of-{len(paths)}"
    shown = [(f"{s}.{b}", {k: m.numpy() for k, m in sums[s, b].items()}) for s, b in wanted]
    arrays = {f"{title}_{branch}": m for title, maps in shown for branch, m in maps.items()}
    written = figures.save(figures.frequency_figure(shown, paper=paper), out / f"{name}-frequency", arrays, **how)
    drawn = [(n, f.numpy(), v.numpy()) for n, f, v in curves]
    arrays = {f"{n}_{k}": a for n, f, v in drawn for k, a in (("frequency", f), ("amplitude", v))}
    figure = figures.amplitude_figure(drawn, paper=paper)
    return written + figures.save(figure, out / f"{name}-amplitude", arrays, **how)


def _features(
    look: Look, paths: Sequence[Path], out: Path, pixel: tuple[int, int] | None, paper: Any, how: dict[str, Any]
) -> list[Path]:
    from litevit.explain import cosine_similarity, feature_maps, figures, principal_components

    written = []
    for name, path in progress(list(_names(paths)), len(paths), "images"):
        seen = look.prepare(path)
        H, W = seen.picture.shape[:2]
        x, y = pixel or (W // 2, H // 2)
        if not (0 <= x < W and 0 <= y < H):
            raise ValueError(f"--pixel must be in the picture that the model sees, {W} x {H}; got ({x}, {y})")
        maps = feature_maps(look.model, seen.batch)
        components = [principal_components(m).numpy() for m in maps]
        likeness = []
        for i, m in enumerate(maps):
            row, column = (min(v // 2 ** (i + 2), m.shape[a] - 1) for v, a in ((y, 2), (x, 3)))
            likeness.append(cosine_similarity(m, row, column).numpy())
        figure = figures.features_figure(seen.picture, components, likeness, pixel=(x, y), paper=paper)
        arrays = {f"pca_{i + 1}": c for i, c in enumerate(components)}
        arrays |= {f"cosine_{i + 1}": c for i, c in enumerate(likeness)}
        written += figures.save(figure, out / f"{name}-features", arrays, **how)
    return written


def _cam(
    look: Look,
    paths: Sequence[Path],
    out: Path,
    asked: tuple[int | None, int, Any, int],
    paper: Any,
    how: dict[str, Any],
) -> list[Path]:
    import torch

    from litevit.explain import figures
    from litevit.explain.cam import box_score, class_activation, class_score, region_score
    from litevit.jobs.dense_models import SEMANTIC
    from litevit.jobs.predict import class_names

    label, rank, method, stage = asked
    written = []
    for name, path in progress(list(_names(paths)), len(paths), "images"):
        seen = look.prepare(path)
        drawn = None
        with torch.no_grad():
            if look.dense is None:
                logits = look.model(seen.batch)[0]
                k = int(logits.argmax()) if label is None else label
                score, names = class_score(k), class_names(len(logits))
            elif look.dense.task == SEMANTIC:
                raw = look.model.forward_raw(seen.batch)["logits"][0]
                k = int(torch.bincount(raw.argmax(0).flatten()).argmax()) if label is None else label
                score, names = region_score(k), look.dense.classes.names
            else:
                (found,) = look.model([seen.pixels.to(seen.batch.device)])
                objects = found.get("instances", found)
                keep = range(len(objects["boxes"]))
                mine = [i for i in keep if label is None or int(objects["labels"][i]) == label]
                mine.sort(key=lambda i: -float(objects["scores"][i]))
                if not 0 <= rank < len(mine):
                    raise ValueError(f"{path}: the model finds {len(mine)} such boxes; there is no --box {rank}")
                k = int(objects["labels"][mine[rank]])
                sx, sy = seen.scale
                drawn = objects["boxes"][mine[rank]] * torch.tensor([sx, sy, sx, sy], device=seen.batch.device)
                score, names = box_score(drawn, k), look.dense.classes.names
        heat = class_activation(look.model, seen.batch, score, method=method, stage=stage).numpy()
        title = f"{ {'gradcam': 'Grad-CAM', 'layercam': 'Layer-CAM'}[method] }, stage {stage}: {names[k]}"
        corners = None if drawn is None else drawn.tolist()
        figure = figures.cam_figure(seen.picture, heat, title, box=corners, paper=paper)
        arrays = {"activation": heat, "label": k, **({} if drawn is None else {"box": drawn.cpu().numpy()})}
        written += figures.save(figure, out / f"{name}-{method}-stage-{stage}-class-{k}", arrays, **how)
    return written


def _errors(
    look: Look, given: Sequence[Path], paths: Sequence[Path], out: Path, weights: str, paper: Any, how: dict[str, Any]
) -> list[Path]:
    import torch

    from litevit.explain import figures
    from litevit.explain.errors import sheet
    from litevit.jobs.predict import class_names, recorded_classes

    if look.dense is not None:
        raise ValueError("errors takes a classifier and a folder with one folder per class")
    if len(given) != 1 or not given[0].is_dir():
        raise ValueError(f"errors takes one folder with one folder per class, got {' '.join(map(str, given))}")
    folders = sorted(p.name for p in given[0].iterdir() if p.is_dir() and not p.name.startswith("."))
    recorded = None if weights in NO_FILES else recorded_classes(weights)
    order = list(recorded or folders)
    unknown = [folder for folder in folders if folder not in order]
    if unknown:
        raise ValueError(f"{given[0]}: the weights know no class {unknown[0]!r}; they know {', '.join(order[:10])}")
    labels, probabilities, used = [], [], []
    with torch.no_grad():
        for path in progress(paths, len(paths), "images"):
            folder = path.relative_to(given[0]).parts[0]
            if folder not in order:
                raise ValueError(f"{path} lies in no class's folder")
            p = look.model(look.prepare(path).batch)[0].float().softmax(-1).cpu()
            if len(order) != len(p):
                raise ValueError(f"{given[0]} has {len(order)} classes, the model {len(p)}")
            used.append(path)
            labels.append(order.index(folder))
            probabilities.append(p)
    names = class_names(len(order)) if recorded is None and len(order) == 1000 else order
    rows, arrays = sheet(torch.stack(probabilities), torch.tensor(labels), names)
    drawn = [(title, [(look.prepare(used[i]).picture, text) for i, text in items]) for title, items in rows]
    arrays["files"] = [str(path) for path in used]
    return figures.save(figures.errors_figure(drawn, paper=paper), out / f"{given[0].name}-errors", arrays, **how)
