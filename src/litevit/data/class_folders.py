"""Images in class folders: where the splits of a data set are, which image is of which class, what is left out and why.

The class of an image is the first folder below its split, whatever lies deeper: `train/cats/indoor/1.jpg` is of `cats`.
Every format of `litevit.data.images` counts. Hidden files and folders (`.ipynb_checkpoints`, `__MACOSX`, `._1.jpg`) do
not, and images that lie directly in a split have no class: they are refused.

timm's reader is not used: it takes the last folder for the class (`indoor`), reads .jpg, .jpeg and .png only, and what
is hidden too. The order of classes and images is timm's: natural, so that `2` comes before `10`.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from litevit.data.images import HEIC_SUFFIXES, NO_HEIC, READABLE, is_image

OTHER_NAMES = {
    "train": ("training",),
    "validation": ("val", "valid", "eval", "test"),
    "val": ("validation", "valid", "test"),
    "test": ("testing",),
}
SPLIT_NAMES = frozenset(name for split, others in OTHER_NAMES.items() for name in (split, *others))
# What operating systems and tools leave between a person's files, besides names with a dot in front.
LITTER = frozenset({"__MACOSX", "__pycache__", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "Thumbs.db"})
ARCHIVES = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".rar", ".7z")


def unpack_first(path: Path) -> str:
    """What a person is told whose data set is still in archives; empty where there is none."""
    if path.is_file():
        return " It is an archive: unpack it first." if path.name.lower().endswith(ARCHIVES) else ""
    with os.scandir(path) as entries:
        archives = sorted(entry.name for entry in entries if entry.name.lower().endswith(ARCHIVES))
    return f" It has {', '.join(archives[:3])}: unpack first." if archives else ""


class Left(NamedTuple):
    """How many files (or hidden folders) were left out for one reason."""

    files: int
    example: str


@dataclass
class Part:
    """A split as it is read: how many images of which class, and what was left out of it."""

    name: str
    where: str
    images: int
    classes: dict[str, int] = field(default_factory=dict)  # empty: not known before the images are read
    left_out: dict[str, Left] = field(default_factory=dict)
    digest: str = ""  # of all names and labels; "": not known
    note: str = ""  # what else is to be said

    def leave_out(self, reason: str, example: str) -> None:
        before = self.left_out.get(reason)
        self.left_out[reason] = Left(before.files + 1, before.example) if before else Left(1, example)

    def to_dict(self) -> dict[str, Any]:
        left = {reason: {"files": item.files, "example": item.example} for reason, item in self.left_out.items()}
        found = {"images": self.images, "classes": self.classes, "left_out": left, "digest": self.digest}
        return {"where": self.where, **found}

    def changes(self, before: Mapping[str, Any]) -> list[str]:
        """In what the data differ from those of an earlier `to_dict`; moved ones are the same."""
        changed = []
        if self.images != before["images"]:
            changed.append(f"{self.name} has {self.images:,} images, had {before['images']:,}")
        new = [name for name in self.classes if name not in before["classes"]]
        gone = [name for name in before["classes"] if name not in self.classes]
        for what, names in (("new", new), ("gone", gone)):
            if names:
                changed.append(f"{self.name}: {what} classes {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}")
        if not changed and self.classes != before["classes"]:
            changed.append(f"{self.name} has as many images, but others of some classes")
        if not changed and self.digest and before["digest"] not in ("", self.digest):
            changed.append(f"{self.name} has as many images, but other files")
        return changed


def digest_of(names: Iterable[str], labels: Iterable[int]) -> str:
    """Names a listing: the same files with the same labels in the same order."""
    listing = hashlib.sha256()
    for name, label in zip(names, labels):
        listing.update(f"{name}\0{label}\n".encode(errors="surrogateescape"))
    return listing.hexdigest()[:16]


def natural_key(text: str) -> tuple[list[Any], str]:
    """Sorts as timm does (upper and lower case alike, numbers by value), equal ones by their spelling."""
    parts: list[Any] = re.split(r"(\d+)", text.lower())
    parts[1::2] = map(int, parts[1::2])
    return parts, text


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name in LITTER


def hidden_path(path: str) -> bool:
    """Whether a file or any folder on the way to it is hidden."""
    return any(is_hidden(part) for part in path.split("/") if part not in ("", "."))


# --------------------------------------------------------------------- splits


def split_names(split: str) -> tuple[str, ...]:
    """What a split may be called on a disk, the name itself first."""
    return (split, *OTHER_NAMES.get(split, ()))


def find_split(root: Path, split: str) -> Path:
    """The folder or tar of a split: `root/split` (or its usual other names, in upper or lower case), else `root`."""
    if not root.exists():
        raise FileNotFoundError(f"No data at {root}: the path does not exist.")
    there = splits_of(root)
    for name in split_names(split):
        for spelled, path in there.items():
            if spelled == name or spelled.lower() == name.lower():
                return path
    if there:
        raise FileNotFoundError(f"No '{split}' split under {root}; it has {', '.join(there)}.")
    if split.lower() not in SPLIT_NAMES:
        raise FileNotFoundError(f"No '{split}' split under {root}: there is no folder of that name.")
    return root


def splits_of(root: Path) -> dict[str, Path]:
    """The folders and tars in `root` that are called as splits are, by their names.

    A folder called `train` that holds images itself, beside other folders with images, is a class (of vehicles).
    """
    if not root.is_dir():
        return {}
    folders = {entry.name: Path(entry.path) for entry in _visible(root) if entry.is_dir()}
    found = {name: path for name, path in folders.items() if name.lower() in SPLIT_NAMES}
    if any(name not in found and _has_image(path) for name, path in folders.items()):
        found = {name: path for name, path in found.items() if any(entry.is_dir() for entry in _visible(path))}
    for entry in _visible(root):
        stem, ending = os.path.splitext(entry.name)
        if ending.lower() == ".tar" and stem.lower() in SPLIT_NAMES and stem not in found:
            found[stem] = Path(entry.path)
    return dict(sorted(found.items(), key=lambda item: natural_key(item[0])))


def _visible(folder: str | Path) -> Iterator[os.DirEntry]:
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if not is_hidden(entry.name):
                yield entry


def _has_image(folder: str | Path, depth: int = 8) -> bool:
    folders = []
    for entry in _visible(folder):
        if entry.is_dir():
            folders.append(entry.path)
        elif is_image(entry.name):
            return True
    return depth > 0 and any(_has_image(path, depth - 1) for path in folders)


# --------------------------------------------------------------------- images


class ClassFolders:
    """Images by index with the class of their first folder; natural order.

    `left_out` says what is there besides, `empty` which folders hold no image.

    Args:
        root: a split, or a folder of class folders.
    """

    def __init__(self, root: str | Path):
        self.root = str(root)
        self.part = Part("", self.root, 0)
        names: dict[str, list[str]] = {}  # class -> images, as paths below the root
        loose: list[str] = []
        with os.scandir(self.root) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    self.part.leave_out("hidden", entry.name)
                elif entry.is_dir():
                    names[entry.name] = []
                    self._collect(entry, entry.name, names[entry.name])
                elif is_image(entry.name):
                    loose.append(entry.name)
                else:
                    self._leave_out(entry.name)
        if loose:
            self._refuse_loose(loose, sorted(names))
        self.empty = sorted((name for name, files in names.items() if not files), key=natural_key)
        self.classes = tuple(sorted((name for name, files in names.items() if files), key=natural_key))
        self.class_to_idx = {name: index for index, name in enumerate(self.classes)}
        # Of equal names in upper and lower case the order is that of the spelling, not of the file system.
        found = sorted(
            ((path, self.class_to_idx[name]) for name in self.classes for path in names[name]),
            key=lambda item: natural_key(item[0]),
        )
        self.keys = [path for path, _ in found]
        self.targets = [label for _, label in found]
        if not found:
            raise ValueError(self._nothing())
        counts = Counter(self.targets)
        self.part.images = len(found)
        self.part.classes = {name: counts[label] for label, name in enumerate(self.classes)}

    def _collect(self, folder: os.DirEntry, below: str, found: list[str]) -> None:
        """Adds all images in a folder and the folders in it."""
        with os.scandir(folder.path) as entries:
            for entry in entries:
                path = f"{below}/{entry.name}"
                if is_hidden(entry.name):
                    self.part.leave_out("hidden", path)
                elif entry.is_dir():
                    if entry.is_symlink() and _is_above(entry.path):
                        self.part.leave_out("a link to a folder that it lies in", path)
                    else:
                        self._collect(entry, path, found)
                elif not is_image(entry.name):
                    self._leave_out(path)
                elif entry.is_symlink() and not os.path.exists(entry.path):
                    self.part.leave_out("a link to nothing", path)
                else:
                    found.append(path)

    def _leave_out(self, path: str) -> None:
        ending = os.path.splitext(path)[1].lower()
        if ending in HEIC_SUFFIXES:
            self.part.leave_out(NO_HEIC, path)
        else:
            self.part.leave_out(f"no image ({ending or 'no ending'})", path)

    def _refuse_loose(self, loose: list[str], folders: list[str]) -> None:
        some = ", ".join(sorted(loose)[:3]) + (", ..." if len(loose) > 3 else "")
        beside = f" It also has the folders {', '.join(folders[:4])}." if folders else ""
        raise ValueError(
            f"{len(loose)} images lie directly in {self.root} ({some}), so nothing says their class.{beside} "
            "Move each into a folder that is called as its class."
        )

    def _nothing(self) -> str:
        left = "".join(
            f" Left out: {item.files} of {reason}, such as {item.example}."
            for reason, item in list(self.part.left_out.items())[:3]
            if not item.example.endswith(ARCHIVES)
        )
        return (
            f"No images under {self.root}: it must hold one folder of images per class "
            f"(formats: {READABLE}).{unpack_first(Path(self.root))}{left}"
        )

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> tuple[str, int]:
        return self.filename(index, absolute=True), self.targets[index]

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        key = self.keys[index]
        return os.path.basename(key) if basename else os.path.join(self.root, key) if absolute else key

    def key(self, index: int) -> str:
        return self.keys[index]

    def keep(self, indices: Sequence[int]) -> None:
        self.keys = [self.keys[i] for i in indices]
        self.targets = [self.targets[i] for i in indices]


def _is_above(link: str) -> bool:
    target, here = os.path.realpath(link), os.path.realpath(os.path.dirname(link))
    return here == target or here.startswith(target.rstrip(os.sep) + os.sep)


# ---------------------------------------------------------------------- table

SHOWN = 20  # classes; of more, the largest and the smallest


def survey(root: str | Path) -> list[Part]:
    """All splits of a data set in class folders, as training would read them; nothing is decoded."""
    root = Path(root)
    splits = {name: path for name, path in splits_of(root).items() if path.is_dir()}
    parts = []
    for name, path in splits.items() or [("", root)]:
        part = ClassFolders(path).part
        part.name = name or "images"
        parts.append(part)
    return parts


def table(parts: Sequence[Part]) -> str:
    """Classes, images of each part, and below what was left out and why: what training and the doctor show."""
    names = list(dict.fromkeys(name for part in parts for name in part.classes))
    lines = [f"{part.name}: {part.images:,} images in {part.where}" for part in parts]
    if names:
        rows = [("class", *(part.name for part in parts))]
        rows += [(name, *(f"{part.classes.get(name, 0):,}" for part in parts)) for name in _shown(names, parts)]
        rows.append((f"{len(names):,} classes", *(f"{part.images:,}" for part in parts)))
        widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
        for row in rows:
            cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
            lines.append("  " + "  ".join(cells))
        if len(names) > SHOWN:
            lines.insert(len(parts) + 1 + SHOWN // 2, f"  ... {len(names) - SHOWN:,} more")
    lines += [part.note for part in parts if part.note]
    for part in {part.where: part for part in reversed(parts)}.values():  # shares of one folder have one list
        for reason, left in part.left_out.items():
            such = left.example if left.files == 1 else f"such as {left.example}"
            lines.append(f"left out of {part.where}: {left.files:,} x {reason}: {such}")
    return "\n".join(lines)


def _shown(names: list[str], parts: Sequence[Part]) -> list[str]:
    if len(names) <= SHOWN:
        return names
    by_size = sorted(names, key=lambda name: -sum(part.classes.get(name, 0) for part in parts))
    return by_size[: SHOWN // 2] + by_size[-(SHOWN - SHOWN // 2) :]
