"""Class folders in a tar, one tar per class, or a tar of those (as ImageNet comes)."""

import io
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from litevit.data.class_folders import SPLIT_NAMES, Part, hidden_path, is_hidden, natural_key
from litevit.data.images import is_image
from litevit.data.tars import members

DEEPEST = 4  # a tar per class in a tar of splits in a tar, and one more


class _Place(NamedTuple):
    """An image in a tar: where its bytes lie, and its path below the split, the class first."""

    file: int
    key: str
    offset: int
    size: int


class ClassTars:
    """Random access to tars with the order, the classes and the names of the unpacked folders.

    The headers are read once; an image is then read at its place, so that any number of loader workers may share it
    (timm's reader keeps open files, takes the last folder for the class, and sorts without the class).

    Args:
        root: a `.tar`, or a folder with one `.tar` per class.
    """

    def __init__(self, root: Path):
        self.root = str(root)
        self.part = Part("", self.root, 0)
        found: list[_Place] = []
        if root.is_file():
            self.files = [self.root]
            found = self._members(0)
            found = [place._replace(key=key) for place, key in zip(found, _below(found, root))]
        else:
            paths = sorted((path for path in root.glob("*.tar") if not is_hidden(path.name)), key=lambda p: p.name)
            self.files = [str(path) for path in paths]
            for number, path in enumerate(paths):
                found += [place._replace(key=f"{path.stem}/{place.key}") for place in self._members(number)]
        if loose := [place.key for place in found if "/" not in place.key]:
            raise ValueError(
                f"{len(loose)} images of {self.root} lie in no folder (such as {loose[0]}), so nothing says their "
                "class. It must hold one folder (or tar) of images per class."
            )
        if not found:
            raise ValueError(f"No images in {self.root}: it must hold one folder (or tar) of images per class.")
        self.classes = tuple(sorted({place.key.partition("/")[0] for place in found}, key=natural_key))
        self.class_to_idx = {name: index for index, name in enumerate(self.classes)}
        self.samples = sorted(found, key=lambda place: natural_key(place.key))
        self.targets = [self.class_to_idx[place.key.partition("/")[0]] for place in self.samples]
        counts = Counter(self.targets)
        self.part.images = len(found)
        self.part.classes = {name: counts[label] for label, name in enumerate(self.classes)}

    def _members(
        self, number: int, *, start: int = 0, size: int | None = None, folder: str = "", depth: int = 0
    ) -> list[_Place]:
        """Images of a tar, or of `size` bytes from `start` of its file on, and of the tars in it."""
        found = []
        file = self.files[number]
        for member in members(file, start=start, size=size):
            name = member.name.removeprefix("./")
            if hidden_path(name):
                self.part.leave_out("hidden", name)
            elif name.lower().endswith(".tar"):
                if depth == DEEPEST:
                    raise ValueError(f"{file}: tars lie in it in tars in tars, more than {DEEPEST} deep.")
                inside = f"{folder}{os.path.basename(name)[:-4]}/"
                at = start + member.offset_data
                found += self._members(number, start=at, size=member.size, folder=inside, depth=depth + 1)
            elif is_image(name):
                found.append(_Place(number, folder + name, start + member.offset_data, member.size))
            else:
                self.part.leave_out(f"no image ({os.path.splitext(name)[1].lower() or 'no ending'})", folder + name)
        return found

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[io.BytesIO, int]:
        place = self.samples[index]
        with open(self.files[place.file], "rb") as file:
            file.seek(place.offset)
            return io.BytesIO(file.read(place.size)), self.targets[index]

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        key = self.samples[index].key
        return os.path.basename(key) if basename else os.path.join(self.root, key) if absolute else key

    def key(self, index: int) -> str:
        return self.samples[index].key

    def keep(self, indices: Sequence[int]) -> None:
        self.samples = [self.samples[i] for i in indices]
        self.targets = [self.targets[i] for i in indices]


def _below(found: Sequence[Any], root: Path) -> list[str]:
    """Paths below the split: without a folder that holds all of them and is called as a split, or as the tar is.

    Another folder around everything is taken off too where folders follow: one class alone would be no data set.
    """
    keys = [place.key for place in found]
    while keys and all("/" in key for key in keys):
        tops = {key.partition("/")[0] for key in keys}
        if len(tops) != 1:
            break
        deeper = all(key.count("/") > 1 for key in keys)
        (top,) = tops
        if not deeper and not (top.lower() in SPLIT_NAMES or top == root.stem):
            break
        keys = [key.partition("/")[2] for key in keys]
    return keys
