"""Reads a data set before hours are spent on it, and names everything that training would trip over.

`examine(path)` takes COCO 2017's layout (instances, panoptic), one COCO-format JSON, ADE20K's layout, or class folders,
and returns a `Report`: counts, and findings with how often and where. An error is what stops training or makes it learn
the wrong thing; a warning is what training leaves out or what looks odd.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image as PILImage

from litevit.data.ade20k import IGNORE, read_classes
from litevit.data.coco import (
    ANNOTATION,
    CATEGORY,
    IMAGE,
    box_problem,
    field_problem,
    object_area,
    read_json,
)
from litevit.data.coco_masks import decode_masks, read_panoptic_png, segmentation_to_rle
from litevit.data.coco_panoptic import PANOPTIC_ANNOTATION, SEGMENT
from litevit.data.images import SUFFIXES as IMAGE_SUFFIXES
from litevit.data.mask_labels import read_index_mask

Severity = Literal["error", "warning"]
MISSING = "missing"
THREADS = 8  # images are decoded outside Python's lock


@dataclass
class Finding:
    severity: Severity
    problem: str
    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass
class Report:
    path: Path
    layout: str
    counts: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def errors(self) -> int:
        return sum(finding.count for finding in self.findings if finding.severity == "error")

    @property
    def exit_code(self) -> int:
        """1 when there is an error, 0 when training can start."""
        return int(self.errors > 0)

    def render(self) -> str:
        """The report as text, errors first."""
        lines = [f"{self.path}: {self.layout}"]
        lines += [f"  {count:>9,}  {what}" for what, count in self.counts.items()]
        for finding in sorted(self.findings, key=lambda f: f.severity):
            lines.append(f"{finding.severity}: {finding.problem}: {finding.count:,}")
            lines += [f"    {example}" for example in finding.examples]
            if finding.count > len(finding.examples):
                lines.append(f"    and {finding.count - len(finding.examples):,} more")
        kinds = Counter(finding.severity for finding in self.findings)
        lines.append(f"{kinds['error']} kinds of errors, {kinds['warning']} kinds of warnings")
        return "\n".join(lines)


class _Notes:
    """Findings while they are collected."""

    def __init__(self, report: Report, examples: int):
        self.report, self.examples = report, examples
        self._by_problem: dict[str, Finding] = {}

    def add(self, severity: Severity, problem: str, example: object) -> None:
        if problem not in self._by_problem:
            self._by_problem[problem] = Finding(severity, problem)
            self.report.findings.append(self._by_problem[problem])
        finding = self._by_problem[problem]
        finding.count += 1
        if len(finding.examples) < self.examples:
            finding.examples.append(str(example))

    def error(self, problem: str, example: object) -> None:
        self.add("error", problem, example)

    def warning(self, problem: str, example: object) -> None:
        self.add("warning", problem, example)

    def count(self, what: str, number: int) -> None:
        self.report.counts[what] = self.report.counts.get(what, 0) + number


@dataclass
class _Picture:
    path: Path
    problem: str | None = None
    size: tuple[int, int] | None = None  # (H, W)
    digest: str = ""  # of the file's bytes


def examine(path: str | Path, *, examples: int = 3) -> Report:
    """Looks at a data set.

    Args:
        path: a folder in one of the known layouts, or one COCO-format JSON.
        examples: how many of each problem are named.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if path.is_file():
        if path.suffix != ".json":
            raise ValueError(f"{path} is no data set: give a folder or a COCO-format .json")
        return _examine_coco(path, [path], examples)
    jsons = sorted((path / "annotations").glob("*.json")) or sorted(path.glob("*.json"))
    jsons = [file for file in jsons if re.match(r"(instances|panoptic)_", file.name)] or [
        file for file in jsons if file.name != "classes.json"
    ]
    if jsons:
        return _examine_coco(path, jsons, examples)
    if (path / "images").is_dir() and (path / "annotations").is_dir():
        return _examine_segmentation(path, examples)
    if any(_class_folders(folder) for folder in (path, *_folders(path))):
        return _examine_class_folders(path, examples)
    raise ValueError(
        f"{path} is in no known layout: COCO (annotations/*.json), ADE20K (images/ and annotations/ with PNGs) "
        "or class folders ({train,val}/<class>/*.jpg)"
    )


# Pictures


def _read_picture(path: Path) -> _Picture:
    if not path.is_file():
        return _Picture(path, problem=MISSING)
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        with PILImage.open(path) as file:
            file.load()
            return _Picture(path, size=(file.height, file.width), digest=digest)
    except (OSError, SyntaxError, ValueError) as error:
        return _Picture(path, problem=f"broken ({error})")


def _read_pictures(paths: Iterable[Path]) -> Iterator[_Picture]:
    with ThreadPoolExecutor(THREADS) as pool:
        yield from pool.map(_read_picture, paths)


def _note_broken(notes: _Notes, picture: _Picture) -> bool:
    if picture.problem is None:
        return False
    if picture.problem == MISSING:
        notes.error("missing images", picture.path)
    else:
        notes.error("broken images", f"{picture.path}: {picture.problem.removeprefix('broken ')[1:-1]}")
    return True


def _note_copies(notes: _Notes, splits: dict[str, list[_Picture]]) -> None:
    """The same bytes in two splits are an error: what is tested was trained on. Within one they are odd."""
    seen: dict[str, tuple[str, Path]] = {}
    for split, pictures in splits.items():
        for picture in pictures:
            if not picture.digest:
                continue
            if picture.digest not in seen:
                seen[picture.digest] = (split, picture.path)
                continue
            other_split, other = seen[picture.digest]
            if other == picture.path:
                continue
            if other_split != split:
                notes.error("the same image in two splits", f"{other} and {picture.path}")
            else:
                notes.warning("the same image twice in a split", f"{other} and {picture.path}")


# COCO


def _examine_coco(path: Path, files: list[Path], examples: int) -> Report:
    report = Report(path, "COCO annotations")
    notes = _Notes(report, examples)
    pictures: dict[str, list[_Picture]] = {}
    categories: dict[str, dict[str, dict[Any, Any]]] = {}
    listed: dict[
        str, dict[str, set[tuple[Any, str]]]
    ] = {}  # exporters number every split from 0: ids alone tell nothing
    _note_missing_files(notes, path, files)
    for file in files:
        try:
            content = read_json(file, needs=("images", "annotations", "categories"))
        except (ValueError, OSError) as error:
            notes.error("unreadable annotation files", error)
            continue
        kind, _, split = file.stem.rpartition("_")
        # What other datasets' annotation files describe is told by their content, not by their name.
        panoptic = any("segments_info" in annotation for annotation in content["annotations"])
        panoptic = panoptic or (kind == "panoptic" and not content["annotations"])
        folder = _image_folder(file, split)
        if split not in pictures:
            pictures[split] = _examine_coco_images(notes, file, folder, content)
        usable = {i["id"]: i for i in content["images"] if field_problem(i, IMAGE) is None}
        known = _examine_categories(notes, file, content["categories"], need_isthing=panoptic)
        if panoptic:
            _examine_panoptic(notes, file, content["annotations"], usable, known)
        else:
            _examine_instances(notes, file, content["annotations"], usable, known)
        categories.setdefault("panoptic" if panoptic else kind, {})[str(file)] = {
            key: category.get("name") for key, category in known.items()
        }
        names = {(image_id, image["file_name"]) for image_id, image in usable.items()}
        listed.setdefault("panoptic" if panoptic else kind, {})[str(file)] = names
    for by_file in categories.values():
        first, *others = by_file
        for other in others:
            if by_file[other] != by_file[first]:
                notes.error("categories differ between the splits", f"{first} and {other}")
    for names_by_file in listed.values():
        first, *others = names_by_file
        for other in others:
            for image_id, name in sorted(names_by_file[first] & names_by_file[other], key=str):
                notes.error("the same image id and file in two splits", f"{image_id}, {name} in {first} and {other}")
    _note_copies(notes, pictures)
    return report


def _note_missing_files(notes: _Notes, path: Path, files: list[Path]) -> None:
    """COCO's layout: what one split has annotations of, the other needs too if its images are there."""
    kinds = {file.name.partition("_")[0] for file in files if file.parent.name == "annotations"}
    for kind in sorted(kinds & {"instances", "panoptic"}):
        for split in ("train2017", "val2017"):
            wanted = path / "annotations" / f"{kind}_{split}.json"
            if (path / split).is_dir() and wanted not in files:
                notes.error("missing annotation files", wanted)
    _note_missing_splits(notes, path / "train2017", path / "val2017")


def _note_missing_splits(notes: _Notes, train: Path, val: Path) -> None:
    """A recipe trains on one and evaluates on the other."""
    if train.is_dir() != val.is_dir():
        notes.warning("missing splits", val if train.is_dir() else train)


def _image_folder(file: Path, split: str) -> Path:
    """COCO's place (`annotations/` beside `train2017/`), or `images/`, or the JSON's own folder."""
    for folder in (file.parent.parent / split, file.parent / split, file.parent.parent / "images" / split):
        if split and folder.is_dir():
            return folder
    for folder in (file.parent.parent / "images", file.parent / "images"):
        if folder.is_dir():
            return folder
    return file.parent


def _examine_coco_images(notes: _Notes, file: Path, folder: Path, content: dict[str, Any]) -> list[_Picture]:
    records = []
    for record in content["images"]:
        if problem := field_problem(record, IMAGE):
            notes.error("images without id, file_name, height or width", f"{file}: {problem} in {record}")
        else:
            records.append(record)
    if not content["images"]:
        notes.error("annotation files without images", file)
    _note_repeated(notes, "image ids used twice", file, (record["id"] for record in records), "error")
    _note_repeated(notes, "image files listed twice", file, (record["file_name"] for record in records), "error")
    pictures = list(_read_pictures(folder / record["file_name"] for record in records))
    for record, picture in zip(records, pictures):
        stated = (record["height"], record["width"])
        if not _note_broken(notes, picture) and picture.size != stated:
            assert picture.size is not None
            notes.error(
                "images of another size than the annotations say",
                f"{picture.path} is {picture.size[1]} x {picture.size[0]}, {file.name} says {stated[1]} x {stated[0]}",
            )
    notes.count("images", len(records))
    return pictures


def _note_repeated(notes: _Notes, problem: str, file: Path, values: Iterable[Any], severity: Severity) -> None:
    for value, times in Counter(values).items():
        if times > 1:
            notes.add(severity, problem, f"{file}: {value}, {times} times")


def _examine_categories(
    notes: _Notes, file: Path, categories: list[dict[str, Any]], *, need_isthing: bool
) -> dict[Any, dict[str, Any]]:
    needed = CATEGORY
    known = []
    for category in categories:
        if problem := field_problem(category, needed):
            notes.error(f"categories without {', '.join(needed)}", f"{file}: {problem} in {category}")
        else:
            known.append(category)
    if not known:
        notes.error("annotation files without categories", file)
    _note_repeated(notes, "category ids used twice", file, (category["id"] for category in known), "error")
    _note_repeated(notes, "category names used twice", file, (category["name"] for category in known), "warning")
    return {category["id"]: category for category in known}


def _examine_instances(
    notes: _Notes,
    file: Path,
    annotations: list[dict[str, Any]],
    images: dict[Any, dict[str, Any]],
    categories: dict[Any, dict[str, Any]],
) -> None:
    _note_repeated(notes, "annotation ids used twice", file, (a.get("id") for a in annotations), "error")
    used: Counter[Any] = Counter()
    with_objects = set()
    seen: dict[tuple[Any, ...], Any] = {}
    for annotation in annotations:
        where = f"{file.name}: annotation {annotation.get('id')}"
        if unusable := field_problem(annotation, ANNOTATION):
            notes.error("annotations without image_id, category_id or bbox", f"{where}: {unusable}")
            continue
        image = images.get(annotation["image_id"])
        if annotation["category_id"] not in categories:
            notes.error("annotations of a category that is not listed", f"{where}: {annotation['category_id']}")
        if image is None:
            notes.error("annotations of an image that is not listed", f"{where}: image {annotation['image_id']}")
            continue
        where += f" of {image['file_name']}"
        height, width = image["height"], image["width"]
        used[annotation["category_id"]] += 1
        with_objects.add(annotation["image_id"])
        box = annotation["bbox"]
        problem = box_problem(box, height, width)
        if problem in ("not four numbers", "not finite", "negative size"):
            notes.error(f"boxes: {problem}", f"{where}: {box}")
        elif problem:
            notes.warning(f"boxes: {problem} (left out of training)", f"{where}: {box}")
        elif box[0] < -1 or box[1] < -1 or box[0] + box[2] > width + 1 or box[1] + box[3] > height + 1:
            notes.warning("boxes: partly outside the image (clipped)", f"{where}: {box} in {width} x {height}")
        if problem is None and not annotation.get("iscrowd", 0):
            if object_area(annotation) <= 0:
                notes.warning("annotations without area (left out of training)", where)
            key = (annotation["image_id"], annotation["category_id"], *box)
            if key in seen:
                notes.warning("objects annotated twice", f"{where}: the same box as annotation {seen[key]}")
            seen[key] = annotation.get("id")
        _examine_mask(notes, where, annotation, height, width)
    notes.count("annotations", len(annotations))
    notes.count("crowds", sum(bool(a.get("iscrowd", 0)) for a in annotations))
    notes.count("images without objects", len(images) - len(with_objects))
    _note_unused(notes, file, categories, used)


def _note_unused(notes: _Notes, file: Path, categories: dict[Any, dict[str, Any]], used: Counter[Any]) -> None:
    for category_id, category in categories.items():
        if not used[category_id]:
            notes.warning("categories without an object in a split", f"{file.name}: {category['name']}")


def _examine_mask(notes: _Notes, where: str, annotation: dict[str, Any], height: int, width: int) -> None:
    segmentation = annotation.get("segmentation")
    if not segmentation:
        notes.warning("annotations without a mask", where)
        return
    if isinstance(segmentation, list):
        for polygon in segmentation:
            if isinstance(polygon, list) and len(polygon) < 6:
                notes.warning("polygons of fewer than three points (left out)", f"{where}: {polygon}")
    try:
        rle = segmentation_to_rle(segmentation, height, width)
        if isinstance(segmentation, dict):
            decode_masks([rle], height, width)  # compressed run lengths are read by nothing else
    except ValueError as error:
        notes.error("masks that cannot be read", f"{where}: {error}")
        return
    if rle is None:
        notes.error("annotations whose polygons enclose nothing", where)


def _examine_panoptic(
    notes: _Notes,
    file: Path,
    annotations: list[dict[str, Any]],
    images: dict[Any, dict[str, Any]],
    categories: dict[Any, dict[str, Any]],
) -> None:
    maps = file.with_suffix("")
    used: Counter[Any] = Counter()
    described = set()

    def check(annotation: dict[str, Any]) -> list[tuple[Severity, str, str]]:
        """Everything about one map, without touching the notes: this runs in threads."""
        image = images[annotation["image_id"]]
        path = maps / annotation["file_name"]
        if not path.is_file():
            return [("error", "missing panoptic maps", str(path))]
        try:
            ids = read_panoptic_png(path)
        except (OSError, ValueError) as error:
            return [("error", "broken panoptic maps", str(error))]
        found: list[tuple[Severity, str, str]] = []
        if ids.shape != (image["height"], image["width"]):
            stated = f"its image {image['width']} x {image['height']}"
            found.append(
                ("error", "panoptic maps of another size than their image",
                 f"{path} is {ids.shape[1]} x {ids.shape[0]}, {stated}")
            )  # fmt: skip
        painted = dict(zip(*(v.tolist() for v in np.unique(ids, return_counts=True))))
        painted.pop(0, None)
        listed = {segment["id"]: segment for segment in annotation["segments_info"]}
        for segment_id in sorted(painted.keys() - listed.keys()):
            found.append(("error", "PNG ids that the JSON does not list", f"{path}: {segment_id}"))
        for segment_id in sorted(listed.keys() - painted.keys()):
            found.append(("error", "JSON segments that the PNG does not have", f"{path}: {segment_id}"))
        for segment_id in sorted(listed.keys() & painted.keys()):
            if listed[segment_id].get("area") != painted[segment_id]:
                stated = f"{listed[segment_id].get('area')} in the JSON, {painted[segment_id]} in the PNG"
                found.append(
                    ("warning", "segments with another area than the PNG's", f"{path}: {segment_id}: {stated}")
                )
        return found

    usable = []
    for annotation in annotations:
        if unusable := field_problem(annotation, PANOPTIC_ANNOTATION):
            notes.error("annotations without image_id, file_name or segments_info", f"{file}: {unusable}")
            continue
        where = f"{file.name}: {annotation['file_name']}"
        if annotation["image_id"] not in images:
            notes.error("annotations of an image that is not listed", where)
            continue
        if annotation["image_id"] in described:
            notes.error("images annotated twice", where)
        described.add(annotation["image_id"])
        segments = []
        for segment in annotation["segments_info"]:
            if unusable := field_problem(segment, SEGMENT):
                notes.error("segments without id or category_id", f"{where}: {unusable}")
            else:
                segments.append(segment)
        usable.append(annotation | {"segments_info": segments})
        image = images[annotation["image_id"]]
        ids = (segment["id"] for segment in segments)
        _note_repeated(notes, "segment ids used twice in an image", Path(where), ids, "error")
        for segment in segments:
            category_id = segment["category_id"]
            used[category_id] += 1
            if category_id not in categories:
                notes.error("segments of a category that is not listed", f"{where}: {category_id}")
            if problem := box_problem(segment.get("bbox"), image["height"], image["width"]):
                severity: Severity = "warning" if problem == "narrower than one pixel" else "error"
                notes.add(severity, f"segment boxes: {problem}", f"{where}: {segment}")
    with ThreadPoolExecutor(THREADS) as pool:
        for found in pool.map(check, usable):
            for severity, problem, example in found:
                notes.add(severity, problem, example)
    for image_id in sorted(images.keys() - described, key=str):
        notes.error("images without a panoptic annotation", f"{file.name}: {images[image_id]['file_name']}")
    notes.count("segments", sum(used.values()))
    _note_unused(notes, file, categories, used)


# ADE20K


def _examine_segmentation(path: Path, examples: int) -> Report:
    report = Report(path, "images and index masks (ADE20K's layout)")
    notes = _Notes(report, examples)
    classes: tuple[str, ...] = ()
    lists = [path / name for name in ("classes.json", "objectInfo150.txt") if (path / name).is_file()]
    try:
        if not lists:
            raise FileNotFoundError(f"no class list in {path}: put classes.json or objectInfo150.txt there")
        names = read_classes(lists[0])
        if not 1 <= len(names) <= IGNORE:
            raise ValueError(f"{lists[0]} has {len(names)} names, 1 to {IGNORE} are possible")
        classes = names
    except (ValueError, OSError) as error:
        notes.error("class list", error)
    _note_missing_splits(notes, path / "images" / "training", path / "images" / "validation")
    splits: dict[str, list[_Picture]] = {}
    for split in _folders(path / "images") or [path / "images"]:
        folder = path / "annotations" / split.relative_to(path / "images")
        files = [file for file in sorted(split.rglob("*")) if file.suffix.lower() in IMAGE_SUFFIXES]
        if not files:
            notes.error("splits without images", split)
            continue
        masks = [folder / file.relative_to(split).with_suffix(".png") for file in files]
        splits[split.name] = list(_read_pictures(files))
        used = np.zeros(IGNORE + 1, dtype=np.int64)
        with ThreadPoolExecutor(THREADS) as pool:
            for picture, mask, result in zip(splits[split.name], masks, pool.map(_read_mask, masks)):
                broken = _note_broken(notes, picture)
                if isinstance(result, str):
                    notes.error("missing masks" if result == MISSING else "broken masks", f"{mask}: {result}")
                    continue
                mode, size, values, counts = result
                if not broken and picture.size != size:
                    assert picture.size is not None
                    notes.error(
                        "masks of another size than their image",
                        f"{mask} is {size[1]} x {size[0]}, its image {picture.size[1]} x {picture.size[0]}",
                    )
                if mode == "P":
                    notes.warning("palette masks (their indices are read, not their colours)", mask)
                if classes and (wrong := [v for v in values.tolist() if len(classes) < v != IGNORE]):
                    notes.error(f"mask values outside the {len(classes)} classes", f"{mask}: {wrong[:5]}")
                if set(values.tolist()) <= {0, IGNORE}:
                    notes.warning("masks that are all ignore", mask)
                inside = values <= IGNORE
                used[values[inside]] += counts[inside]
        for mask in sorted(set(folder.rglob("*.png")) - set(masks)):
            notes.warning("masks without an image", mask)
        for index, name in enumerate(classes, start=1):
            if not used[index]:
                notes.warning("classes without a pixel in a split", f"{split.name}: {name}")
        notes.count("images", len(files))
        notes.count("labelled pixels", int(used[1:IGNORE].sum()))
        notes.count("ignored pixels", int(used[0] + used[IGNORE]))
    _note_copies(notes, splits)
    return report


def _read_mask(path: Path) -> str | tuple[str, tuple[int, ...], np.ndarray, np.ndarray]:
    """Mode, size, values and their counts, or what is wrong."""
    if not path.is_file():
        return MISSING
    try:
        indices = read_index_mask(path)
        with PILImage.open(path) as file:
            mode = file.mode
    except (OSError, ValueError) as error:
        return str(error)
    return mode, indices.shape, *np.unique(indices, return_counts=True)


# Class folders


def _folders(path: Path) -> list[Path]:
    return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))


def _images_in(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.rglob("*")) if file.suffix.lower() in IMAGE_SUFFIXES]


def _class_folders(path: Path) -> list[Path]:
    return [
        folder for folder in _folders(path) if any(file.suffix.lower() in IMAGE_SUFFIXES for file in folder.iterdir())
    ]


def _examine_class_folders(path: Path, examples: int) -> Report:
    report = Report(path, "class folders")
    notes = _Notes(report, examples)
    roots = [folder for folder in _folders(path) if _class_folders(folder)] or [path]
    pictures: dict[str, list[_Picture]] = {}
    for root in roots:
        pictures[root.name] = list(_read_pictures(_images_in(root)))
        for picture in pictures[root.name]:
            _note_broken(notes, picture)
        for folder in _folders(root):
            if not _images_in(folder):
                notes.error("classes without an image", folder)
        notes.count("images", len(pictures[root.name]))
        notes.count(f"classes in {root.name}", len(_folders(root)))
    names = {root: {folder.name for folder in _folders(root)} for root in roots}
    for root in roots[1:]:
        for name in sorted(names[root] ^ names[roots[0]]):
            notes.error(
                "classes that not every split has", f"{name}: in {root if name in names[root] else roots[0]} only"
            )
    _note_copies(notes, pictures)
    return report
