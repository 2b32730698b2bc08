"""Objects: COCO's JSON in every layout, YOLO and Pascal VOC."""

from collections import Counter
from pathlib import Path
from typing import Any

import torch

from litevit.data import voc, yolo
from litevit.data.coco_entries import (
    ANNOTATION,
    CATEGORY,
    IMAGE,
    as_flag,
    box_problem,
    field_problem,
    group_headers,
    has_mask,
    link_images,
    mend_types,
    object_area,
    read_json,
)
from litevit.data.coco_masks import decode_masks, segmentation_to_rle
from litevit.data.doctor.pictures import Album, note_repeated, note_turned, turn_of
from litevit.data.doctor.report import Notes
from litevit.data.images import means_upright, turn_boxes
from litevit.data.layouts import ALL, Layout, Part, find_image

DETECTIONS = 100  # that the published detectors give for an image, and that COCO's AP counts
SHOWN = 6  # pictures on the page, of each split
LISTS = ("images", "annotations", "categories")
Content = dict[str, Any]


def examine(notes: Notes, album: Album, layout: Layout) -> None:
    contents: dict[str, Content] = {}
    for split, part in layout.parts.items():
        content = read_part(notes, layout, part)
        if content is not None:
            examine_images(notes, album, split, part, content)
            _examine_objects(notes, split, part, content)
            contents[split] = content
    notes.report.counted = "objects"
    note_splits(notes, layout)
    compare_splits(notes, layout, contents, strict=False)


def read_part(notes: Notes, layout: Layout, part: Part) -> Content | None:
    """The content of a part with its types mended; what is unreadable is noted."""
    try:
        if layout.kind == "yolo":
            content = yolo.read(layout, part, on_problem=lambda text: notes.error("unreadable labels", text))
        elif layout.kind == "voc":

            def note(text: str) -> None:
                notes.error("unreadable annotation files", text)

            zero = voc.counts_from_zero(layout)
            content = voc.read(layout, part, voc.class_names(layout), from_zero=zero, on_problem=note)
        else:
            content = read_json(part.annotations, needs=LISTS, lenient=True)
    except (ValueError, OSError) as error:
        notes.error("unreadable annotation files", error)
        return None
    mend_all(notes, part.annotations, content)
    return content


def mend_all(notes: Notes, file: Path, content: Content) -> None:
    for key in LISTS:
        for entry in content[key]:
            for name, before, after in mend_types(entry):
                where = f"{file.name}: {name} {before!r} of {key} entry {entry.get('id')!r} is read as {after!r}"
                notes.warning("values of another type (read as what they mean)", where)
    ids = {image.get("id") for image in content["images"] if field_problem(image, {"id": (int, str)}) is None}
    link_images(content["annotations"], ids)


def examine_images(notes: Notes, album: Album, split: str, part: Part, content: Content) -> None:
    """Leaves in `content["images"]` what can be used, each with its file as `path`."""
    file, records = part.annotations, []
    for record in content["images"]:
        problem = field_problem(record, {"id": (int, str), "file_name": str})
        if problem is None:
            record["path"] = find_image(part.images, record["file_name"])
            records.append(record)
        else:
            notes.error("images without id, file_name, height or width", f"{file}: {problem} in {record}")
    if not content["images"]:
        notes.error("annotation files without images", file)
    files: dict[Any, set[str]] = {}
    for record in records:
        files.setdefault(record["id"], set()).add(record["file_name"])
    for image_id, names in files.items():
        if len(names) > 1:
            shown = f"{file}: {image_id!r} is the id of {', '.join(sorted(names)[:3])}"
            notes.error("image ids used twice", shown)
    whole = [(record["id"], record["file_name"]) for record in records]
    note_repeated(notes, "image files listed twice", file, (name for _, name in dict.fromkeys(whole)), "error")
    note_repeated(notes, "image entries repeated (read once)", file, whole, "warning")
    pictures = album.look_at(split, [record["path"] for record in records])
    usable = []
    stated_sizes = [(record.get("height"), record.get("width")) for record in records]
    by_size = means_upright((p.header, size) for p, size in zip(pictures, stated_sizes) if p.header is not None)
    squares = content.get("upright") is True or by_size
    for record, picture in zip(records, pictures):
        if not (record.get("height") and record.get("width")) and picture.header is not None:
            record["height"], record["width"] = picture.header.upright_size
            notes.warning("images without a size (read from the file)", f"{file.name}: {record['file_name']}")
        if problem := field_problem(record, IMAGE):
            notes.error("images without id, file_name, height or width", f"{file}: {problem} in {record}")
            continue
        usable.append(record)
        stated = (record["height"], record["width"])
        record["turn"] = turn_of(picture.header, stated, squares) if picture.header else 1
        if note_turned(notes, picture, stated, "annotations", squares):
            assert picture.size is not None
            notes.error(
                "images of another size than the annotations say",
                f"{picture.path} is {picture.size[1]} x {picture.size[0]}, {file.name} says {stated[1]} x {stated[0]}",
                picture.path,
            )
    content["images"] = usable


def upright(image: Content, box: Any) -> Any:
    """A box as it lies in the upright picture, for the page; None: it is none."""
    if box_problem(box, 1, 1) in ("not four numbers", "not finite"):
        return None
    x, y, w, h = box
    corners = torch.tensor([[x, y, x + w, y + h]], dtype=torch.float64)
    x1, y1, x2, y2 = turn_boxes(corners, image["turn"], (image["height"], image["width"]))[0].tolist()
    return (x1, y1, x2 - x1, y2 - y1)


def examine_categories(notes: Notes, file: Path, content: Content, used: set[Any]) -> dict[Any, Content]:
    known = []
    for category in content["categories"]:
        if problem := field_problem(category, CATEGORY):
            notes.error("categories without id, name", f"{file}: {problem} in {category}")
        else:
            known.append(category)
    unusable = len(known) < len(content["categories"])
    headers = group_headers(known, used)
    for category in known:
        if category["id"] in headers:
            notes.warning("categories that only name a group (left out)", f"{file.name}: {category['name']}")
    known = [category for category in known if category["id"] not in headers]
    if not known and not unusable:
        notes.error("annotation files without categories", file)
    note_repeated(notes, "category ids used twice", file, (category["id"] for category in known), "error")
    note_repeated(notes, "category names used twice", file, (category["name"] for category in known), "warning")
    content["categories"] = known
    return {category["id"]: category for category in known}


def _examine_objects(notes: Notes, split: str, part: Part, content: Content) -> None:
    file, annotations = part.annotations, content["annotations"]
    images = {image["id"]: image for image in content["images"]}
    used_ids = {a.get("category_id") for a in annotations if isinstance(a.get("category_id"), int | str)}
    in_words = {c["id"] for c in content["categories"] if isinstance(c, dict) and isinstance(c.get("id"), str)}
    categories = examine_categories(notes, file, content, used_ids)
    note_repeated(notes, "annotation ids used twice", file, (a["id"] for a in annotations if "id" in a), "error")
    used: Counter[Any] = Counter()
    per_image: Counter[Any] = Counter()
    seen: dict[tuple[Any, ...], Any] = {}
    lists: dict[Any, list[Any]] = {}
    masked = boxed = 0
    unmasked = []
    for annotation in annotations:
        where = f"{file.name}: annotation {annotation.get('id')}"
        if unusable := field_problem(annotation, ANNOTATION):
            notes.error("annotations without image_id, category_id or bbox", f"{where}: {unusable}")
            continue
        image = images.get(annotation["image_id"])
        if annotation["category_id"] not in categories and annotation["category_id"] not in in_words:
            notes.error("annotations of a category that is not listed", f"{where}: {annotation['category_id']}")
        if image is None:
            notes.error("annotations of an image that is not listed", f"{where}: image {annotation['image_id']}")
            continue
        where += f" of {image['file_name']}"
        path, seen_box = image["path"], upright(image, annotation["bbox"])
        flag = as_flag(annotation.get("iscrowd"))
        if flag is None:
            notes.error("iscrowd that is neither 0 nor 1", f"{where}: {annotation['iscrowd']!r}", path)
        height, width = image["height"], image["width"]
        used[annotation["category_id"]] += 1
        per_image[annotation["image_id"]] += 1
        box = annotation["bbox"]
        problem = box_problem(box, height, width)
        if problem in ("not four numbers", "not finite", "negative size"):
            notes.error(f"boxes: {problem}", f"{where}: {box}", path)
        elif problem:
            notes.warning(f"boxes: {problem} (left out of training)", f"{where}: {box}", path, seen_box)
        elif box[0] < -1 or box[1] < -1 or box[0] + box[2] > width + 1 or box[1] + box[3] > height + 1:
            said = f"{where}: {box} in {width} x {height}"
            notes.warning("boxes: partly outside the image (clipped)", said, path, seen_box)
        if problem is None and not flag:
            area = object_area(annotation)
            notes.report.areas.append(area)
            if area <= 0:
                notes.warning("annotations without area (left out of training)", where, path, seen_box)
            key = (annotation["image_id"], annotation["category_id"], *box)
            if key in seen:
                said = f"{where}: the same box as annotation {seen[key]}"
                notes.warning("objects annotated twice", said, path, seen_box)
            seen[key] = annotation.get("id")
            name = categories.get(annotation["category_id"], {}).get("name", "?")
            lists.setdefault(annotation["image_id"], []).append((name, seen_box))
        if annotation.get("segmentation"):
            _examine_mask(notes, where, annotation, height, width, path)
        if not flag:
            masked += has_mask(annotation)
            boxed += not has_mask(annotation)
            if not has_mask(annotation) and not annotation.get("segmentation"):
                unmasked.append((where, path, seen_box))
    _note_masks(notes, file, masked, unmasked)
    for image_id, count in per_image.items():
        if count > DETECTIONS:
            said = f"{images[image_id]['file_name']}: {count}"
            notes.warning(
                f"images with more than {DETECTIONS} objects (--model.overrides.max_detections; COCO's AP counts 100)",
                said, images[image_id]["path"],
            )  # fmt: skip
    notes.count("annotations", len(annotations))
    notes.count("crowds", sum(bool(as_flag(a.get("iscrowd"))) for a in annotations))
    notes.count("images without objects", len(images) - len(per_image))
    if images and not lists:
        notes.error("splits without an object to learn", f"{split}: {file}")
    note_unused(notes, file, categories, used)
    names = {category_id: category["name"] for category_id, category in categories.items()}
    notes.report.classes[split] = {name: used[category_id] for category_id, name in names.items()}
    shown = [image_id for image_id in images if image_id in lists][:SHOWN]
    notes.report.shown += [(images[image_id]["path"], lists[image_id]) for image_id in shown]


def _note_masks(notes: Notes, file: Path, masked: int, unmasked: list[tuple[str, Path, Any]]) -> None:
    """Boxes alone are a set for detectors; some objects without a mask among others stop a mask model."""
    if not unmasked:
        return
    if not masked:
        said = f"{file.name}: {len(unmasked)} objects: train with --model.name retinanet --data.masks False"
        notes.warning("boxes without any mask (no set for Mask R-CNN)", said)
        return
    for where, path, box in unmasked:
        notes.error("annotations without a mask", where, path, box)


def note_unused(notes: Notes, file: Path, categories: dict[Any, Content], used: Counter[Any]) -> None:
    for category_id, category in categories.items():
        if not used[category_id]:
            notes.warning("categories without an object in a split", f"{file.name}: {category['name']}")


def _examine_mask(notes: Notes, where: str, annotation: Content, height: int, width: int, path: Path) -> None:
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, list):
        for polygon in segmentation:
            if isinstance(polygon, list) and len(polygon) < 6:
                said = f"{where}: {polygon}"
                notes.warning("polygons of fewer than three points (left out)", said, path)
    try:
        rle = segmentation_to_rle(segmentation, height, width)
        if isinstance(segmentation, dict):
            decode_masks([rle], height, width)  # compressed run lengths are read by nothing else
    except ValueError as error:
        notes.error("masks that cannot be read", f"{where}: {error}", path)
        return
    if rle is None:
        notes.error("annotations whose polygons enclose nothing", where, path)


# -------------------------------------------------------------------- splits


def note_splits(notes: Notes, layout: Layout) -> None:
    """What a recipe trains on, and what it evaluates on."""
    kind = "panoptic" if layout.task == "panoptic" else "instances"
    if layout.kind == "coco" and layout.root.is_dir():
        lost = [s for s in ("train", "val") if s not in layout.parts and (layout.root / f"{s}2017").is_dir()]
        for split in lost:  # COCO's own places: the images of a split are there, its file is not
            notes.error("missing annotation files", layout.root / "annotations" / f"{kind}_{split}2017.json")
        if not lost:
            note_missing_splits(notes, layout)
    elif layout.root.is_dir():
        note_missing_splits(notes, layout)


def note_missing_splits(notes: Notes, layout: Layout) -> None:
    if not {"train", ALL} & layout.parts.keys():
        notes.error("no split to train on", layout)
    elif not {"val", "test"} & layout.parts.keys():
        notes.warning("no split to evaluate on (--data.hold_out holds a share of the images out)", layout)


def compare_splits(notes: Notes, layout: Layout, contents: dict[str, Content], *, strict: bool) -> None:
    """Args: strict: panoptic labels follow the order of all categories."""
    if len(contents) < 2:
        return
    first, *others = contents
    for other in others:
        names = {split: [c["name"] for c in contents[split]["categories"]] for split in (first, other)}
        ids = {split: [c["id"] for c in contents[split]["categories"]] for split in (first, other)}
        files = f"{layout.parts[first].annotations} and {layout.parts[other].annotations}"
        strange = set(names[other]) - set(names[first])
        if strange or (strict and names[first] != names[other]):
            some = ", ".join(sorted(strange)[:5]) or "another order"
            notes.error("categories differ between the splits", f"{files}: {some}")
        elif names[first] != names[other] or ids[first] != ids[other]:
            notes.warning("categories have other ids, or some are missing, in a split (matched by name)", files)
    # Exporters number every split from 0: ids alone tell nothing.
    listed = {s: {(i["id"], i["file_name"]) for i in content["images"]} for s, content in contents.items()}
    for number, split in enumerate(contents):
        for other in list(contents)[number + 1 :]:
            if layout.parts[split].images == layout.parts[other].images:
                for image_id, name in sorted(listed[split] & listed[other], key=str):
                    said = (
                        f"{image_id}, {name} in {layout.parts[split].annotations} and {layout.parts[other].annotations}"
                    )
                    notes.error("the same image id and file in two splits", said)
