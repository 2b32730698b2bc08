"""Classification data that a reader opens: WebDataset shards, Hugging Face data sets."""

import glob
from itertools import islice
from pathlib import Path
from typing import Any

from litevit.data import hugging_face
from litevit.data.class_folders import SPLIT_NAMES, Part, table
from litevit.data.doctor.folders import compare
from litevit.data.doctor.pictures import Album
from litevit.data.doctor.report import Notes
from litevit.data.labelled_images import class_names
from litevit.data.shards import WebDatasetReader, expand_shards, member_kind
from litevit.data.tars import members

NAMES = {"wds": "WebDataset shards (--data.reader wds)", "hfds": "a Hugging Face data set (--data.reader hfds/PATH)"}
PROBED = 32  # members of a tar that say what it is


def reader_of(path: str | Path) -> str:
    """ "wds", "hfds", or "" for what layouts are known by; nothing but names is looked at."""
    folder = Path(path)
    if place_of(path) != str(path):
        return "hfds"
    tables = (
        [*folder.glob("*.parquet"), *folder.glob("data/*.parquet"), *folder.glob("*.arrow")] if folder.is_dir() else []
    )
    if hugging_face.is_saved(str(path)) or (tables and not any(folder.glob("*.tar"))):
        return "hfds"
    tars = sorted(folder.glob("*.tar")) or sorted(folder.glob("*/*.tar")) if folder.is_dir() else _matching(str(path))
    return "wds" if tars and _is_shard(tars[0]) else ""


def place_of(path: str | Path) -> str:
    """A path, or the name in `hfds/NAME`, as `data.reader` of training has it."""
    place = str(path)
    return place[len("hfds/") :] if place.lower().startswith("hfds/") and not Path(path).exists() else place


def _matching(pattern: str) -> list[Path]:
    if Path(pattern).is_file():
        return [Path(pattern)] if pattern.lower().endswith(".tar") else []
    if "{" in pattern:
        return [Path(file) for file in expand_shards(pattern, "train")]
    return [Path(file) for file in sorted(glob.glob(pattern)) if file.lower().endswith(".tar")]


def _is_shard(file: Path) -> bool:
    """Labels lie beside the images, under their names."""
    try:
        kinds = {member_kind(member.name) for member in islice(members(file), PROBED)}
    except ValueError:
        return False
    return any((name, "label") in kinds for name, kind in kinds if kind == "image")


def examine(
    notes: Notes,
    album: Album,
    path: str,
    reader: str,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
) -> None:
    parts: dict[str, Part] = {}
    for split in _splits(path, reader):
        try:
            opened: Any = (
                WebDatasetReader(path, split)
                if reader == "wds"
                else hugging_face.HuggingFaceImages(path, split, None, image_column, label_column)
            )
        except FileNotFoundError:
            continue  # of one set, training may have all that there is
        except (ValueError, OSError) as error:
            notes.error("splits that cannot be read", error)
            continue
        part = parts[split] = opened.part
        part.name = split
        if not part.classes:
            names = class_names(opened)
            counts = {label: opened.targets.count(label) for label in sorted(set(opened.targets))}
            part.classes = {names[label] if names else str(label): count for label, count in counts.items()}
        album.look_into(split, opened)
        _note_labels(notes, part, opened)
        for reason, left in part.left_out.items():
            for _ in range(left.files):
                notes.warning(f"left out: {reason}", f"{split}: {left.example}")
        notes.count(f"classes in {split}", len(part.classes))
        notes.report.classes[split] = dict(part.classes)
    if not parts and not notes.report.findings:
        raise FileNotFoundError(f"{path} has no split that training reads: {', '.join(SPLIT_NAMES)}")
    compare(notes, parts)
    notes.report.table = table(list(parts.values()))
    if len(parts) == 1:
        notes.warning("no split to evaluate on (--data.hold_out holds a share of the images out)", path)


def _splits(path: str, reader: str) -> list[str]:
    if reader == "hfds":
        return hugging_face.splits_there(path)
    if not Path(path).is_dir():
        return ["train"]
    train = expand_shards(path, "train") if _has(path, "train") else []
    return (
        ["train", "validation"]
        if _has(path, "validation") and expand_shards(path, "validation") != train
        else (["train"] if train else ["validation"])
    )


def _has(path: str, split: str) -> bool:
    try:
        return bool(expand_shards(path, split))
    except FileNotFoundError:
        return False


def _note_labels(notes: Notes, part: Part, opened: Any) -> None:
    seen = [name for name, count in part.classes.items() if count]
    if len(seen) == 1:
        notes.error("a single class (there is nothing to tell apart)", f"{part.where}: {seen[0]}")
    for name, count in part.classes.items():
        if not count:
            notes.warning("classes without an image in a split", f"{part.where}: {name}")
    if (least := min(opened.targets)) < 0:
        notes.error("labels below 0", f"{part.where}: {least}")
    most = max(opened.targets)
    missing = sorted(set(range(most + 1)) - set(opened.targets))
    for label in missing[:100] if not class_names(opened) else ():
        notes.warning("numbers that no image has as its label", f"{part.where}: {label} of 0..{most}")
