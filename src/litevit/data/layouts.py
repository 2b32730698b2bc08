"""Which layout a data set is in, and where its parts are: one function for training, evaluation and the doctor.

| layout | what tells it |
|---|---|
| COCO 2017 | `annotations/{instances,panoptic}_{train,val}2017.json` beside `train2017/`, `val2017/` |
| Roboflow's COCO export | `{train,valid,test}/_annotations.coco.json` among the images |
| COCO JSON (CVAT, Label Studio, ...) | a `.json` with images, annotations, categories, and any folder of images |
| YOLO | `data.yaml` with `names` and `train`; or `images/`, `labels/` and `classes.txt` |
| Pascal VOC | `Annotations/*.xml` and `JPEGImages/`; or XML files among the images |
| masks | `images/` and `annotations/` (ADE20K), `masks/`, ...; `{train,val}/{images,masks}`; `SegmentationClass/` |
| class folders | a folder of images per class, in `train/`, `val/` or without splits |

Nothing is decoded here: names, folders and the heads of annotation files decide.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from litevit.data.class_folders import is_hidden, splits_of
from litevit.data.images import is_image
from litevit.files import parse_json, read_text

Task = Literal["instances", "panoptic", "semantic", "classification"]
Kind = Literal["coco", "yolo", "voc", "masks", "folders"]

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
ALL = "all"  # the one part of a set without splits
# COCO's files of other tasks, and what else lies about as JSON.
OTHER_JSONS = ("captions_", "person_keypoints_", "stuff_", "image_info_")
ROBOFLOW = "_annotations.coco.json"
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")
MASK_ENDINGS = ("", "_mask", "_masks", "_label")  # x.jpg -> x_mask.png
MASK_FOLDERS = ("annotations", "masks", "mask", "labels", "label", "gt", "annotation", "SegmentationClass")
IMAGE_FOLDERS = ("images", "image", "imgs", "img", "JPEGImages", "data")

OBJECT_LAYOUTS = (
    "COCO 2017 (annotations/instances_{train,val}2017.json), Roboflow (train/_annotations.coco.json), any COCO JSON "
    "(annotations/*.json or *.json), YOLO (data.yaml), Pascal VOC (Annotations/*.xml)"
)
LOOKED_FOR: dict[Task, tuple[str, str]] = {
    "instances": ("annotated objects", OBJECT_LAYOUTS),
    "panoptic": (
        "panoptic annotations",
        "COCO panoptic (annotations/panoptic_*.json with segments_info, and folders of PNGs beside them)",
    ),
    "semantic": (
        "masks of classes",
        "ADE20K (images/{training,validation} and annotations/{training,validation}), images/ and masks/ or labels/ "
        "(with or without train/ and val/ inside or around them), x_mask.png beside x.jpg, VOC (JPEGImages/ and "
        "SegmentationClass/)",
    ),
    "classification": ("class folders", "class folders ({train,val}/<class>/*.jpg, or <class>/*.jpg)"),
}
TRAINED_BY: dict[Task, str] = {
    "instances": "a detector (mask_rcnn, or retinanet for boxes alone)",
    "panoptic": "a panoptic model",
    "semantic": "a segmenter",
    "classification": "a classifier",
}


@dataclass(frozen=True)
class Part:
    """One split of a data set."""

    images: Path  # folder; file names of annotations are relative to it
    annotations: Path  # a JSON, or the folder of masks, XML or label files
    listed: Path | None = None  # text file of the images that belong to it; None: all of the folder


@dataclass(frozen=True)
class Layout:
    kind: Kind
    name: str  # as a person calls it
    task: Task
    root: Path
    parts: dict[str, Part]  # "train", "val", "test", or ALL
    classes: Path | None = None  # a file of class names, where the layout has one

    def __str__(self) -> str:
        parts = ", ".join(f"{split} in {_below(self.root, part.annotations)}" for split, part in self.parts.items())
        return f"{self.name} ({parts})"

    def part(self, split: str) -> tuple[str, Part, bool]:
        """The part that a run trains ("train") or is measured on ("val"), its name, and whether it is to be divided."""
        order = ["train", ALL] if split == "train" else ["val", "test", ALL, "train"]
        for name in order:
            if name in self.parts:
                shared = name == ALL or (split != "train" and name == "train")
                alone = split == "train" and not {"val", "test"} & self.parts.keys()
                return name, self.parts[name], shared or alone
        has = ", ".join(self.parts)
        raise FileNotFoundError(f"{self.root} ({self.name}) has no {split} split, only {has}")


# ------------------------------------------------------------------- finding


def find_layout(path: str | Path, task: Task) -> Layout:
    """The layout of a data set for one task.

    Args:
        path: a folder, or one COCO JSON.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it is in no layout of the task; says what was looked for, and what it looks like instead.
    """
    path = Path(path)
    found = layouts_of(path)
    for layout in found:
        if layout.task == task:
            return layout
    what, known = LOOKED_FOR[task]
    said = f"{path} has no {what}. Looked for: {known}."
    if found:
        other = found[0]
        raise ValueError(f"{said} It is {other.name}, for {TRAINED_BY[other.task]}.")
    raise ValueError(f"{said} It has {_listing(path)}.")


def layouts_of(path: str | Path) -> list[Layout]:
    """All layouts a data set can be read in: one per task; empty: none is known."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"data folder {path} does not exist")
    if path.suffix.lower() == ".tar" and path.is_file():
        return [Layout("folders", "a tar of class folders", "classification", path, {ALL: Part(path, path)})]
    if path.is_file():
        return _coco(path, [path]) if path.suffix.lower() == ".json" else []
    found = _coco(path, list(_jsons(path)))
    for look in (_yolo, _voc, _masks, _folders):
        if look is _folders and found:
            break
        if look is _masks and any(layout.task == "panoptic" for layout in found):  # its maps lie in annotations/
            continue
        layout = look(path)
        if layout is not None and all(layout.task != other.task for other in found):
            found.append(layout)
    return found


def split_of(name: str) -> str | None:
    """`instances_train2017` -> "train", `valid` -> "val"; None: the name says nothing."""
    words = [re.sub(r"\d+$", "", word) for word in re.split(r"[^a-z0-9]+", name.lower())]
    for split, names in SPLITS.items():
        if any(word in names for word in words):
            return split
    return None


def _below(root: Path, path: Path) -> str:
    try:
        return path.relative_to(root).as_posix() or "."
    except ValueError:
        return str(path)


def _listing(path: Path) -> str:
    if path.is_file():
        return "the ending of no annotation file"
    names = [entry.name + ("/" if entry.is_dir() else "") for entry in _visible(path)]
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "nothing in it"


def _visible(folder: Path) -> list[os.DirEntry]:
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not is_hidden(entry.name)), key=lambda entry: entry.name)


def _child(folder: Path, *names: str) -> Path | None:
    """A folder in a folder, whatever the case of its name."""
    there = {entry.name.lower(): Path(entry.path) for entry in _visible(folder) if entry.is_dir()}
    return next((there[name.lower()] for name in names if name.lower() in there), None)


def _split_folders(folder: Path) -> dict[str, Path]:
    """train, val and test in a folder, whatever they are called."""
    found: dict[str, Path] = {}
    for entry in _visible(folder):
        split = split_of(entry.name) if entry.is_dir() else None
        if split is not None and split not in found:
            found[split] = Path(entry.path)
    return found


def _some(folder: Path, suffixes: tuple[str, ...], depth: int = 3) -> Path | None:
    """The first file with such an ending in a folder or the folders in it."""
    folders = []
    for entry in _visible(folder):
        if entry.is_dir():
            folders.append(Path(entry.path))
        elif entry.name.lower().endswith(suffixes):
            return Path(entry.path)
    return next((file for below in folders if depth and (file := _some(below, suffixes, depth - 1))), None)


def _has_images(folder: Path, depth: int = 3) -> bool:
    folders = []
    for entry in _visible(folder):
        if entry.is_dir():
            folders.append(Path(entry.path))
        elif is_image(entry.name):
            return True
    return depth > 0 and any(_has_images(below, depth - 1) for below in folders)


# ---------------------------------------------------------------------- COCO


def _jsons(root: Path) -> Iterator[Path]:
    """Files that may be COCO's, in the root, in `annotations/` or `labels/`, or in the folders of the splits."""
    folders = [
        root,
        *(f for name in ("annotations", "labels") if (f := _child(root, name))),
        *_split_folders(root).values(),
    ]
    for folder in folders:
        for entry in _visible(folder):
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
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in ("images", "categories")):
        return None
    annotations = content.get("annotations")
    if not isinstance(annotations, list):
        return None
    panoptic = any(isinstance(entry, dict) and "segments_info" in entry for entry in annotations[:100])
    return "panoptic" if panoptic else "instances"


def _load(file: Path) -> Any:
    try:
        return parse_json(file.read_bytes(), file)
    except (ValueError, OSError):
        return None


def _coco(root: Path, files: Iterable[Path]) -> list[Layout]:
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


def _one(root: Path, split: str, files: list[Path]) -> Path:
    """The file of a split where there are several: COCO's own name before others."""
    official = [file for file in files if file.name.startswith(("instances_", "panoptic_")) or file.name == ROBOFLOW]
    left = official or files
    if len(left) > 1:
        newest = [file for file in left if "2017" in file.name]
        left = newest if len(newest) == 1 else left
    if len(left) > 1:
        names = ", ".join(_below(root, file) for file in left[:4])
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
    there += [folder for folder in _folders_below(base) if folder not in there]
    best, most = file.parent, 0
    for folder in there:
        hits = sum(find_image(folder, name).is_file() for name in wanted)
        if hits > most:
            best, most = folder, hits
        if hits and hits == len(wanted):
            break
    if most:
        return best
    return next((folder for folder in there if folder != file.parent and _has_images(folder, 0)), best)


def _folders_below(root: Path, depth: int = 3) -> Iterator[Path]:
    for entry in _visible(root):
        if entry.is_dir():
            yield Path(entry.path)
            if depth > 1:
                yield from _folders_below(Path(entry.path), depth - 1)


def find_image(folder: Path, file_name: str) -> Path:
    """The file of an image. Tools write paths of their own machine (`images\\1.jpg`): then the name alone counts."""
    name = file_name.replace("\\", "/")
    path = folder / name
    if "/" in name and not path.is_file() and (short := folder / name.rpartition("/")[2]).is_file():
        return short
    return path


# ---------------------------------------------------------------------- YOLO


def _yolo(root: Path) -> Layout | None:
    for entry in _visible(root):
        if entry.name.lower().endswith((".yaml", ".yml")) and (content := read_yaml(Path(entry.path))) is not None:
            parts = _yolo_parts(root, content)
            if parts:
                return Layout("yolo", "YOLO", "instances", root, parts, Path(entry.path))
    images, labels = _child(root, "images"), _child(root, "labels")
    names = next((file for name in ("classes.txt", "obj.names") if (file := root / name).is_file()), None)
    if images is None or labels is None or names is None or not _some(labels, (".txt",)):
        return None
    splits = _split_folders(images)
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
            if place.is_dir() and (inner := _child(place, "images")) is not None:
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


# ----------------------------------------------------------------------- VOC


def _voc(root: Path) -> Layout | None:
    for base in (root, *(Path(entry.path) for entry in _visible(root) if entry.name == "VOCdevkit" and entry.is_dir())):
        for folder in (base, *(Path(entry.path) for entry in _visible(base) if entry.is_dir())):
            xml, images = _child(folder, "Annotations"), _child(folder, *IMAGE_FOLDERS)
            if xml is not None and images is not None and _some(xml, (".xml",), 1):
                lists = folder / "ImageSets" / "Main"
                parts = _listed_parts(lists, images, xml)
                if not parts and (splits := _split_folders(xml)):
                    inner = _split_folders(images)
                    parts = {split: Part(inner.get(split, images), place) for split, place in splits.items()}
                return Layout("voc", "Pascal VOC", "instances", root, parts or {ALL: Part(images, xml)})
    splits = {split: folder for split, folder in _split_folders(root).items() if _some(folder, (".xml",), 0)}
    if splits:
        return Layout("voc", "Pascal VOC", "instances", root, {s: Part(folder, folder) for s, folder in splits.items()})
    if _some(root, (".xml",), 0) and _has_images(root, 0):
        return Layout("voc", "Pascal VOC", "instances", root, {ALL: Part(root, root)})
    return None


def _listed_parts(lists: Path, images: Path, annotations: Path) -> dict[str, Part]:
    """`ImageSets/*/{train,val,test}.txt`; `trainval.txt` and CVAT's `default.txt` name the same images again."""
    if not lists.is_dir():
        return {}
    parts = {}
    for split in SPLITS:
        for name in SPLITS[split]:
            if (file := lists / f"{name}.txt").is_file() and read_text(file, "list of images").strip():
                parts[split] = Part(images, annotations, file)
                break
    return parts


def listed_names(file: Path) -> list[str]:
    """The lines of such a list; a name may have spaces."""
    return [line.strip() for line in read_text(file, "list of images").splitlines() if line.strip()]


# --------------------------------------------------------------------- masks

CLASS_LISTS = ("classes.json", "objectInfo150.txt", "labelmap.txt", "classes.txt", "labels.txt", "_classes.csv")


def _masks(root: Path) -> Layout | None:
    parts, name = _mask_parts(root)
    if not parts:
        return None
    places = [root, *(part.images for part in parts.values()), *(part.images.parent for part in parts.values())]
    lists = (file for place in places for name in CLASS_LISTS if (file := place / name).is_file())
    return Layout("masks", name, "semantic", root, parts, next(lists, None))


def _mask_parts(root: Path) -> tuple[dict[str, Part], str]:
    voc, jpeg = _child(root, "SegmentationClass"), _child(root, *IMAGE_FOLDERS)
    if voc is not None and jpeg is not None:
        listed = _listed_parts(root / "ImageSets" / "Segmentation", jpeg, voc)
        return listed or {ALL: Part(jpeg, voc)}, "VOC's masks (SegmentationClass)"
    images = _child(root, *IMAGE_FOLDERS)
    masks = next(
        (f for name in MASK_FOLDERS if (f := _child(root, name)) and f != images and _some(f, MASK_SUFFIXES)), None
    )
    if images is not None and masks is not None and _has_images(images):
        inner, outer = _split_folders(images), _split_folders(masks)
        ade = masks.name == "annotations" and {f.name for f in inner.values()} <= {"training", "validation"} and inner
        name = "ADE20K's layout" if ade else f"{images.name}/ and {masks.name}/"
        if inner and outer:
            both = {split: Part(inner[split], outer[split]) for split in SPLITS if split in inner and split in outer}
            return both, name
        return {ALL: Part(images, masks)}, name
    parts = {}
    name = ""
    for split, folder in _split_folders(root).items():
        inside, beside = _child(folder, *IMAGE_FOLDERS), _child(folder, *MASK_FOLDERS)
        if inside is not None and beside is not None and _some(beside, MASK_SUFFIXES) and _has_images(inside):
            parts[split], name = Part(inside, beside), f"{inside.name}/ and {beside.name}/ in each split"
        elif _beside(folder):
            parts[split], name = Part(folder, folder), "masks beside the images"
    if not parts and _beside(root):
        return {ALL: Part(root, root)}, "masks beside the images"
    return {split: parts[split] for split in SPLITS if split in parts}, name


def _beside(folder: Path) -> bool:
    """`x.jpg` and `x_mask.png` in one folder, as Roboflow writes it."""
    files = {entry.name for entry in _visible(folder) if entry.is_file()}
    marked = [name for name in files if name.lower().endswith(tuple(f"{end}.png" for end in MASK_ENDINGS if end))]
    stems = {name.rpartition(".")[0] for name in files}
    return bool(marked) and any(name.rpartition(".")[0].rpartition("_")[0] in stems for name in marked)


def is_mask_name(name: str) -> bool:
    """`x_mask.png`: of a folder that holds images and masks together."""
    stem = name.rpartition(".")[0].lower()
    return stem.endswith(tuple(end for end in MASK_ENDINGS if end)) and name.lower().endswith(MASK_SUFFIXES)


# ------------------------------------------------------------- class folders


def _folders(root: Path) -> Layout | None:
    parts: dict[str, Part] = {}
    for name, folder in splits_of(root).items():
        if folder.is_file() or _class_names(folder):
            parts.setdefault(split_of(name) or name, Part(folder, folder))
    if not parts and _class_names(root):
        parts = {ALL: Part(root, root)}
    return Layout("folders", "class folders", "classification", root, parts) if parts else None


def _class_names(folder: Path) -> list[str]:
    return [entry.name for entry in _visible(folder) if entry.is_dir() and _has_images(Path(entry.path))]
