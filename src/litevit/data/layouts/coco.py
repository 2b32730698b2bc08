"""COCO's JSON files (2017's names, Roboflow's, CVAT's, Label Studio's): which there are, and where their images lie."""

import os
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from litevit.data.layouts.folders import IMAGE_FOLDERS, child_folder, folders_below, has_images, relative, visible
from litevit.data.layouts.layout import ALL, SPLITS, Layout, Part, Task, split_folders, split_of
from litevit.files import parse_json

# COCO's files of other tasks, and what else lies about as JSON.
OTHER_JSONS = ("captions_", "person_keypoints_", "stuff_", "image_info_")
ROBOFLOW = "_annotations.coco.json"


def coco_layouts(root: Path, files: Iterable[Path]) -> list[Layout]:
    by_task: dict[Task, dict[str, list[Path]]] = {}
    for file in files:
        if (task := json_task(file)) is not None:
            inside = not root.is_file() and file.parent != root
            split = split_of(file.stem) or (split_of(file.parent.name) if inside else None) or ALL
            by_task.setdefault(task, {}).setdefault(split, []).append(file)
    layouts: list[Layout] = []
    tasks: tuple[Task, ...] = ("instances", "panoptic")
    for task in tasks:
        chosen = {split: _one(root, split, files) for split, files in by_task.get(task, {}).items()}
        if set(chosen) > {ALL}:  # a file beside those of the splits: of the whole set, or of something else
            del chosen[ALL]
        if chosen:
            order = sorted(chosen, key=[*SPLITS, ALL].index)
            parts = {split: Part(image_folder(root, chosen[split], split), chosen[split]) for split in order}
            layouts.append(Layout("coco", _coco_name(task, list(chosen.values())), task, root, parts))
    return layouts


def coco_jsons(root: Path) -> Iterator[Path]:
    """Files that may be COCO's, in the root, in `annotations/` or `labels/`, or in the folders of the splits."""
    folders = [
        root,
        *(f for name in ("annotations", "labels") if (f := child_folder(root, name))),
        *split_folders(root).values(),
    ]
    for folder in folders:
        for entry in visible(folder):
            if entry.name.lower().endswith(".json") and entry.is_file() and not entry.name.startswith(OTHER_JSONS):
                yield Path(entry.path)


def json_task(file: Path) -> Task | None:
    """What a JSON has annotations for; None: it is not COCO's."""
    if file.name.startswith("instances_") or file.name == ROBOFLOW:
        return "instances"
    if file.name.startswith("panoptic_"):
        return "panoptic"
    status = file.stat()
    return _sniff(str(file), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _sniff(file: str, *_: int) -> Task | None:
    content = _load(Path(file))
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        return None
    annotations = content.get("annotations")
    if not isinstance(annotations, list):
        return None
    if not isinstance(content.get("categories"), list):  # what is missing is said where the file is read
        of_coco = any(isinstance(entry, dict) and {"image_id", "category_id"} <= entry.keys() for entry in annotations)
        if not of_coco:
            return None
    panoptic = any(isinstance(entry, dict) and "segments_info" in entry for entry in annotations[:100])
    return "panoptic" if panoptic else "instances"


def _load(file: Path) -> Any:
    try:
        return parse_json(file.read_bytes(), file)
    except (ValueError, OSError):
        return None


def _one(root: Path, split: str, files: list[Path]) -> Path:
    """The file of a split where there are several: COCO's own name before others."""
    official = [file for file in files if file.name.startswith(("instances_", "panoptic_")) or file.name == ROBOFLOW]
    left = official or files
    if len(left) > 1:
        newest = [file for file in left if "2017" in file.name]
        left = newest if len(newest) == 1 else left
    if len(left) > 1:
        names = ", ".join(relative(root, file) for file in left[:4])
        of = "" if split == ALL else f" for {split}"
        raise ValueError(
            f"{root} has {len(left)} annotation files{of}: {names}. Name one as the path (a split is then divided), "
            "name them after their splits (train.json, val.json), or move the others away."
        )
    return left[0]


def _coco_name(task: Task, files: list[Path]) -> str:
    if all(file.name == ROBOFLOW for file in files):
        return "Roboflow's COCO export"
    panoptic = " panoptic" if task == "panoptic" else ""
    if all(re.fullmatch(r"(instances|panoptic)_(train|val)2017\.json", file.name) for file in files):
        return f"COCO 2017{panoptic}"
    return f"COCO JSON{panoptic}"


def image_folder(root: Path, file: Path, split: str) -> Path:
    """Where the images of a COCO JSON are: the first likely folder that has those it lists first."""
    beside = file.parent == root or file.name == ROBOFLOW
    if root.is_file():
        beside = file.parent.name.lower() not in ("annotations", "labels")
    base = file.parent if beside else file.parent.parent
    word = file.stem.rpartition("_")[2]
    likely = [base / word, base / "images" / word] if word else []
    if likely and likely[0].is_dir() and re.fullmatch(r"(train|val|test)20\d\d", word):
        return likely[0]  # COCO's own: its file is large, and is read once
    names = [split, *SPLITS.get(split, ())]
    likely += [base / name for name in names] + [base / "images" / name for name in names]
    likely += [
        file.parent,
        *(base / name for name in IMAGE_FOLDERS),
        *(file.parent / name for name in IMAGE_FOLDERS),
        base,
    ]
    content = _load(file)
    listed = content.get("images") if isinstance(content, dict) else None
    listed = listed if isinstance(listed, list) else []
    wanted = [r["file_name"] for r in listed[:20] if isinstance(r, dict) and isinstance(r.get("file_name"), str)]
    there = [folder for folder in dict.fromkeys(likely) if folder.is_dir()]
    there += [folder for folder in folders_below(base) if folder not in there]
    best, most = file.parent, 0
    for folder in there:
        hits = sum(find_image(folder, name).is_file() for name in wanted)
        if hits > most:
            best, most = folder, hits
        if hits and hits == len(wanted):
            break
    if most:
        return best
    return next((folder for folder in there if folder != file.parent and has_images(folder, 0)), best)


def find_image(folder: Path, file_name: str) -> Path:
    """The file of an image. Tools write paths of their own machine (`images\\1.jpg`): then the name alone counts, and
    `1.jpg` is the file `1.JPG` where there is no other, as on the systems that know no difference."""
    name = file_name.replace("\\", "/")
    path = folder / name
    if path.is_file():
        return path
    places = [path, folder / name.rpartition("/")[2]] if "/" in name else [path]
    for place in places[1:]:
        if place.is_file():
            return place
    return next((file for place in places if (file := _in_another_case(place)) is not None), path)


def _in_another_case(path: Path) -> Path | None:
    """The only file of a folder whose name differs by capitals alone."""
    try:
        names = _names(str(path.parent), path.parent.stat().st_mtime_ns).get(path.name.lower(), [])
    except OSError:
        return None
    return path.with_name(names[0]) if len(names) == 1 and path.with_name(names[0]).is_file() else None


@lru_cache(maxsize=8)
def _names(folder: str, _: int) -> dict[str, list[str]]:
    """Names of a folder without capitals, and as they are."""
    names: dict[str, list[str]] = {}
    for name in os.listdir(folder):
        names.setdefault(name.lower(), []).append(name)
    return names
