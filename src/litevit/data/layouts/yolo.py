"""YOLO's folders: `data.yaml` with `names` and `train`, or `images/`, `labels/` and `classes.txt`."""

import re
from pathlib import Path
from typing import Any

from litevit.data.layouts.folders import child_folder, find_file, visible
from litevit.data.layouts.layout import ALL, SPLITS, Layout, Part, split_folders


def yolo_layout(root: Path) -> Layout | None:
    for entry in visible(root):
        if entry.name.lower().endswith((".yaml", ".yml")) and (content := read_yaml(Path(entry.path))) is not None:
            parts = _yolo_parts(root, content)
            if parts:
                return Layout("yolo", "YOLO", "instances", root, parts, Path(entry.path))
    images, labels = child_folder(root, "images"), child_folder(root, "labels")
    names = next((file for name in ("classes.txt", "obj.names") if (file := root / name).is_file()), None)
    if images is None or labels is None or names is None or not find_file(labels, (".txt",)):
        return None
    splits = split_folders(images)
    parts = {split: Part(folder, labels / folder.name) for split, folder in splits.items()} or {
        ALL: Part(images, labels)
    }
    return Layout("yolo", "YOLO", "instances", root, parts, names)


def read_yaml(file: Path) -> dict[str, Any] | None:
    """The content of YOLO's `data.yaml`; None: it is something else."""
    import yaml

    try:
        content = yaml.safe_load(file.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError):  # dates, numbers, and nesting, that there cannot be
        return None
    return content if isinstance(content, dict) and "names" in content and {"train", "val"} & content.keys() else None


def _yolo_parts(root: Path, content: dict[str, Any]) -> dict[str, Part]:
    base = Path(str(content.get("path") or "."))
    parts = {}
    for split in SPLITS:
        given = content.get(split)
        if isinstance(given, list) and len(given) == 1:
            given = given[0]
        if isinstance(given, list):
            raise ValueError(f"{root}: '{split}' of data.yaml is a list of {len(given)} folders; one folder is needed")
        if not isinstance(given, str) or not given:
            continue
        place = _yolo_place(root, base, given)
        if place is None:
            continue
        if place.is_file():
            parts[split] = Part(place.parent, place.parent, place)
        else:
            parts[split] = Part(place, label_folder(place))
    return parts


def _yolo_place(root: Path, base: Path, given: str) -> Path | None:
    """The place that `data.yaml` means: of the machine that wrote it, relative to it, to `path`, or one level up."""
    plain = given.replace("\\", "/")
    tries = [root / base / plain, root / plain, root / re.sub(r"^(\.\./)+", "", plain)]
    words = [word for word in plain.split("/") if word not in ("", ".", "..")]
    tries += [root.joinpath(*words[-n:]) for n in (2, 1) if len(words) >= n]
    for place in tries:
        if place.is_file() or (place.is_dir() and place != root):
            if place.is_dir() and (inner := child_folder(place, "images")) is not None:
                return inner
            return place
    return None


def label_folder(images: Path) -> Path:
    """YOLO's rule: the last `images` in a path becomes `labels`; else the label files lie among the images."""
    parts = list(images.parts)
    for k in range(len(parts) - 1, -1, -1):
        if parts[k].lower() == "images":
            labels = Path(*parts[:k], "labels", *parts[k + 1 :])
            return labels if labels.is_dir() else images
    return images
