"""Folders as layouts are told by them: what is visible in one, whatever the case of its name."""

import os
from collections.abc import Iterator
from pathlib import Path

from litevit.data.class_folders import is_hidden
from litevit.data.images import is_image

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "JPEGImages", "data")


def relative(root: Path, path: Path) -> str:
    """A path as messages name it: from the root of the data set, where it lies below."""
    try:
        return path.relative_to(root).as_posix() or "."
    except ValueError:
        return str(path)


def listing(path: Path) -> str:
    """What is there, for a message that it is nothing known."""
    if path.is_file():
        return "the ending of no annotation file"
    names = [entry.name + ("/" if entry.is_dir() else "") for entry in visible(path)]
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "nothing in it"


def visible(folder: Path) -> list[os.DirEntry]:
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not is_hidden(entry.name)), key=lambda entry: entry.name)


def child_folder(folder: Path, *names: str) -> Path | None:
    """A folder in a folder, whatever the case of its name."""
    there = {entry.name.lower(): Path(entry.path) for entry in visible(folder) if entry.is_dir()}
    return next((there[name.lower()] for name in names if name.lower() in there), None)


def find_file(folder: Path, suffixes: tuple[str, ...], depth: int = 3) -> Path | None:
    """The first file with such an ending in a folder or the folders in it."""
    folders = []
    for entry in visible(folder):
        if entry.is_dir():
            folders.append(Path(entry.path))
        elif entry.name.lower().endswith(suffixes):
            return Path(entry.path)
    return next((file for below in folders if depth and (file := find_file(below, suffixes, depth - 1))), None)


def has_images(folder: Path, depth: int = 3) -> bool:
    folders = []
    for entry in visible(folder):
        if entry.is_dir():
            folders.append(Path(entry.path))
        elif is_image(entry.name):
            return True
    return depth > 0 and any(has_images(below, depth - 1) for below in folders)


def folders_below(root: Path, depth: int = 3) -> Iterator[Path]:
    for entry in visible(root):
        if entry.is_dir():
            yield Path(entry.path)
            if depth > 1:
                yield from folders_below(Path(entry.path), depth - 1)
