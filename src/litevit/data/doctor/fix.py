"""A mended copy of a data set: what can be mended mechanically is, the rest stays as it is.

| what | becomes |
|---|---|
| ids, sizes, boxes, areas, flags of another type | numbers, 0 and 1 |
| repeated annotation ids; image ids of several files | new ids; those images are left out: nothing says whose objects they have |
| categories with other ids in a split; one that only names a group | those of the training split; left out |
| empty boxes, boxes outside, annotations of images or categories that are not listed | left out |
| boxes partly outside | clipped |
| pictures that EXIF turns, that have 16 bits, alpha, CMYK, a palette, or another format than JPEG and PNG | upright RGB PNG, the annotations turned with them |
| missing and broken pictures | left out |
| masks of any values, colours or palettes | grey PNGs of 0..K-1, 255 ignored, with classes.json |
| YOLO, Pascal VOC | COCO JSON |

The copy is in a layout that `litevit.data.layouts` knows; the data set itself is not touched.
"""  # noqa: E501  a row of a table is one line

import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as PILImage

from litevit.data.ade20k import SegmentationFolder, count_values
from litevit.data.class_folders import ClassFolders
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
from litevit.data.dense import mask_labels
from litevit.data.doctor.objects import LISTS, Content, read_part
from litevit.data.doctor.report import Notes, Report
from litevit.data.images import ImageError, decode, read_image, turn_boxes, turn_pixels
from litevit.data.layouts import ALL, Layout, find_image, layouts_of
from litevit.data.mask_labels import IGNORE, MaskLabels, check_values, read_index_mask
from litevit.files import write_json

PLAIN = {("RGB", "JPEG"), ("L", "JPEG"), ("RGB", "PNG"), ("L", "PNG")}
SMALL = 1e-6


class Mended:
    """How often something was done, with the first example."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def add(self, what: str, example: object) -> None:
        self.done[what] += 1
        self.examples.setdefault(what, str(example))

    def rows(self) -> list[tuple[str, str, str]]:
        return [(f"{count:,}", what, self.examples[what]) for what, count in self.done.most_common()]


def mend(
    path: str | Path, out: str | Path, *, reduce_zero_label: bool | None = None, ignore_index: int = IGNORE
) -> Mended:
    """Writes the copy.

    Args:
        path: a data set, see `examine`.
        out: a folder that is not there yet, or empty.

    Returns: a table of what was done.
    """
    path, out = Path(path), Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--fix writes a new data set: {out} is there already. Give another folder")
    if out.resolve().is_relative_to(path.resolve()):
        raise ValueError(f"--fix writes a new data set: {out} lies in {path}. Give a folder outside of it")
    layouts = layouts_of(path)
    if path.suffix.lower() == ".tar":
        raise ValueError(f"{path} is a tar: unpack it, then --fix can write a mended copy")
    mended = Mended()
    for layout in layouts:
        if layout.task == "classification":
            _mend_folders(mended, layout, out)
        elif layout.task == "semantic":
            _mend_masks(mended, layout, out, reduce_zero_label, ignore_index)
        else:
            _mend_coco(mended, layout, out, panoptic=layout.task == "panoptic")
    return mended


# ------------------------------------------------------------------ pictures


def _copy_picture(mended: Mended, source: Path, target: Path) -> tuple[Path, int] | None:
    """Copies a picture, or writes what training would see of it. Returns: its file and the turn of what lies on it.

    None: it is missing or broken.
    """
    if not source.is_file():  # a device has no end
        mended.add("pictures left out: missing or broken", f"{str(source)[:300]} does not exist, or is no file")
        return None
    try:
        content = source.read_bytes()
        header, mode, frames = decode(content, name=str(source))
        with PILImage.open(source) as image:
            kind = (mode, image.format or "")
            transparent = "transparency" in image.info
    except (ImageError, OSError) as error:
        mended.add("pictures left out: missing or broken", error)
        return None
    if target.exists():  # another layout of the same set has written it
        return target, header.orientation
    if (other := target.with_suffix(".png")).exists() and (header.orientation != 1 or kind not in PLAIN):
        return other, header.orientation
    target.parent.mkdir(parents=True, exist_ok=True)
    named_right = source.suffix.lower() in ((".png",) if kind[1] == "PNG" else (".jpg", ".jpeg", ".jpe", ".jfif"))
    if kind in PLAIN and header.orientation == 1 and frames == 1 and not transparent and named_right:
        shutil.copyfile(source, target)
        return target, 1
    why = "turned upright (EXIF)" if header.orientation != 1 else f"{kind[1]} of the mode {mode}"
    target = target.with_suffix(".png")
    read_image(content, name=str(source)).save(target)
    mended.add(f"pictures written as RGB PNG: {why}", source)
    return target, header.orientation


def _safe_name(file_name: str, source: Path, root: Path) -> str:
    """The path below the images where it is one, else the name alone."""
    if source.is_relative_to(root) and ".." not in source.relative_to(root).parts:  # which would lead out of the copy
        return source.relative_to(root).as_posix()
    return file_name.replace("\\", "/").rpartition("/")[2]


# ---------------------------------------------------------------------- COCO


def _mend_coco(mended: Mended, layout: Layout, out: Path, *, panoptic: bool) -> None:
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
        name = _safe_name(image["file_name"], path, source)
        copied = _copy_picture(mended, path, folder / name)
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
        # As `read_annotated` has it: the stored pixels are meant, unless the size fits the upright picture alone.
        turns[image["id"]] = turn if stated == header.size else 1
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


def _mend_masks(mended: Mended, layout: Layout, out: Path, reduce_zero_label: bool | None, ignore_index: int) -> None:
    labels = mask_labels(layout, reduce_zero_label=reduce_zero_label, ignore_index=ignore_index)
    sources = {
        split: SegmentationFolder(part.images, part.annotations, labels, listed=part.listed)
        for split, part in layout.parts.items()
    }
    labels = _mend_labels(mended, labels, sources)
    if labels.values != tuple(range(len(labels.names))) or labels.ignored != {IGNORE} or labels.colours:
        mended.add("masks written as 0..K-1 and 255", f"{layout.root}: {labels.allowed()}")
    for split, source in sources.items():
        below = Path() if split == ALL else Path(split)
        for index, file in enumerate(source.files):
            mask = source.mask_path(index)
            try:
                values = labels.read(mask)
            except (OSError, ValueError) as error:
                mended.add("images left out: their mask cannot be read", error)
                continue
            name = file.relative_to(source.folder)
            copied = _copy_picture(mended, file, out / "images" / below / name)
            if copied is None:
                continue
            target, turn = copied
            header, *_ = decode(file.read_bytes(), name=str(file))
            if values.shape not in (header.size, header.upright_size):
                mended.add("images left out: their mask has another size", mask)
                target.unlink()
                continue
            if turn != 1 and values.shape == header.size:
                values = turn_pixels(torch.from_numpy(values), turn).contiguous().numpy()
                mended.add("masks turned with their picture", mask)
            written = out / "masks" / below / name.with_suffix(".png")
            written.parent.mkdir(parents=True, exist_ok=True)
            PILImage.fromarray(values.astype(np.uint8)).save(written)
    write_json(out / "classes.json", list(labels.names), indent=1)


def _mend_labels(mended: Mended, labels: MaskLabels, sources: dict[str, SegmentationFolder]) -> MaskLabels:
    """0 and 255 for two classes are mended; other values that do not fit are left to a person."""
    counts: Counter[int] = Counter()
    for source in sources.values():
        for index in range(len(source)):
            try:
                counts.update(count_values(read_index_mask(source.mask_path(index), labels.colours)))
            except (OSError, ValueError):  # the image is left out, with the reason
                continue
    try:
        check_values(labels, dict(counts), "the masks")
    except ValueError as error:
        if set(counts) == {0, IGNORE} and len(labels.names) == 2 and not labels.numbered:
            mended.add("masks of 0 and 255: 255 is the second class", f"{labels.names[1]!r}")
            return replace(labels, values=(0, IGNORE), ignore_index=-1, reduce_zero_label=False)
        raise ValueError(f"The masks cannot be mended without knowing what they mean: {error}") from None
    return labels


# ------------------------------------------------------------- class folders


def _mend_folders(mended: Mended, layout: Layout, out: Path) -> None:
    for split, part in layout.parts.items():
        if part.images.is_file():
            raise ValueError(f"{part.images} is a tar: unpack it, then --fix can write a mended copy")
        reader = ClassFolders(part.images)
        folder = out if split == ALL else out / split
        for key in reader.keys:
            _copy_picture(mended, part.images / key, folder / key)
        for reason, left in reader.part.left_out.items():
            for _ in range(left.files):
                mended.add(f"files left out: {reason}", left.example)
