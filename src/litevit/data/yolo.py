"""YOLO's label files, as COCO's content: `class x y width height` or `class x1 y1 x2 y2 x3 y3 ...`, all in 0..1.

The numbers are shares of the picture as a person sees it (upright), which is what YOLO's own tools mean.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from litevit.data.images import ImageError, is_image, read_header
from litevit.data.layouts import Layout, Part, label_folder, read_yaml
from litevit.files import read_text

SLACK = 0.01  # rounding of the tools that write these files


def class_names(layout: Layout) -> tuple[str, ...]:
    """From `data.yaml` (`names`: a list, or an object of numbers) or `classes.txt` (one per line)."""
    file = layout.classes
    assert file is not None
    if file.suffix.lower() in (".yaml", ".yml"):
        content = read_yaml(file)
        assert content is not None
        names = content["names"]
        if isinstance(names, dict):
            numbers = all(isinstance(k, int | str) and str(k).isdecimal() for k in names)
            keys = sorted(names, key=int) if numbers else []
            if [int(k) for k in keys] != list(range(len(names))):
                got = str(list(names))[:60]
                raise ValueError(f"{file}: the keys of 'names' must be 0, 1, 2, ... without gaps, got {got}")
            names = [names[k] for k in keys]
    else:
        names = [line.strip() for line in read_text(file, "class list").splitlines() if line.strip()]
    if not isinstance(names, list) or not names:
        raise ValueError(f"{file} names no classes")
    if not all(isinstance(name, str | int | float) for name in names):  # a list of lists of lists: YAML's references
        raise ValueError(f"{file}: every entry of 'names' must be the name of a class")
    return tuple(str(name) for name in names)


def image_files(part: Part) -> list[Path]:
    """The images of a part: those of its list (`train.txt`), or all in its folder."""
    if part.listed is None:
        return sorted(path for path in part.images.rglob("*") if is_image(path))
    files = []
    for line in read_text(part.listed, "list of images").splitlines():
        if line.strip():
            path = part.listed.parent / line.strip().replace("\\", "/")
            files.append(path)
    return files


def label_file(part: Part, image: Path) -> Path:
    if part.listed is not None:
        return label_folder(image.parent) / f"{image.stem}.txt"
    return (part.annotations / image.relative_to(part.images)).with_suffix(".txt")


def read(layout: Layout, part: Part, *, on_problem: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Images, annotations and categories as a COCO JSON has them; file names are relative to the part's folder.

    Args:
        on_problem: is told what is wrong with a line or a picture, which is then left out; None: it raises.
    """
    names = class_names(layout)
    content: dict[str, Any] = {"categories": [{"id": k, "name": name} for k, name in enumerate(names)]}
    content["images"], content["annotations"] = [], []
    content["upright"] = True
    for number, path in enumerate(image_files(part), start=1):
        try:
            height, width = read_header(path).upright_size
        except (ImageError, OSError) as error:
            if on_problem is None:
                raise
            on_problem(str(error))
            continue
        name = path.relative_to(part.images).as_posix() if path.is_relative_to(part.images) else str(path)
        content["images"].append({"id": number, "file_name": name, "height": height, "width": width})
        labels = label_file(part, path)
        if not labels.is_file():  # YOLO: nothing is in it
            continue
        for row, line in enumerate(read_text(labels, "label file").splitlines(), start=1):
            if not line.strip():
                continue
            try:
                entry = read_line(line, width, height, len(names), f"{labels}, line {row}")
            except ValueError as error:
                if on_problem is None:
                    raise
                on_problem(str(error))
                continue
            content["annotations"].append({"id": len(content["annotations"]) + 1, "image_id": number} | entry)
    return content


def read_line(line: str, width: int, height: int, num_classes: int, where: str) -> dict[str, Any]:
    """One object: `category_id`, `bbox`, `area`, and of a polygon `segmentation`."""
    try:
        label, *values = [float(word) for word in line.split()]
        whole = int(label) == label
    except (ValueError, OverflowError):
        raise ValueError(f"{where}: numbers are needed, got {line.strip()[:60]!r}") from None
    if not whole or not 0 <= label < num_classes:
        raise ValueError(f"{where}: the class must be a number in 0..{num_classes - 1}, got {label:g}")
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise ValueError(
            f"{where}: a class and 4 numbers (a box) or 6, 8, ... (a polygon) are needed, got {len(values)} numbers"
        )
    if not all(-SLACK <= value <= 1 + SLACK for value in values):
        raise ValueError(f"{where}: coordinates are shares of the picture in 0..1, got {line.strip()[:60]!r}")
    if len(values) == 4:
        x, y, w, h = (value * side for value, side in zip(values, (width, height, width, height)))
        return {"category_id": int(label), "bbox": [x - w / 2, y - h / 2, w, h], "area": w * h}
    xs, ys = [v * width for v in values[::2]], [v * height for v in values[1::2]]
    polygon = [v for point in zip(xs, ys) for v in point]
    # Twice the area inside, by the shoelace formula.
    twice = abs(sum(x * ys[k - 1] - xs[k - 1] * y for k, (x, y) in enumerate(zip(xs, ys))))
    box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    return {"category_id": int(label), "bbox": box, "area": twice / 2, "segmentation": [polygon]}
