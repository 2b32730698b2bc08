"""Predictions of detectors, segmenters and panoptic models on images, folders and videos: pictures and result files.

With a folder to write to, every image gives `<name>.png` to look at and every video `<name>.mp4`; beside them
    detection  `results.json`: COCO's results, one entry per object: image_id, category_id, bbox (xywh), score and,
               for instance segmentation, segmentation (run lengths)
    semantic   `index/<name>.png` in ADE20K's layout (label + 1), and `results.json` with the classes of each
    panoptic   `panoptic.json` and `panoptic/<name>.png`, COCO's panoptic results
`image_id` is the file's name, as a number where it is one (COCO's 000000000139.jpg is 139). The frames of a video are
called `<name>-000000`, ... Photographs are turned upright by their EXIF orientation first.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2.functional import to_dtype, to_image

from litevit import weights as published
from litevit.checkpoints import Pathlike, read_metadata, read_state_dict
from litevit.convert import layouts
from litevit.data.class_names import (
    ClassList,
    detection_classes,
    panoptic_classes,
    read_class_list,
    semantic_classes,
)
from litevit.data.coco import encode_masks, mask_codec
from litevit.data.dense import EMBEDDED
from litevit.data.scenes import ScenesConfig, scene_categories
from litevit.loading import load_weights
from litevit.metrics.panoptic import PanopticWriter
from litevit.metrics.segmentation import write_index_png
from litevit.tools import draw
from litevit.tools.predict import IMAGE_SUFFIXES, load_image
from litevit.zoo import GENERIC, MODELS, create_model

VIDEO_SUFFIXES = {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"}
SHOWN = 0.3  # least score of detections, unless the caller says otherwise
DETECTION, INSTANCES = "detection", "instance segmentation"
SEMANTIC, PANOPTIC = "semantic segmentation", "panoptic segmentation"
BARE_RECIPES = {"detection": INSTANCES, "segmentation": SEMANTIC, "panoptic": PANOPTIC}


# ------------------------------------------------------------------- model


class DenseModel(NamedTuple):
    """A model in evaluation mode and what its labels are called."""

    model: nn.Module
    name: str
    task: str  # as in `litevit.list_models(task=...)`
    classes: ClassList


def read_run(weights: Pathlike | None) -> tuple[Path | None, dict[str, Any]]:
    """The weights file, and the recipe that made it where it is from a training run.

    Args:
        weights: a checkpoint, or the folder of a training run.
    """
    if weights is None or str(weights) == "official":
        return None, {}
    path = Path(weights)
    if path.is_dir():
        path = path / "best.safetensors"
        if not path.is_file():
            raise FileNotFoundError(f"{path.parent} is not the folder of a finished training run: no {path.name}")
    return path, json.loads(read_metadata(path).get("recipe", "{}"))


def task_of(name: str | None, weights: Pathlike | None = None) -> str:
    """The task of a model, by its name or else by what the checkpoint of a training run says."""
    if name is None:
        name = read_run(weights)[1].get("model", {}).get("name")
    if name in MODELS:
        return MODELS[name].task.name
    return GENERIC[name].name if name in GENERIC else "classification"


def load_dense(
    name: str | None,
    weights: Pathlike | None,
    *,
    num_classes: int | None = None,
    names: Pathlike | None = None,
    score_threshold: float | None = None,
    size: int | None = None,
) -> DenseModel:
    """A dense model with its weights and class names.

    Args:
        name: model name; None: what the checkpoint of a training run says.
        weights: None (random), `"official"`, a checkpoint file, or the folder of a training run.
        num_classes: where it is not the model's own and the checkpoint does not tell.
        names: file of class names, see `read_class_list`; None: the training data's, COCO's or ADE20K's, or numbers.
        score_threshold: least score of objects; None keeps the model's.
        size: short side the image is resized to; None keeps the model's.
    """
    path, recipe = read_run(weights)
    overrides: dict[str, Any] = {}
    trained = recipe if recipe and name in (None, recipe["model"]["name"]) else {}
    if trained:
        name = trained["model"]["name"]
        overrides = {k: tuple(v) if isinstance(v, list) else v for k, v in trained["model"]["overrides"].items()}
    if name is None:
        raise ValueError(f"{weights} does not say which model it is of: give its name (--model)")
    task = task_of(name)
    if task == "classification":
        raise ValueError(f"{name} is a classification model, not one of {', '.join((DETECTION, SEMANTIC, PANOPTIC))}")
    if score_threshold is not None:
        if task == SEMANTIC:
            raise ValueError(f"{name} does semantic segmentation, whose classes have no scores: no score threshold")
        if not 0 <= score_threshold <= 1:
            raise ValueError(f"score_threshold must be in [0, 1], got {score_threshold}")
        overrides["score_threshold"] = float(score_threshold)
    if num_classes is not None:
        if task == PANOPTIC:
            raise ValueError(f"{name}: things and stuff are counted apart; they come from the checkpoint")
        overrides["num_classes"] = num_classes
    elif path is not None:
        overrides |= _class_counts(path, task)
    model = create_model(name, **overrides)
    if weights is not None:
        report = load_weights(model, path if path is not None else published.fetch(name))
        if report.missing:
            raise ValueError(
                f"{weights} is not a checkpoint of the whole {name}: {len(report.missing)} tensors are missing, "
                f"such as {report.missing[0]}"
            )
    _resize_to(model, task, size)
    classes = read_class_list(Path(names), first_id=int(task == SEMANTIC)) if names is not None else None
    if classes is None and trained:
        classes = _classes_of_run(path.parent if path else Path(), trained, task)
    return DenseModel(model.eval(), name, task, _checked(classes, _own_classes(model, task), str(names or weights)))


def _class_counts(path: Path, task: str) -> dict[str, int]:
    """Options that give the model the classes of a checkpoint."""
    state = layouts.to_ours(read_state_dict(path).tensors).state

    def rows(key: str) -> int | None:
        return len(state[key]) if key in state else None

    if task == DETECTION:  # A * K scores and A * 4 deltas at every position
        scores, deltas = rows("head.cls_logits.bias"), rows("head.deltas.bias")
        return {"num_classes": scores * 4 // deltas} if scores and deltas else {}
    things = rows("roi_heads.box_head.cls_logits.bias")
    stuff = rows("semantic_head.classifier.bias")
    if task == PANOPTIC:
        return {"num_things": things - 1, "num_stuff": stuff - 1} if things and stuff else {}
    if task == INSTANCES:
        return {"num_classes": things - 1} if things else {}
    classes = rows("head.classifier.bias")
    return {"num_classes": classes} if classes else {}


def _resize_to(model: nn.Module, task: str, size: int | None) -> None:
    if size is None:
        return
    if size < 32:
        raise ValueError(f"--size must be at least 32, got {size}")
    config: Any = model.config
    if task == SEMANTIC:
        model.config = replace(config, test=replace(config.test, scale=(4 * size, size)))  # type: ignore[assignment]
    else:  # the published ratio of the longest to the shortest side
        longest = round(size * config.max_size / config.min_size)
        model.config = replace(config, min_size=size, max_size=longest, resize=True)  # type: ignore[assignment]


def _own_classes(model: nn.Module, task: str) -> ClassList:
    config: Any = model.config
    if task == PANOPTIC:
        return panoptic_classes(config.num_things, config.num_stuff)
    return (semantic_classes if task == SEMANTIC else detection_classes)(config.num_classes)


def _checked(given: ClassList | None, own: ClassList, source: str) -> ClassList:
    if given is None:
        return own
    if len(given.names) != len(own.names):
        raise ValueError(f"{source} has {len(given.names)} names, the model {len(own.names)} classes")
    if own.num_things is not None and given.num_things not in (None, own.num_things):
        raise ValueError(f"{source} has {given.num_things} things, the model {own.num_things}")
    return replace(given, num_things=own.num_things)


def look_of_scenes(data: dict[str, Any]) -> ScenesConfig:
    """Of a recipe's `data` whose path is `embedded:scenes`."""
    look: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data["scenes"]["look"].items()}
    return ScenesConfig(**look)


def _classes_of_run(folder: Path, recipe: dict[str, Any], task: str) -> ClassList | None:
    """From the run's data where it still is, else the names that the run has written; None: unknown."""
    data = recipe["data"]
    first_id = int(task == SEMANTIC)
    if data["path"] == EMBEDDED:
        categories = scene_categories(look_of_scenes(data))
        names = tuple(c["name"] for c in categories)
        if task == SEMANTIC:
            return ClassList(names, tuple(range(1, len(names) + 1)))
        things = sum(c["isthing"] for c in categories)
        shown = categories if task == PANOPTIC else categories[:things]
        return ClassList(tuple(c["name"] for c in shown), tuple(c["id"] for c in shown), things)
    root, kind = Path(data["path"]), "panoptic" if task == PANOPTIC else "instances"
    files = [root / "annotations" / f"{kind}_{split}2017.json" for split in ("val", "train")]
    if task == SEMANTIC:
        files = [root / "classes.json", root / "objectInfo150.txt"]
    for file in files:
        if file.is_file():
            return read_class_list(file, first_id=first_id)
    table = folder / "per_class.json"
    if not table.is_file():
        return None
    names = tuple(json.loads(table.read_text()))
    return ClassList(names, tuple(range(first_id, first_id + len(names))))


# ------------------------------------------------------------------- files


def is_video(path: Pathlike) -> bool:
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def find_files(inputs: Iterable[Pathlike]) -> list[Path]:
    """The files themselves, and the images and videos below the folders, sorted."""
    found: list[Path] = []
    for item in map(Path, inputs):
        if item.is_dir():
            inside = sorted(
                p for p in item.rglob("*") if p.is_file() and (p.suffix.lower() in IMAGE_SUFFIXES or is_video(p))
            )
            if not inside:
                raise FileNotFoundError(f"No images or videos in the folder {item}")
            found += inside
        elif item.is_file():
            found.append(item)
        else:
            raise FileNotFoundError(f"{item} does not exist")
    if not found:
        raise ValueError("Nothing to predict: give image or video files, or folders")
    return found


def unique_names(paths: Iterable[Path]) -> list[tuple[str, Path]]:
    """Every file with its name without suffix; the second of one name gets a -2, and so on."""
    used: set[str] = set()
    named = []
    for path in paths:
        name, n = path.stem, 1
        while name in used:
            n += 1
            name = f"{path.stem}-{n}"
        used.add(name)
        named.append((name, path))
    return named


def image_id(name: str) -> int | str:
    """COCO's ids are the numbers in its file names."""
    return int(name) if name.isascii() and name.isdecimal() else name


def _video_library() -> Any:
    try:
        import av
    except ImportError as error:
        raise ImportError("Videos need PyAV: pip install 'litevit[video]'") from error
    return av


def count_pictures(paths: Iterable[Path]) -> int:
    """Images, and the frames of videos as their files say (an estimate where they do not)."""
    total = 0
    for path in paths:
        if not is_video(path):
            total += 1
            continue
        with suppress(ValueError, OSError), _open_video(path) as container:
            stream = container.streams.video[0]
            seconds = float(container.duration or 0) / 1e6
            total += stream.frames or round(seconds * float(stream.average_rate or 25)) or 1
    return total


def _open_video(path: Path) -> Any:
    av = _video_library()
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise ValueError(f"{path} is not a video that can be read: {error}") from None
    if not container.streams.video:
        container.close()
        raise ValueError(f"{path} has no video stream")
    return container


def read_video(path: Pathlike) -> Iterator[tuple[Image.Image, Any]]:
    """Frames upright, RGB, each with its time stamp (in the stream's units; None: unknown)."""
    path = Path(path)
    av = _video_library()
    with _open_video(path) as container:
        try:
            for frame in container.decode(video=0):
                pixels = frame.to_ndarray(format="rgb24")
                turns = round(getattr(frame, "rotation", 0) / 90) % 4
                yield Image.fromarray(np.ascontiguousarray(np.rot90(pixels, turns))), frame.pts
        except (av.error.FFmpegError, OSError) as error:
            raise ValueError(f"{path} is damaged or truncated: {error}") from None


class VideoWriter:
    """Pictures of one size to an MP4 file, which appears under its name when it is complete. Sound is left out."""

    def __init__(self, path: Path, *, rate: Fraction, time_base: Fraction | None = None):
        self.av = _video_library()
        self.path, self.rate, self.time_base = path, rate, time_base
        self.partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self.container: Any = None
        self.last = -1

    def write(self, picture: Image.Image, pts: int | None) -> None:
        """Args: pts: time stamp in units of `time_base`; None: one frame after the last."""
        picture = picture.crop((0, 0, picture.width // 2 * 2, picture.height // 2 * 2))  # the codec needs even sides
        if self.container is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.container = self.av.open(str(self.partial), "w", format="mp4")
            codec = "libx264" if "libx264" in self.av.codecs_available else "mpeg4"
            self.stream = self.container.add_stream(codec, rate=self.rate)
            self.stream.width, self.stream.height, self.stream.pix_fmt = *picture.size, "yuv420p"
        frame = self.av.VideoFrame.from_image(picture)
        if self.time_base is not None and pts is not None:
            pts = max(pts, self.last + 1)  # stamps have to grow
            frame.pts, frame.time_base, self.last = pts, self.time_base, pts
        for packet in self.stream.encode(frame):
            self.container.mux(packet)

    def close(self, *, keep: bool = True) -> None:
        """Finishes the file; `keep=False` removes it."""
        if self.container is None:
            return
        try:
            if keep:
                for packet in self.stream.encode():
                    self.container.mux(packet)
            self.container.close()
            if keep:
                os.replace(self.partial, self.path)
        finally:
            self.partial.unlink(missing_ok=True)


# ----------------------------------------------------------------- results


@dataclass(frozen=True)
class Row:
    """One line of what was found: a detection, a class of a semantic map, or a segment."""

    name: str
    score: float | None = None
    share: float | None = None  # of the image's pixels
    box: tuple[float, float, float, float] | None = None  # xyxy


@dataclass(frozen=True)
class Found:
    """What was found in one image or frame, or why nothing was."""

    path: str
    frame: int | None = None
    rows: tuple[Row, ...] = ()
    error: str | None = None


class DetectionResults:
    """Objects: COCO's results.

    Args:
        folder: where `save` writes; None: nowhere.
        keep: keep the entries for `content` and `save`.
        masks: the objects have masks.
    """

    def __init__(self, classes: ClassList, folder: Path | None = None, *, keep: bool = True, masks: bool = False):
        self.classes, self.folder, self.keep = classes, folder, keep
        self.entries: list[dict[str, Any]] = []
        if keep and masks:
            mask_codec()  # missing? say so before hours of prediction

    def add(self, name: str, found: Mapping[str, Any]) -> tuple[Row, ...]:
        boxes, scores, labels = found["boxes"].tolist(), found["scores"].tolist(), found["labels"].tolist()
        if self.keep:
            rles = encode_masks(found["masks"]) if "masks" in found else None
            for n, ((x1, y1, x2, y2), score, label) in enumerate(zip(boxes, scores, labels)):
                box = [round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)]
                entry = {"image_id": image_id(name), "category_id": self.classes.ids[label], "bbox": box}
                entry["score"] = round(score, 5)
                self.entries.append(entry if rles is None else entry | {"segmentation": rles[n]})
        return tuple(Row(self.classes.names[k], score, box=tuple(box)) for k, score, box in zip(labels, scores, boxes))

    def draw(self, image: Image.Image, found: Mapping[str, Any], panel_width: int | None = None) -> Image.Image:
        texts = [
            f"{self.classes.names[label]} {score:.2f}"
            for label, score in zip(found["labels"].tolist(), found["scores"].tolist())
        ]
        return draw.draw_detections(image, found["boxes"], texts, masks=found.get("masks"))

    def content(self) -> list[dict[str, Any]]:
        return self.entries

    def save(self) -> None:
        if self.folder is not None:
            write_json(self.folder / "results.json", self.entries)


class SemanticResults:
    """Class maps: index PNGs in ADE20K's layout, and the classes of each image."""

    def __init__(self, classes: ClassList, folder: Path | None = None, *, keep: bool = True):
        self.classes, self.folder, self.keep = classes, folder, keep
        self.entries: list[dict[str, Any]] = []

    def add(self, name: str, found: Mapping[str, Any]) -> tuple[Row, ...]:
        labels: Tensor = found["semantic"]
        pixels = torch.bincount(labels.flatten(), minlength=len(self.classes.names))
        present = [k for k in pixels.argsort(descending=True).tolist() if pixels[k] > 0]
        if self.folder is not None:
            (self.folder / "index").mkdir(parents=True, exist_ok=True)
            write_index_png(self.folder / "index" / f"{name}.png", labels, reduce_zero_label=True)
        if self.keep:
            classes = [
                {"id": self.classes.ids[k], "name": self.classes.names[k], "pixels": int(pixels[k])} for k in present
            ]
            self.entries.append({"image_id": image_id(name), "size": list(labels.shape), "classes": classes})
        return tuple(Row(self.classes.names[k], share=float(pixels[k]) / labels.numel()) for k in present)

    def draw(self, image: Image.Image, found: Mapping[str, Any], panel_width: int | None = None) -> Image.Image:
        return draw.draw_map(image, found["semantic"], self.classes.names, panel_width=panel_width)

    def content(self) -> list[dict[str, Any]]:
        return self.entries

    def save(self) -> None:
        if self.folder is not None:
            write_json(self.folder / "results.json", self.entries)


class PanopticResults:
    """Segments: COCO's panoptic results."""

    def __init__(self, classes: ClassList, folder: Path | None = None, *, keep: bool = True):
        self.classes, self.folder, self.keep = classes, folder, keep
        self.writer = None
        if folder is not None:
            self.writer = PanopticWriter(folder / "panoptic", category_ids=classes.ids)
        self.entries: list[dict[str, Any]] = []

    def add(self, name: str, found: Mapping[str, Any]) -> tuple[Row, ...]:
        ids, segments = found["panoptic"], found["segments_info"]
        if self.writer is not None:
            self.writer.add(image_id(name), ids, segments)
        values, counts = torch.unique(ids, return_counts=True)
        area = dict(zip(values.tolist(), counts.tolist()))
        if self.keep:
            listed = [
                {
                    "id": int(s["id"]),
                    "category_id": self.classes.ids[s["category_id"]],
                    "isthing": bool(s["isthing"]),
                    "score": round(float(s["score"]), 5),
                    "area": area[s["id"]],
                }
                for s in segments
            ]
            file_name = self.writer.annotations[-1]["file_name"] if self.writer is not None else f"{name}.png"
            self.entries.append({"image_id": image_id(name), "file_name": file_name, "segments_info": listed})
        ordered = sorted(segments, key=lambda s: (not s["isthing"], -s["score"]))
        return tuple(
            Row(self.classes.names[s["category_id"]], float(s["score"]), area[s["id"]] / ids.numel()) for s in ordered
        )

    def draw(self, image: Image.Image, found: Mapping[str, Any], panel_width: int | None = None) -> Image.Image:
        segments = found["segments_info"]
        return draw.draw_panoptic(image, found["panoptic"], segments, self.classes.names, panel_width=panel_width)

    def content(self) -> dict[str, Any]:
        things = self.classes.num_things or 0
        categories = [
            {"id": i, "name": name, "isthing": int(label < things)}
            for label, (i, name) in enumerate(zip(self.classes.ids, self.classes.names))
        ]
        return {"annotations": self.entries, "categories": categories}

    def save(self) -> None:
        if self.folder is not None:
            write_json(self.folder / "panoptic.json", self.content())


Results = DetectionResults | SemanticResults | PanopticResults


def create_results(dense: DenseModel, folder: Pathlike | None = None, *, keep: bool = True) -> Results:
    """What collects and writes the results of a model's task. See `DetectionResults`."""
    target = None if folder is None else Path(folder)
    if target is not None:
        target.mkdir(parents=True, exist_ok=True)
    if dense.task == SEMANTIC:
        return SemanticResults(dense.classes, target, keep=keep)
    if dense.task == PANOPTIC:
        return PanopticResults(dense.classes, target, keep=keep)
    return DetectionResults(dense.classes, target, keep=keep, masks=dense.task == INSTANCES)


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        partial.write_text(json.dumps(content, ensure_ascii=False))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


# ----------------------------------------------------------------- predict


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
        pixels = to_dtype(to_image(image.convert("RGB")), torch.float32, scale=True).as_subclass(Tensor)
    pixels = pixels.to(next(dense.model.parameters()).device)
    if dense.task == SEMANTIC:
        return {"semantic": dense.model.segment(pixels).cpu()}  # type: ignore[operator]
    (found,) = dense.model([pixels])
    return {key: value.cpu() if isinstance(value, Tensor) else value for key, value in found.items()}


def predict(dense: DenseModel, paths: Iterable[Pathlike], results: Results) -> Iterator[Found]:
    """Predicts image and video files one by one, and writes pictures to the folder of `results`.

    A file that cannot be read gives a `Found` with its error and stops nothing. `results.save()` is the caller's.
    """
    named = unique_names(map(Path, paths))
    if results.folder is not None:
        _protect(named, results.folder)
    for name, path in named:
        if is_video(path):
            yield from _predict_video(dense, name, path, results)
            continue
        try:
            image = load_image(path)
        except (ValueError, OSError) as error:
            yield Found(str(path), error=str(error))
            continue
        found = answer(dense, image)
        rows = results.add(name, found)
        if results.folder is not None:
            _save_picture(results.draw(image, found), results.folder / f"{name}.png")
        yield Found(str(path), rows=rows)


def _protect(named: Sequence[tuple[str, Path]], folder: Path) -> None:
    """Raises if a picture would be written over a file that is to be looked at."""
    sources = {path.resolve() for _, path in named}
    for name, path in named:
        target = folder / f"{name}{'.mp4' if is_video(path) else '.png'}"
        if target.resolve() in sources:
            raise ValueError(f"the result of {path} would overwrite {target}: choose another folder")


def _predict_video(dense: DenseModel, name: str, path: Path, results: Results) -> Iterator[Found]:
    writer, width, complete = None, None, False
    try:
        if results.folder is not None:
            with _open_video(path) as container:
                stream = container.streams.video[0]
                rate = Fraction(stream.average_rate or 25)
                writer = VideoWriter(results.folder / f"{name}.mp4", rate=rate, time_base=stream.time_base)
        for number, (image, pts) in enumerate(read_video(path)):
            found = answer(dense, image)
            rows = results.add(f"{name}-{number:06d}", found)
            if writer is not None:
                width = width or draw.legend_width(draw.to_picture(image), dense.classes.names)
                writer.write(results.draw(image, found, width), pts)  # one width: frames must not change their size
            yield Found(str(path), number, rows)
        complete = True
    except (ValueError, OSError) as error:
        complete = True  # what could be read is kept
        yield Found(str(path), error=str(error))
    finally:
        if writer is not None:
            writer.close(keep=complete)


def _save_picture(picture: Image.Image, target: Path) -> None:
    partial = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        picture.save(partial, format="PNG")
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


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
