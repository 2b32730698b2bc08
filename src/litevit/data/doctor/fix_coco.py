"""COCO annotations of a mended copy; see `litevit.data.doctor.fix`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as PILImage

from litevit.data.ade20k import count_values
from litevit.data.coco_entries import (
    ANNOTATION,
    as_flag,
    box_problem,
    field_problem,
    group_headers,
    link_images,
    mend_types,
    read_json,
)
from litevit.data.coco_masks import (
    decode_masks,
    encode_masks,
    read_panoptic_png,
    segmentation_to_rle,
    write_panoptic_png,
)
from litevit.data.coco_panoptic import SEGMENT, fill_isthing
from litevit.data.doctor.fix_pictures import Mended, copy_picture, safe_name
from litevit.data.doctor.objects import LISTS, Content, read_part
from litevit.data.doctor.pictures import turn_of
from litevit.data.doctor.report import Notes, Report
from litevit.data.images import decode, means_upright, turn_boxes, turn_pixels
from litevit.data.layouts import ALL, Layout, find_image
from litevit.files import write_json

SMALL = 1e-6


def mend_coco(mended: Mended, layout: Layout, out: Path, *, panoptic: bool) -> None:
    categories: list[Content] | None = None
    for split, part in layout.parts.items():
        quiet = Notes(Report(layout.root, ""), 0)
        if panoptic:
            content: Content | None = read_json(part.annotations, needs=LISTS, lenient=True)
            assert content is not None
            _mend_types(mended, part.annotations, content)
            said = fill_isthing(content, None if categories is None else _things(categories))
            for text in said:
                mended.add("isthing written", f"{part.annotations}: {text}")
        elif layout.kind == "coco":
            content = read_json(part.annotations, needs=LISTS, lenient=True)
            _mend_types(mended, part.annotations, content)
        else:
            content = read_part(quiet, layout, part)
            for finding in quiet.report.findings:
                for _ in range(finding.count):
                    mended.add(f"left out: {finding.problem}", part.annotations)
            mended.add(f"{layout.name} written as COCO JSON", part.annotations)
        if content is None:
            continue
        content["categories"], id_of = _mend_categories(mended, part.annotations, content, categories)
        categories = categories or content["categories"]
        word = "train" if split == ALL and len(layout.parts) > 1 else split
        folder = out / "images" / word
        turns = _mend_images(mended, part.annotations, part.images, folder, content)
        kind = "panoptic" if panoptic else "instances"
        target = out / "annotations" / (f"{kind}.json" if split == ALL else f"{kind}_{word}.json")
        if panoptic:
            _mend_segments(mended, part.annotations, content, id_of, turns, target)
        else:
            _mend_objects(mended, part.annotations, content, id_of, turns)
        for image in content["images"]:
            image.pop("path", None)
        write_json(target, {key: content[key] for key in (*LISTS, "info", "licenses") if key in content})


def _things(categories: Iterable[Content]) -> set[str]:
    return {c["name"] for c in categories if as_flag(c.get("isthing"))}


def _mend_types(mended: Mended, file: Path, content: Content) -> None:
    entries = [entry for key in LISTS for entry in content[key]]
    entries += [s for a in content["annotations"] for s in a.get("segments_info") or ()]
    for entry in entries:
        for name, before, after in mend_types(entry):
            mended.add(f"types: {name}", f"{file}: {before!r} is {after!r}")
        for name in ("iscrowd", "isthing"):
            if isinstance(entry, dict) and isinstance(entry.get(name), bool):
                entry[name] = int(entry[name])
    link_images(content["annotations"], {i["id"] for i in content["images"] if isinstance(i.get("id"), int | str)})


def _mend_categories(
    mended: Mended, file: Path, content: Content, first: list[Content] | None
) -> tuple[list[Content], dict[Any, Any]]:
    """The categories with the ids of the training split, and the new id of each old one."""
    known = [c for c in content["categories"] if field_problem(c, {"id": int, "name": str}) is None]
    used = {a.get("category_id") for a in content["annotations"] if isinstance(a.get("category_id"), int | str)}
    headers = group_headers(known, used)
    for category in known:
        if category["id"] in headers:
            mended.add("categories left out: only the name of a group", f"{file}: {category['name']}")
    known = list({c["id"]: c for c in known if c["id"] not in headers}.values())
    if first is None:
        return known, {c["id"]: c["id"] for c in known}
    by_name = {c["name"]: c["id"] for c in first}
    id_of = {c["id"]: by_name[c["name"]] for c in known if c["name"] in by_name}
    for before, after in id_of.items():
        if before != after:
            mended.add("categories with the ids of the training split", f"{file}: {before} is {after}")
    if [c for c in known if c["name"] not in by_name]:  # nobody can say what they are: as they were
        return known, {c["id"]: c["id"] for c in known}
    return first, id_of


def _mend_images(mended: Mended, file: Path, source: Path, folder: Path, content: Content) -> dict[Any, int]:
    """Copies the pictures; leaves in `content` those that are there. Returns: the turn of each image's annotations."""
    names: dict[Any, set[str]] = {}
    for image in content["images"]:
        if field_problem(image, {"id": (int, str), "file_name": str}) is None:
            names.setdefault(image["id"], set()).add(image["file_name"])
    kept: list[Content] = []
    turns: dict[Any, int] = {}
    listed = [i for i in content["images"] if field_problem(i, {"id": (int, str), "file_name": str}) is None]
    sizes = ((find_image(source, i["file_name"]), (i.get("height"), i.get("width"))) for i in listed)
    squares = content.get("upright") is True or means_upright(sizes)
    for image in content["images"]:
        if field_problem(image, {"id": (int, str), "file_name": str}) is not None:
            mended.add("images left out: no id or file_name", f"{file}: {image}")
            continue
        if len(names[image["id"]]) > 1:
            mended.add("images left out: one id for several files", f"{file}: {image['id']!r}, {image['file_name']}")
            continue
        if image["id"] in turns:
            mended.add("image entries left out: repeated", f"{file}: {image['file_name']}")
            continue
        path = find_image(source, image["file_name"])
        name = safe_name(image["file_name"], path, source)
        copied = copy_picture(mended, path, folder / name)
        if copied is None:
            continue
        target, turn = copied
        with PILImage.open(target) as picture:
            width, height = picture.size
        header, *_ = decode(path.read_bytes(), name=str(path))
        stated = (image.get("height"), image.get("width"))
        if not all(stated):
            mended.add("sizes of images written", f"{file}: {image['file_name']}")
            stated = header.upright_size
        if stated not in (header.size, header.upright_size):
            mended.add("images left out: another size than the annotations say", path)
            continue
        turns[image["id"]] = turn_of(header, stated, squares) if turn != 1 else 1
        image["stored"] = header.size
        image |= {"file_name": target.relative_to(folder).as_posix(), "height": height, "width": width}
        kept.append(image)
    content["images"] = kept
    return turns


def _mend_objects(mended: Mended, file: Path, content: Content, id_of: dict[Any, Any], turns: dict[Any, int]) -> None:
    images = {image["id"]: image for image in content["images"]}
    kept: list[Content] = []
    ids: set[Any] = set()
    largest = max((i for a in content["annotations"] if isinstance(i := a.get("id"), int)), default=0)
    for annotation in content["annotations"]:
        where = f"{file}: annotation {annotation.get('id')}"
        if problem := field_problem(annotation, ANNOTATION):
            mended.add("annotations left out: fields are missing", f"{where}: {problem}")
            continue
        if annotation["image_id"] not in images or annotation["category_id"] not in id_of:
            mended.add("annotations left out: image or category is not there", where)
            continue
        image = images[annotation["image_id"]]
        stored, turn = image["stored"], turns[annotation["image_id"]]
        size = stored if turn != 1 else (image["height"], image["width"])
        if problem := box_problem(annotation["bbox"], *size):
            mended.add(f"annotations left out: box {problem}", f"{where}: {annotation['bbox']}")
            continue
        annotation["category_id"] = id_of[annotation["category_id"]]
        _clip(mended, where, annotation, size)
        if turn != 1:
            _turn(mended, where, annotation, turn, stored)
        if annotation.get("id") in ids or not isinstance(annotation.get("id"), int):
            mended.add("annotation ids renumbered", where)
            largest += 1
            annotation["id"] = largest
        ids.add(annotation["id"])
        annotation.setdefault("iscrowd", 0)
        if annotation.get("area") is None:
            annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
        kept.append(annotation)
    for image in content["images"]:
        image.pop("stored", None)
    content["annotations"] = kept


def _clip(mended: Mended, where: str, annotation: Content, size: tuple[int, int]) -> None:
    x, y, w, h = annotation["bbox"]
    x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + w, size[1]), min(y + h, size[0])
    if (x1 - x, y1 - y) != (0, 0) or x + w - x2 > SMALL or y + h - y2 > SMALL:
        mended.add("boxes clipped to the picture", f"{where}: {annotation['bbox']}")
        annotation["bbox"] = [x1, y1, x2 - x1, y2 - y1]


def _turn(mended: Mended, where: str, annotation: Content, turn: int, stored: tuple[int, int]) -> None:
    """Box and mask of the stored pixels, in the upright picture."""
    x, y, w, h = annotation["bbox"]
    x1, y1, x2, y2 = turn_boxes(torch.tensor([[x, y, x + w, y + h]], dtype=torch.float64), turn, stored)[0].tolist()
    annotation["bbox"] = [x1, y1, x2 - x1, y2 - y1]
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, list):
        whole = [polygon for polygon in segmentation if len(polygon) % 2 == 0]
        polygons = [np.array(polygon, dtype=float).reshape(-1, 2) for polygon in whole]
        turned = [
            turn_boxes(torch.from_numpy(np.concatenate([points, points], 1)), turn, stored)[:, :2]
            for points in polygons
        ]
        annotation["segmentation"] = [points.flatten().tolist() for points in turned]
    elif isinstance(segmentation, dict):
        mask = decode_masks([segmentation_to_rle(segmentation, *stored)], *stored)
        annotation["segmentation"] = encode_masks(turn_pixels(mask, turn))[0]
    mended.add("annotations turned with their picture", where)


def _mend_segments(
    mended: Mended, file: Path, content: Content, id_of: dict[Any, Any], turns: dict[Any, int], target: Path
) -> None:
    images = {image["id"]: image for image in content["images"]}
    kept: list[Content] = []
    for annotation in content["annotations"]:
        where = f"{file}: {annotation.get('file_name')}"
        if annotation.get("image_id") not in images or not isinstance(annotation.get("segments_info"), list):
            mended.add("annotations left out: image is not there", where)
            continue
        image = images[annotation["image_id"]]
        segments = [s for s in annotation["segments_info"] if field_problem(s, SEGMENT) is None]
        segments = [s for s in segments if s["category_id"] in id_of]
        if not isinstance(annotation.get("file_name"), str):
            mended.add("annotations left out: no file_name", where)
            continue
        source = file.with_suffix("") / annotation["file_name"]
        try:
            ids = read_panoptic_png(source, listed=[s["id"] for s in segments])
        except (OSError, ValueError) as error:
            mended.add("annotations left out: map is missing or broken", error)
            continue
        turn = turns[annotation["image_id"]]
        if turn != 1:
            ids = turn_pixels(torch.from_numpy(ids), turn).contiguous().numpy()
            mended.add("annotations turned with their picture", where)
        if ids.shape != (image["height"], image["width"]):
            mended.add("annotations left out: map of another size", source)
            continue
        with PILImage.open(source) as picture:
            if picture.mode != "RGB":
                mended.add("panoptic maps written as RGB", source)
        painted = count_values(ids)
        described = {s["id"] for s in segments}
        for segment_id in painted.keys() - described - {0}:
            mended.add("segments without a description are void", f"{source}: {segment_id}")
            ids = np.where(ids == segment_id, 0, ids)
        listed = []
        for segment in segments:
            if segment["id"] not in painted:
                mended.add("segments left out: not in the map", f"{source}: {segment['id']}")
                continue
            rows, columns = np.nonzero(ids == segment["id"])
            box = [int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]
            fresh = {"category_id": id_of[segment["category_id"]], "area": painted[segment["id"]], "bbox": box}
            if segment.get("area") != fresh["area"]:
                mended.add("areas of segments counted", f"{source}: {segment['id']}")
            listed.append(segment | fresh | {"iscrowd": int(bool(as_flag(segment.get("iscrowd"))))})
        name = Path(annotation["file_name"]).with_suffix(".png").name
        write_panoptic_png(target.with_suffix("") / name, ids)
        kept.append(annotation | {"file_name": name, "segments_info": listed})
    content["annotations"] = kept
    with_map = {annotation["image_id"] for annotation in kept}
    content["images"] = [image for image in content["images"] if image["id"] in with_map]
    for image in content["images"]:
        image.pop("stored", None)


# --------------------------------------------------------------------- masks
