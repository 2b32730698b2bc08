"""WebDataset shards: tar files with an image and its label under one name, side by side (`1.jpg`, `1.cls`)."""

import glob
import io
import json
import os
import re
import tarfile
from typing import Literal

IMAGES = ("jpg", "jpeg", "png", "webp", "ppm")
LABELS = ("cls", "json")  # a number, or {"label": number}
OTHER_NAMES = {
    "train": ("training",),
    "validation": ("val", "valid", "eval", "test"),
    "val": ("validation", "valid", "test"),
}


class WebDatasetReader:
    """Random access to WebDataset shards on a local disk, with timm's reader interface.

    A streaming reader's order depends on its workers; this one reads the shards' indexes once (headers only), so that
    sample i is the same for any number of workers and an interrupted run can be continued exactly.

    Args:
        path: a folder (the `*.tar` of its folder `<split>`, else those with the split in their name, as
            `train-0000.tar` or `imagenet1k-train-0000.tar`, else all), or a pattern with `*` and `{0000..0009}`.
    """

    def __init__(self, path: str, split: str):
        self.shards = expand_shards(path, split)
        images: dict[tuple[int, str], tuple[str, int, int]] = {}
        labels: dict[tuple[int, str], tuple[str, int, int]] = {}
        for number, file in enumerate(self.shards):
            try:
                with tarfile.open(file, "r:") as archive:
                    for member in archive:
                        if not member.isfile():
                            continue
                        key, kind = member_kind(member.name)
                        there = (member.name, member.offset_data, member.size)
                        if kind == "image":
                            images[number, key] = there
                        elif kind == "label":
                            labels[number, key] = there
            except tarfile.TarError as error:
                raise ValueError(f"{file} is not a readable tar file: {error}.") from error
        self.samples: list[tuple[int, str, int, int]] = []
        self.targets: list[int] = []
        for place, (name, offset, size) in images.items():
            if place not in labels:
                raise ValueError(f"{self.shards[place[0]]}: {name} has no label (.cls or .json) beside it.")
            self.targets.append(self._label(place[0], labels[place]))
            self.samples.append((place[0], name, offset, size))
        if not self.samples:
            raise ValueError(f"No images in the shards of {path} ({len(self.shards)} files).")

    def _label(self, shard: int, place: tuple[str, int, int]) -> int:
        name, offset, size = place
        return parse_label(self._read(shard, offset, size), name, self.shards[shard])

    def _read(self, shard: int, offset: int, size: int) -> bytes:
        with open(self.shards[shard], "rb") as file:
            file.seek(offset)
            return file.read(size)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[io.BytesIO, int]:
        shard, _, offset, size = self.samples[index]
        return io.BytesIO(self._read(shard, offset, size)), self.targets[index]

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        shard, name, _, _ = self.samples[index]
        return os.path.basename(name) if basename else f"{self.shards[shard]}:{name}"


def expand_shards(path: str, split: str) -> list[str]:
    """The files of a folder or pattern; addresses (`https://...`, `pipe:...`) are not looked at."""
    if os.path.isdir(path):
        files = _shards_of_folder(path, split)
    else:
        match = re.search(r"\{(\d+)\.\.(\d+)\}", path)
        patterns = [path]
        if match:
            low, high = match[1], match[2]
            numbers = range(int(low), int(high) + 1)
            patterns = [path[: match.start()] + str(n).zfill(len(low)) + path[match.end() :] for n in numbers]
        if is_remote(path):
            return patterns
        files = [file for pattern in patterns for file in sorted(glob.glob(pattern)) or [pattern]]
    if not files:
        raise FileNotFoundError(f"No .tar shards in {path}.")
    if missing := [file for file in files if not os.path.exists(file)]:
        raise FileNotFoundError(f"No shard {missing[0]} ({len(missing)} of {len(files)} missing).")
    return files


def split_names(split: str) -> tuple[str, ...]:
    """What a split may be called on a disk, the name itself first."""
    return (split, *OTHER_NAMES.get(split, ()))


def _shards_of_folder(path: str, split: str) -> list[str]:
    for name in split_names(split):
        if inside := sorted(glob.glob(os.path.join(glob.escape(path), name, "*.tar"))):
            return inside
    every = sorted(glob.glob(os.path.join(glob.escape(path), "*.tar")))
    for name in split_names(split):
        if named := [file for file in every if _says(file, name)]:
            return named
    others = {name for known in OTHER_NAMES for name in split_names(known)}
    if there := sorted(name for name in others if any(_says(file, name) for file in every)):
        raise FileNotFoundError(f"No '{split}' shards in {path}; it has {', '.join(there)}.")
    return every


def _says(file: str, split: str) -> bool:
    """Whether a file's name has a split's name as one of its words."""
    return split in re.split(r"[-_.\d]+", os.path.basename(file).lower())


def member_kind(name: str) -> tuple[str, Literal["image", "label", ""]]:
    """What a tar's member is, and the name it shares with the other members of its sample."""
    folder, _, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    kind: Literal["image", "label", ""] = ""
    if extension.lower() in IMAGES:
        kind = "image"
    elif extension.lower() in LABELS:
        kind = "label"
    return f"{folder}/{stem}", kind


def parse_label(content: bytes, name: str, shard: str) -> int:
    text = content.decode(errors="replace")
    try:
        return int(json.loads(text)["label"]) if name.endswith("json") else int(text)
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{shard}: the label {name} is not a number: {text[:40]!r}") from None


def is_remote(path: str) -> bool:
    return path.startswith("pipe:") or "://" in path


def count_images(shard: str) -> int:
    """Images in a local shard, by its headers."""
    try:
        with tarfile.open(shard, "r:") as archive:
            return sum(member.isfile() and member_kind(member.name)[1] == "image" for member in archive)
    except tarfile.TarError as error:
        raise ValueError(f"{shard} is not a readable tar file: {error}.") from error
