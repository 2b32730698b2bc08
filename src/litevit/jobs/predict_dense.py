"""Predictions of detectors, segmenters and panoptic models on images, folders and videos: pictures and result files.

With a folder to write to, every image gives `<name>.png` to look at and every video `<name>.mp4`; beside them
    detection  `results.json`: COCO's results, one entry per object: image_id, category_id, bbox (xywh), score and,
               for instance segmentation, segmentation (run lengths)
    semantic   `index/<name>.png` in ADE20K's layout (label + 1), and `results.json` with the classes of each
    panoptic   `panoptic.json` and `panoptic/<name>.png`, COCO's panoptic results
`image_id` is the file's name, as a number where it is one (COCO's 000000000139.jpg is 139). The frames of a video are
called `<name>-000000`, ... Photographs are turned upright by their EXIF orientation first.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import to_dtype, to_image

from litevit.checkpoints.files import Pathlike
from litevit.data.images import is_image, read_header, read_image
from litevit.data.many_images import expand
from litevit.files import whole_file
from litevit.jobs import draw
from litevit.jobs.dense_columns import check_codec, columns_of
from litevit.jobs.dense_models import SEMANTIC, DenseModel
from litevit.jobs.dense_results import Found, Results, image_id
from litevit.jobs.predict import find_in_folder, why_none
from litevit.jobs.videos import VideoWriter, is_video, open_video, read_video

SHOWN = 0.3  # least score of detections, unless the caller says otherwise


def find_files(inputs: Iterable[Pathlike]) -> list[Path]:
    """The files themselves, what patterns with `*` match, and the images and videos below the folders, sorted."""
    found: list[Path] = []
    for item in map(Path, expand(inputs)):
        if item.is_dir():
            inside = find_in_folder(item, lambda path: is_image(path) or is_video(path))
            if not inside:
                raise FileNotFoundError(f"No images or videos in the folder {item}")
            found += inside
        else:
            found.append(item)
    if not found:
        raise ValueError("Nothing to predict: give image or video files, or folders")
    return found


def why_nothing(files: Iterable[Path]) -> list[str]:
    """`why_none` of images and videos."""
    return why_none(files, lambda path: open_video(path).close() if is_video(path) else read_header(path))


def unique_names(paths: Iterable[Path]) -> list[tuple[str, Path]]:
    """Every file with its name without suffix; the second of one name, or of one COCO number, gets a -2, and so on."""
    used: set[int | str] = set()
    named = []
    for path in paths:
        name, n = path.stem, 1
        while image_id(name) in used:
            n += 1
            name = f"{path.stem}-{n}"
        used.add(image_id(name))
        named.append((name, path))
    return named


def count_pictures(paths: Iterable[Path]) -> int:
    """Images, and the frames of videos as their files say (an estimate where they do not)."""
    total = 0
    for path in paths:
        if not is_video(path):
            total += 1
            continue
        with suppress(ValueError, OSError), open_video(path) as container:
            stream = container.streams.video[0]
            seconds = float(container.duration or 0) / 1e6
            total += stream.frames or round(seconds * float(stream.average_rate or 25)) or 1
    return total


@torch.no_grad()
def answer(dense: DenseModel, image: Image.Image | Tensor) -> dict[str, Any]:
    """What the model says about one image, on the CPU.

    Args:
        image: PIL, or (3, H, W) RGB floats in [0, 1].

    Returns:
        Detection: `boxes`, `scores`, `labels` and `masks`. Panoptic: `panoptic`, `segments_info`, ... Semantic:
        `semantic` (H, W) int64.
    """
    pixels: Any = image
    if isinstance(image, Image.Image):
        pixels = to_dtype(to_image(read_image(image)), torch.float32, scale=True).as_subclass(Tensor)
    pixels = pixels.to(next(dense.model.parameters()).device)
    if dense.task == SEMANTIC:
        return {"semantic": dense.model.segment(pixels).cpu()}  # type: ignore[operator]
    (found,) = dense.model([pixels])
    return {key: value.cpu() if isinstance(value, Tensor) else value for key, value in found.items()}


def predict(
    dense: DenseModel, paths: Iterable[Pathlike], results: Results, *, columns: bool = False
) -> Iterator[Found]:
    """Predicts image and video files one by one, and writes pictures to the folder of `results`.

    A file that cannot be read gives a `Found` with its error and stops nothing. `results.save()` is the caller's.

    Args:
        columns: fill `Found.columns`.
    """
    if columns:
        check_codec(dense)
    named = unique_names(map(Path, paths))
    if results.folder is not None:
        _protect(named, results.folder)
    for name, path in named:
        if is_video(path):
            yield from _predict_video(dense, name, path, results, columns)
            continue
        try:
            image = read_image(path)
        except (ValueError, OSError) as error:
            yield Found(str(path), error=str(error))
            continue
        found = answer(dense, image)
        rows = results.add(name, found)
        if results.folder is not None:
            _save_picture(results.draw(image, found), results.folder / f"{name}.png")
        yield Found(str(path), rows=rows, columns=_columns(dense, found, image) if columns else None)


def _columns(dense: DenseModel, found: dict[str, Any], image: Image.Image | Tensor) -> dict[str, Any]:
    height, width = image.shape[-2:] if isinstance(image, Tensor) else (image.height, image.width)
    return columns_of(dense, found, height=height, width=width)


def _protect(named: Sequence[tuple[str, Path]], folder: Path) -> None:
    """Raises if a picture would be written over a file that is to be looked at."""
    sources = {path.resolve() for _, path in named}
    for name, path in named:
        target = folder / f"{name}{'.mp4' if is_video(path) else '.png'}"
        if target.resolve() in sources:
            raise ValueError(f"the result of {path} would overwrite {target}: choose another folder")


def _predict_video(dense: DenseModel, name: str, path: Path, results: Results, columns: bool) -> Iterator[Found]:
    writer, width, complete = None, None, False
    try:
        if results.folder is not None:
            with open_video(path) as container:
                stream = container.streams.video[0]
                rate = Fraction(stream.average_rate or 25)
                writer = VideoWriter(results.folder / f"{name}.mp4", rate=rate, time_base=stream.time_base)
        for number, (image, pts) in enumerate(read_video(path)):
            found = answer(dense, image)
            rows = results.add(f"{name}-{number:06d}", found)
            if writer is not None:
                width = width or draw.legend_width(draw.to_picture(image), dense.classes.names)
                writer.write(results.draw(image, found, width), pts)  # one width: frames must not change their size
            yield Found(str(path), number, rows, columns=_columns(dense, found, image) if columns else None)
        complete = True
    except (ValueError, OSError) as error:
        complete = True  # what could be read is kept
        yield Found(str(path), error=str(error))
    finally:
        if writer is not None:
            writer.close(keep=complete)


def _save_picture(picture: Image.Image, target: Path) -> None:
    with whole_file(target) as temporary:
        picture.save(temporary, format="PNG")


def table(results: Sequence[Found], most: int = 20) -> list[tuple[str, str, str, str]]:
    """Lines to print: file, class, score or share, box. Of a video only how many frames there were."""
    lines: list[tuple[str, str, str, str]] = []
    frames: dict[str, int] = {}
    for found in results:
        if found.frame is not None:
            frames[found.path] = found.frame + 1
            continue
        if found.error:
            lines.append((found.path, found.error, "", ""))
            continue
        path = found.path
        for row in found.rows[:most]:
            figure = f"{row.score:.2f}" if row.score is not None else ""
            share = f"{100 * row.share:.1f} %" if row.share is not None else ""
            box = " ".join(f"{v:.0f}" for v in row.box) if row.box else ""
            lines.append((path, row.name, figure or share, box or (share if figure else "")))
            path = ""
        if len(found.rows) > most:
            lines.append(("", f"and {len(found.rows) - most} more", "", ""))
        if not found.rows:
            lines.append((path, "nothing found", "", ""))
    return lines + [(path, f"{n} frames", "", "") for path, n in frames.items()]
