"""WebDataset shards: tar files with an image and its label under one name, side by side (`1.jpg`, `1.cls`)."""

import glob
import io
import os
import re
from collections.abc import Sequence
from typing import Any, Literal

from litevit.data.class_folders import OTHER_NAMES, Part, hidden_path, split_names
from litevit.data.images import is_image
from litevit.data.tars import MOST_LABEL, members
from litevit.files import parse_json

LABELS = (".cls", ".json")  # a number, or {"label": number}
MOST_SHARDS = 1_000_000
Kind = Literal["image", "label", ""]


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
        self.part = Part("", path, 0)
        self.samples: list[tuple[int, str, int, int]] = []
        self.targets: list[int] = []
        for number, file in enumerate(self.shards):
            pairs = Pairs(file, self.part)
            for member in members(file):
                pairs.add(member.name, (member.name, member.offset_data, member.size))
            found = sorted(pairs.finish(), key=lambda pair: pair[0][1])  # in the order of the images
            for image, label in found:
                self.targets.append(self._label(number, label))
                self.samples.append((number, *image))
        if not self.samples:
            raise ValueError(f"No images in the shards of {path} ({len(self.shards)} files).")
        self.part.images = len(self.samples)

    def _label(self, shard: int, place: tuple[str, int, int]) -> int:
        name, offset, size = place
        if size > MOST_LABEL:
            raise ValueError(f"{self.shards[shard]}: the label {name} has {size:,} bytes, and is no number.")
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

    def key(self, index: int) -> str:
        """By the last folder in the shard, as label maps are called."""
        return "/".join(self.samples[index][1].split("/")[-2:])

    def keep(self, indices: Sequence[int]) -> None:
        self.samples = [self.samples[i] for i in indices]
        self.targets = [self.targets[i] for i in indices]


class Pairs:
    """Images of a shard with the labels beside them.

    A sample's name ends at the last dot of its files, so `photo.v2.jpg` belongs to `photo.v2.cls`. WebDataset ends it
    at the first one; so `1.input.jpg` belongs to `1.cls` where that has no other image, and `1.seg.png` beside `1.jpg`
    is left out. Where a sample has both, `.cls` is its label and `.json` describes it.

    Args:
        where: the shard, for messages.
        part: is told what was left out.
    """

    def __init__(self, where: str, part: Part):
        self.where, self.part = where, part
        self.images: dict[str, Any] = {}  # name without ending -> what was added; not yet with a label
        self.labels: dict[str, dict[str, Any]] = {}  # the same -> ending -> what was added
        self.paired: set[str] = set()
        self.pairs: list[tuple[Any, Any]] = []

    def add(self, name: str, content: Any) -> None:
        """Args: name: of the member; content: what the pair is to be made of."""
        key, kind = member_kind(name)
        ending = os.path.splitext(name)[1].lower()
        if not kind:
            other = f"neither image nor label ({ending or 'no ending'})"
            self.part.leave_out("hidden" if hidden_path(name) else other, name)
        elif kind == "image" and (key in self.images or key in self.paired):
            self.part.leave_out("a second image of one name", name)
        elif kind == "image":
            self.images[key] = content
        elif key not in self.paired:
            self.labels.setdefault(key, {})[ending] = content
        if key in self.images and ".cls" in self.labels.get(key, {}):
            self._pair(key, key)

    def _pair(self, image: str, label: str) -> None:
        labels = self.labels.pop(label)
        self.paired.add(label)
        self.pairs.append((self.images.pop(image), labels[".cls" if ".cls" in labels else ".json"]))

    def finish(self) -> list[tuple[Any, Any]]:
        """The pairs since the last call; an image that is alone then is looked at by WebDataset's rule, or refused."""
        for key in [key for key in self.images if key in self.labels]:
            self._pair(key, key)
        of_sample: dict[str, list[str]] = {}
        for key in self.images:
            of_sample.setdefault(first_dot(key), []).append(key)
        for sample, images in of_sample.items():
            if sample in self.labels and len(images) == 1:
                self._pair(images[0], sample)
            elif sample in self.paired:
                for key in images:
                    self.part.leave_out("a further image of a sample", key)
                    del self.images[key]
        if self.images:
            alone = next(iter(self.images)).lstrip("/")
            raise ValueError(f"{self.where}: {alone} has no label (.cls or .json) beside it.")
        for key in self.labels:
            self.part.leave_out("a label without an image", key)
        self.labels.clear()
        self.paired.clear()
        return self.take()

    def take(self) -> list[tuple[Any, Any]]:
        """The pairs that are whole so far."""
        pairs, self.pairs = self.pairs, []
        return pairs


def expand_shards(path: str, split: str) -> list[str]:
    """The files of a folder or pattern; addresses (`https://...`, `pipe:...`) are not looked at."""
    if os.path.isdir(path):
        files = _shards_of_folder(path, split)
    else:
        match = re.search(r"\{(\d+)\.\.(\d+)\}", path)
        patterns = [path]
        if match:
            low, high = match[1], match[2]
            if max(len(low), len(high)) > 18 or int(high) - int(low) >= MOST_SHARDS:
                raise ValueError(f"{path[:200]} names more than {MOST_SHARDS:,} shards")
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


def member_kind(name: str) -> tuple[str, Kind]:
    """What a tar's member is, and the name it shares with the other members of its sample."""
    folder, _, base = name.rpartition("/")
    stem, ending = os.path.splitext(base)
    kind: Kind = ""
    if hidden_path(name):
        kind = ""
    elif is_image(base):
        kind = "image"
    elif ending.lower() in LABELS:
        kind = "label"
    return f"{folder}/{stem}", kind


def first_dot(key: str) -> str:
    """WebDataset's name of a sample."""
    folder, _, base = key.rpartition("/")
    return f"{folder}/{base.partition('.')[0]}"


def parse_label(content: bytes, name: str, shard: str) -> int:
    text = content.decode(errors="replace")
    try:
        return int(parse_json(text, name)["label"]) if name.endswith("json") else int(text)
    except (ValueError, KeyError, TypeError, OverflowError):
        raise ValueError(f"{shard}: the label {name} is not a number: {text[:40]!r}") from None


def is_remote(path: str) -> bool:
    return path.startswith("pipe:") or "://" in path


def count_images(shard: str) -> int:
    """Images with a label in a local shard, by its headers."""
    pairs = Pairs(shard, Part("", shard, 0))
    for member in members(shard):
        pairs.add(member.name, None)
    return len(pairs.finish())
