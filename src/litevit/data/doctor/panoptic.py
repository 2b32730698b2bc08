"""COCO's panoptic JSON and its maps of segment ids."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from litevit.data.coco_entries import as_flag, box_problem, field_problem, mend_types, read_json
from litevit.data.coco_masks import read_panoptic_png
from litevit.data.coco_panoptic import PANOPTIC_ANNOTATION, SEGMENT, fill_isthing
from litevit.data.doctor.objects import (
    LISTS,
    SHOWN,
    Content,
    compare_splits,
    examine_categories,
    examine_images,
    mend_all,
    note_splits,
    note_unused,
    upright,
)
from litevit.data.doctor.pictures import Album, in_threads, note_repeated
from litevit.data.doctor.report import Notes, Severity
from litevit.data.layouts import Layout, Part


def examine(notes: Notes, album: Album, layout: Layout) -> None:
    contents: dict[str, Content] = {}
    for split, part in layout.parts.items():
        try:
            content = read_json(part.annotations, needs=LISTS, lenient=True)
        except (ValueError, OSError) as error:
            notes.error("unreadable annotation files", error)
            continue
        mend_all(notes, part.annotations, content)
        examine_images(notes, album, split, part, content)
        _examine_segments(notes, split, part, content)
        contents[split] = content
    if notes.report.counted == "images":
        notes.report.counted = "segments"
    note_splits(notes, layout)
    compare_splits(notes, layout, contents, strict=True)


def _examine_segments(notes: Notes, split: str, part: Part, content: Content) -> None:
    file, maps = part.annotations, part.annotations.with_suffix("")
    images = {image["id"]: image for image in content["images"]}
    annotations = content["annotations"]
    described = set()
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
        usable.append(annotation)
    segments_of = {id(a): _usable_segments(notes, file, a) for a in usable}
    used_ids = {s["category_id"] for segments in segments_of.values() for s in segments}
    categories = examine_categories(notes, file, content, used_ids)
    for category in content["categories"]:
        if category.get("isthing") is not None and as_flag(category["isthing"]) is None:
            said = f"{file.name}: {category['isthing']!r} of {category['name']}"
            notes.error("isthing that is neither 0 nor 1", said)
    for said in fill_isthing({"categories": content["categories"], "annotations": usable}):
        notes.warning("categories without isthing", f"{file.name}: {said}")
    used: Counter[Any] = Counter()
    for annotation in usable:
        where, image = f"{file.name}: {annotation['file_name']}", images[annotation["image_id"]]
        segments = segments_of[id(annotation)]
        note_repeated(notes, "segment ids used twice in an image", where, (s["id"] for s in segments), "error")
        for segment in segments:
            category_id = segment["category_id"]
            used[category_id] += 1
            if category_id not in categories:
                notes.error("segments of a category that is not listed", f"{where}: {category_id}")
            if problem := box_problem(segment.get("bbox"), image["height"], image["width"]):
                severity: Severity = "warning" if problem == "narrower than one pixel" else "error"
                notes.add(severity, f"segment boxes: {problem}", f"{where}: {segment}", image["path"])

    def check(annotation: Content) -> list[tuple[Severity, str, str, Path]]:
        return _check_map(maps, annotation, segments_of[id(annotation)], images[annotation["image_id"]])

    for found in in_threads(check, usable):
        for severity, problem, example, path in found:
            notes.add(severity, problem, example, path)
    for image_id in sorted(images.keys() - described, key=str):
        notes.error("images without a panoptic annotation", f"{file.name}: {images[image_id]['file_name']}")
    notes.count("segments", sum(used.values()))
    note_unused(notes, file, categories, used)
    if split not in notes.report.classes:
        notes.report.classes[split] = {c["name"]: used[category_id] for category_id, c in categories.items()}
        for annotation in usable[:SHOWN]:
            image = images[annotation["image_id"]]
            names = [
                (categories.get(s["category_id"], {}).get("name", "?"), box)
                for s in segments_of[id(annotation)]
                if (box := upright(image, s.get("bbox"))) is not None
            ]
            notes.report.shown.append((image["path"], names))


def _usable_segments(notes: Notes, file: Path, annotation: Content) -> list[Content]:
    segments = []
    for segment in annotation["segments_info"]:
        where = f"{file.name}: {annotation['file_name']}"
        for name, before, after in mend_types(segment):
            said = f"{where}: {name} {before!r} is read as {after!r}"
            notes.warning("values of another type (read as what they mean)", said)
        if unusable := field_problem(segment, SEGMENT):
            notes.error("segments without id or category_id", f"{where}: {unusable}")
        else:
            segments.append(segment)
    return segments


def _check_map(
    maps: Path, annotation: Content, segments: list[Content], image: Content
) -> list[tuple[Severity, str, str, Path]]:
    """Everything about one map, without touching the notes: this runs in threads."""
    path = maps / annotation["file_name"]
    if not path.is_file():
        return [("error", "missing panoptic maps", str(path), image["path"])]
    listed = {segment["id"]: segment for segment in segments}
    try:
        ids = read_panoptic_png(path, listed=listed.keys())
    except (OSError, ValueError) as error:
        return [("error", "broken panoptic maps", str(error), image["path"])]
    found: list[tuple[Severity, str, str, Path]] = []
    if ids.shape != (image["height"], image["width"]):
        said = f"{path} is {ids.shape[1]} x {ids.shape[0]}, its image {image['width']} x {image['height']}"
        found.append(("error", "panoptic maps of another size than their image", said, path))
    painted = dict(zip(*(v.tolist() for v in np.unique(ids, return_counts=True))))
    painted.pop(0, None)
    for segment_id in sorted(painted.keys() - listed.keys()):
        found.append(("error", "PNG ids that the JSON does not list", f"{path}: {segment_id}", path))
    for segment_id in sorted(listed.keys() - painted.keys()):
        found.append(("error", "JSON segments that the PNG does not have", f"{path}: {segment_id}", path))
    for segment_id in sorted(listed.keys() & painted.keys()):
        area = listed[segment_id].get("area")
        if area != painted[segment_id]:
            said = f"{path}: {segment_id}: {area} in the JSON, {painted[segment_id]} in the PNG"
            found.append(("warning", "segments with another area than the PNG's", said, path))
    return found
