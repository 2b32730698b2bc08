"""Entries of COCO's files: which fields they need, the types that tools give them instead, and what cannot be meant."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from litevit.data.images import means_upright, read_header
from litevit.data.layouts import find_image
from litevit.files import parse_json

Fields = Mapping[str, type | tuple[type, ...]]
IMAGE: Fields = {"id": (int, str), "file_name": str, "height": int, "width": int}
NAMED: Fields = {"id": (int, str), "file_name": str}
LARGEST_SIDE = 1_000_000  # pixels of an image
LONGEST_NAME = 1000  # characters
CATEGORY: Fields = {"id": int, "name": str}
ANNOTATION: Fields = {"image_id": (int, str), "category_id": (int, str), "bbox": object}
KINDS: dict[Any, str] = {
    int: "a whole number",
    str: "text",
    list: "a list",
    (int, str): "a whole number or text",
    (int, float): "a number",
}


def field_problem(entry: Any, fields: Fields) -> str | None:
    """What is wrong with an entry of an annotation file: a field that it lacks or that has another type; or None."""
    if not isinstance(entry, dict):
        return f"{entry!r:.60} in place of an object"
    for name, kind in fields.items():
        if name not in entry:
            return f"no {name!r}"
        if not isinstance(entry[name], kind):
            return f"{entry[name]!r:.60} for {name!r}, which must be {KINDS[kind]}"
        if name == "file_name" and len(entry[name]) > LONGEST_NAME:
            return f"a name of {len(entry[name]):,} characters for {name!r}"
        if name in ("height", "width") and not 0 < entry[name] <= LARGEST_SIDE:
            return f"{entry[name]!r:.60} for {name!r}, which must be 1 to {LARGEST_SIDE:,}"
    area = entry.get("area")
    if not isinstance(area, int | float | None) or (area is not None and abs(area) > 1e300):
        return f"{area!r:.60} for 'area'"
    return None


def check_entries(file: Path, entries: Sequence[Any], fields: Fields) -> None:
    for entry in entries:
        if problem := field_problem(entry, fields):
            raise ValueError(f"{file} is not in COCO's format: an entry has {problem}")


FLAGS = {0: False, 1: True, None: False, "": False, "0": False, "1": True, "false": False, "true": True}


def as_flag(value: Any) -> bool | None:
    """`iscrowd`, `isthing`: numbers, booleans, or either as text; None: something else."""
    try:
        return FLAGS.get(value.strip().lower() if isinstance(value, str) else value)
    except TypeError:  # a list
        return None


def as_number(value: Any) -> Any:
    """Text that is a number, as a number; a whole number without a point; everything else as it is."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def mend_types(entry: Any) -> list[tuple[str, Any, Any]]:
    """Gives an entry of a JSON the types it should have, in place. Returns: what it changed: field, before, after.

    Ids of categories, sizes, boxes, areas that are text or have a point (5.0); `iscrowd` and `isthing` that are text.
    Ids of images stay text where they are text: results are given under them.
    """
    changed: list[tuple[str, Any, Any]] = []
    if not isinstance(entry, dict):
        return changed
    for name in ("height", "width", "area", "category_id"):
        before = entry.get(name)
        if isinstance(before, str) or (isinstance(before, float) and name != "area"):
            after = as_number(before)
            if type(after) is not type(before):
                entry[name] = after
                changed.append((name, before, after))
    for name in ("id", "image_id"):
        before = entry.get(name)
        text = name == "id" and "file_name" not in entry and isinstance(before, str) and before.isdecimal()
        if text or (isinstance(before, float) and before.is_integer()):
            entry[name] = as_number(before)
            changed.append((name, before, entry[name]))
    for name in ("iscrowd", "isthing"):
        if name in entry and not isinstance(entry[name], bool) and entry[name] not in (0, 1):
            before, flag = entry[name], as_flag(entry[name])
            if flag is not None:
                entry[name] = int(flag)
                changed.append((name, before, int(flag)))
    box = entry.get("bbox")
    if isinstance(box, list) and any(isinstance(v, str) for v in box):
        entry["bbox"] = [as_number(v) for v in box]
        changed.append(("bbox", box, entry["bbox"]))
    return changed


def check_flags(file: Path, entries: Iterable[Mapping[str, Any]], name: str) -> None:
    for entry in entries:
        if as_flag(entry.get(name)) is None:
            raise ValueError(f"{file}: {name} must be 0 or 1, got {entry[name]!r:.60} in entry {entry.get('id')!r:.60}")


def link_images(annotations: Iterable[dict[str, Any]], ids: Collection[Any]) -> None:
    """`image_id` "5" of an image 5, and the other way round, become the image's own id."""
    for entry in annotations:
        given = entry.get("image_id")
        if isinstance(given, int | str) and given not in ids:
            other = int(given) if isinstance(given, str) and given.isdecimal() else str(given)
            if other in ids:
                entry["image_id"] = other


def unique_images(file: Path, images: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The images without exact repetitions. One id for two files: nothing says whose the annotations are."""
    seen: dict[Any, dict[str, Any]] = {}
    for image in images:
        before = seen.setdefault(image["id"], image)
        if before["file_name"] != image["file_name"]:
            raise ValueError(
                f"{file}: the image id {image['id']!r} is used by {before['file_name']} and {image['file_name']}, so "
                "nothing says whose its annotations are. Export again with an id of its own for every image "
                "(`litevit doctor --fix OUT` leaves these images out)."
            )
    return list(seen.values())


def group_headers(categories: Sequence[Mapping[str, Any]], used: Collection[Any]) -> set[Any]:
    """Ids of categories that only name a group of others: Roboflow writes one, with id 0 and without objects."""
    groups = {name for c in categories if isinstance(name := c.get("supercategory"), str)}
    return {
        c["id"]
        for c in categories
        if c["name"] in groups and c.get("supercategory") in (None, "", "none") and c["id"] not in used
    }


def has_mask(annotation: Mapping[str, Any]) -> bool:
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, list):
        return any(not isinstance(polygon, list) or len(polygon) >= 6 for polygon in segmentation)
    return bool(segmentation)


def object_area(entry: Mapping[str, Any]) -> float:
    """The entry's own area, else its box's."""
    area = entry.get("area")
    return entry["bbox"][2] * entry["bbox"][3] if area is None else area


def read_json(path: str | Path, *, needs: Sequence[str], lenient: bool = False) -> dict[str, Any]:
    """The annotation file as a dict that has the lists named in `needs`.

    Args:
        lenient: for the doctor: ids, names and lists of segments of another kind are None, to be named and left out.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"annotation file {path} does not exist")
    content = parse_json(path.read_bytes(), path)
    if not isinstance(content, dict) or any(not isinstance(content.get(key), list) for key in needs):
        found = str(sorted(content))[:200] if isinstance(content, dict) else f"a {type(content).__name__}"
        raise ValueError(f"{path} is not in COCO's format: the lists {', '.join(needs)} are needed, found {found}")
    for key in needs:
        if not all(isinstance(entry, dict) for entry in content[key]):
            raise ValueError(f"{path} is not in COCO's format: every entry of {key!r} must be an object")
    if lenient:
        for entry in [entry for key in needs for entry in content[key]]:
            _blank(entry)
            for segment in entry.get("segments_info") or ():
                _blank(segment)
    return content


def _blank(entry: Any) -> None:
    """None for what nothing can be made of: ids that are lists, numbers without end, names that are no text."""
    if not isinstance(entry, dict):
        return
    for name in ("id", "image_id", "category_id"):
        value = entry.get(name)
        if isinstance(value, list | dict) or (isinstance(value, float) and not math.isfinite(value)):
            entry[name] = None
    for name in ("file_name", "name"):
        if not isinstance(entry.get(name, ""), str):
            entry[name] = None
    if "segments_info" in entry and not isinstance(entry["segments_info"], list):
        entry["segments_info"] = None


def box_problem(box: Any, height: int, width: int) -> str | None:
    """Why an xywh box cannot be learned from, or None. The published training skips the same boxes."""
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(isinstance(v, int | float) for v in box):
        return "not four numbers"
    x, y, w, h = box
    if not all(abs(v) <= 1e300 for v in box):  # nan is not
        return "not finite"
    if w < 0 or h < 0:
        return "negative size"
    if w < 1 or h < 1:
        return "narrower than one pixel"
    if min(x + w, width) - max(x, 0) <= 0 or min(y + h, height) - max(y, 0) <= 0:
        return "outside the image"
    return None


def upright_meant(folder: Path, images: Sequence[dict[str, Any]], *, by_definition: bool = False) -> bool:
    """What the annotations mean by turned squares and half turns (`means_upright`). Reads headers until it is told.

    Args:
        images: all that the file lists, with their sizes.
        by_definition: the layout means the upright picture (YOLO).
    """
    listed = ((find_image(folder, image["file_name"]), (image["height"], image["width"])) for image in images)
    return by_definition or means_upright(listed)


def image_order(image: dict[str, Any]) -> tuple[bool, Any]:
    """Images by ascending id, numbers before names."""
    return isinstance(image["id"], str), image["id"]


def prepare(file: Path, folder: Path, content: dict[str, Any], annotation: Fields) -> None:
    """Gives all entries their types and images that state none their size, links annotations to images, checks fields.

    `all_images` keeps the images that were listed, however few are read.
    """
    for key in ("images", "categories", "annotations"):
        for entry in content[key]:
            mend_types(entry)
    check_entries(file, content["images"], NAMED)
    for image in content["images"]:
        path = find_image(folder, image["file_name"])
        if not (image.get("height") and image.get("width")) and path.is_file():
            image["height"], image["width"] = read_header(path).upright_size
    check_entries(file, content["images"], IMAGE)
    content["images"] = content["all_images"] = unique_images(file, content["images"])
    link_images(content["annotations"], {image["id"] for image in content["images"]})
    check_entries(file, content["annotations"], annotation)
