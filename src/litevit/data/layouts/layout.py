"""What a layout is: where the parts of a data set lie, by split."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from litevit.data.layouts.folders import relative, visible

Task = Literal["instances", "panoptic", "semantic", "classification"]
Kind = Literal["coco", "yolo", "voc", "masks", "folders"]

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
ALL = "all"  # the one part of a set without splits


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
        parts = ", ".join(f"{split} in {relative(self.root, part.annotations)}" for split, part in self.parts.items())
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


def split_of(name: str) -> str | None:
    """`instances_train2017` -> "train", `valid` -> "val"; None: the name says nothing."""
    words = [re.sub(r"\d+$", "", word) for word in re.split(r"[^a-z0-9]+", name.lower())]
    for split, names in SPLITS.items():
        if any(word in names for word in words):
            return split
    return None


def split_folders(folder: Path) -> dict[str, Path]:
    """train, val and test in a folder, whatever they are called."""
    found: dict[str, Path] = {}
    for entry in visible(folder):
        split = split_of(entry.name) if entry.is_dir() else None
        if split is not None and split not in found:
            found[split] = Path(entry.path)
    return found
