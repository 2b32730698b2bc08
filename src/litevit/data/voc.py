"""Pascal VOC's XML boxes, as COCO's content.

VOC counts pixels from 1 and its boxes include their last pixel: xmin 1, xmax 10 are ten pixels. A data set in which a
coordinate is 0 was written by a tool that counts from 0 with the last pixel left out; its boxes are taken as they are.
`difficult` objects are left out of training and count for nothing in evaluation, as VOC has it: they become crowds.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from litevit.data.images import SUFFIXES, read_header
from litevit.data.layouts import Layout, Part, find_image, listed_names


def xml_files(part: Part) -> list[Path]:
    """The annotations of a part: those of its list (`ImageSets/Main/train.txt`), or all in its folder."""
    if part.listed is None:
        return sorted(part.annotations.rglob("*.xml"))
    files = []
    for line in listed_names(part.listed):
        file = part.annotations / f"{line}.xml"
        if not file.is_file():  # in lists of one class a number follows the name, which may have spaces itself
            name = re.sub(r"\s+-?[01]$", "", line)
            file = part.annotations / f"{name}.xml"
        files.append(file)
    return files


def read_xml(file: Path) -> ElementTree.Element:
    if not file.is_file():
        raise FileNotFoundError(f"annotation file {file} does not exist")
    try:
        return ElementTree.fromstring(file.read_bytes())
    except (ElementTree.ParseError, LookupError, ValueError, RecursionError) as error:  # of encodings, of bombs
        raise ValueError(f"{file} is not XML: {error}") from None


def class_names(layout: Layout) -> tuple[str, ...]:
    """Of the objects of all parts, in the order of the alphabet: VOC's files have no list of classes."""
    names = {
        name.strip()
        for part in layout.parts.values()
        for file in xml_files(part)
        for entry in read_xml(file).iter("object")
        if (name := entry.findtext("name"))
    }
    if not names:
        raise ValueError(f"{layout.root}: no object in its XML files has a name")
    return tuple(sorted(names))


def counts_from_zero(layout: Layout) -> bool:
    for part in layout.parts.values():
        for file in xml_files(part):
            for box in read_xml(file).iter("bndbox"):
                if any(_number(box, key, file) <= 0 for key in ("xmin", "ymin")):
                    return True
    return False


def _number(box: ElementTree.Element, key: str, file: Path) -> float:
    try:
        return float(box.findtext(key) or "")
    except ValueError:
        raise ValueError(f"{file}: {key} of a box must be a number, got {box.findtext(key)!r}") from None


def read(
    layout: Layout,
    part: Part,
    names: Sequence[str],
    *,
    from_zero: bool,
    on_problem: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Images, annotations and categories as a COCO JSON has them; file names are relative to the part's folder.

    Args:
        names: the classes, see `class_names`.
        from_zero: see `counts_from_zero`.
        on_problem: is told what is wrong with a file, which is then left out; None: it raises.
    """
    content: dict[str, Any] = {"categories": [{"id": k, "name": name} for k, name in enumerate(names)]}
    content["images"], content["annotations"] = [], []
    for number, file in enumerate(xml_files(part), start=1):
        try:
            image, objects = _read_file(part, file, names, from_zero=from_zero)
        except (ValueError, OSError) as error:
            if on_problem is None:
                raise
            on_problem(str(error))
            continue
        content["images"].append({"id": number} | image)
        for entry in objects:
            content["annotations"].append({"id": len(content["annotations"]) + 1, "image_id": number} | entry)
    return content


def _read_file(
    part: Part, file: Path, names: Sequence[str], *, from_zero: bool
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    root = read_xml(file)
    path = _image_of(part, file, root)
    height, width = _size(root, path)
    objects = []
    for entry in root.iter("object"):
        box = entry.find("bndbox")
        if box is None:
            raise ValueError(f"{file}: object {entry.findtext('name')!r} has no bndbox")
        x1, y1, x2, y2 = (_number(box, key, file) for key in ("xmin", "ymin", "xmax", "ymax"))
        if not from_zero:
            x1, y1 = x1 - 1, y1 - 1
        label = (entry.findtext("name") or "").strip()
        if label not in names:
            raise ValueError(f"{file}: an object has the class {label!r}, not one of {', '.join(names)}")
        objects.append(
            {
                "category_id": names.index(label),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": int((entry.findtext("difficult") or "0").strip() == "1"),
            }
        )
    return {"file_name": path.relative_to(part.images).as_posix(), "height": height, "width": width}, objects


def _image_of(part: Part, file: Path, root: ElementTree.Element) -> Path:
    """The file of that stem (files get converted, `filename` stays), else what `filename` says."""
    below = part.images / file.relative_to(part.annotations).parent
    for suffix in SUFFIXES:
        for spelled in (suffix, suffix.upper()):
            if (path := below / f"{file.stem}{spelled}").is_file():
                return path
    return find_image(below, root.findtext("filename") or f"{file.stem}.jpg")


def _size(root: ElementTree.Element, path: Path) -> tuple[int, int]:
    """(H, W) that the file states; tools that do not know it write 0 or nothing: the picture's own."""
    try:
        width, height = (int(float(root.findtext(f"size/{side}") or 0)) for side in ("width", "height"))
    except (ValueError, OverflowError):
        width = height = 0
    return (height, width) if width > 0 and height > 0 else read_header(path).upright_size
