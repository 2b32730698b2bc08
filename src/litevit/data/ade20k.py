"""Semantic segmentation data: ADE20K as published, and any folder of images with index masks.

A sample is `(image, target)`: image a uint8 `tv_tensors.Image` (3, H, W), target a dict with
    semantic  `tv_tensors.Mask` (H, W) int64: classes 0..K-1, 255 where nothing is to be learned
    image_id  str, the file's path inside the folder without its suffix
"""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from litevit.data.class_folders import Part
from litevit.data.images import SUFFIXES, is_image, read_annotated, turn_target
from litevit.data.layouts import JPEG, MASK_ENDINGS, MASK_SUFFIXES, NO_JPEG, find_file, is_mask_name
from litevit.data.mask_labels import IGNORE as IGNORE
from litevit.data.mask_labels import MaskLabels, check_values, labels_of, read_index_mask, read_labels

SAMPLE = 200  # masks that are read before training, to see whether their values can mean what the setting says
THREADS = 2


def read_classes(path: str | Path) -> tuple[str, ...]:
    """Class names from a list of masks' classes, see `litevit.data.mask_labels`."""
    return read_labels(path).names


class SegmentationFolder(Dataset):
    """A folder of images and a folder of index masks with the same names (and subfolders).

    Args:
        images: folder of the images.
        masks: folder of the masks: `x.png` (or .bmp, .tif, .gif, `x_mask.png`) for `x.jpg`; it may be the same folder.
        classes: what the masks' values mean, or the names of the classes 0..K-1.
        reduce_zero_label: with names: the file's 0 is "ignore" and 1..K are the classes (ADE20K).
        ignore_index: with names: the value that counts for nothing.
        listed: text file of the names (without suffix) that are read; None: all.
        only: keep the images of which it says so, by their names in the folder.
        transforms: called as `transforms(image, target)`.
    """

    def __init__(
        self,
        images: str | Path,
        masks: str | Path,
        classes: Sequence[str] | MaskLabels,
        *,
        reduce_zero_label: bool = False,
        ignore_index: int = IGNORE,
        listed: Path | None = None,
        only: Callable[[str], bool] | None = None,
        transforms: Callable[[Any, Any], tuple[Any, Any]] | None = None,
    ):
        self.folder, self.masks = Path(images), Path(masks)
        if not isinstance(classes, MaskLabels):
            classes = labels_of(classes, reduce_zero_label=reduce_zero_label, ignore_index=ignore_index)
        self.labels, self.classes, self.transforms = classes, classes.names, transforms
        for folder in (self.folder, self.masks):
            if not folder.is_dir():
                raise FileNotFoundError(f"folder {folder} does not exist")
        self.files = sorted(path for path in self.folder.rglob("*") if is_image(path))
        if self.masks == self.folder:
            self.files = [path for path in self.files if not is_mask_name(path.name)]
        if not self.files:
            raise ValueError(f"no images ({', '.join(SUFFIXES)}) in {self.folder}")
        if listed is not None:
            names = {line.strip() for line in listed.read_text(encoding="utf-8-sig").splitlines() if line.strip()}
            self.files = [path for path in self.files if self._name(path) in names]
            if len(self.files) < len(names):
                lost = sorted(names - {self._name(path) for path in self.files})
                raise FileNotFoundError(
                    f"{listed} lists {len(lost)} images that are not in {self.folder}, such as {lost[0]}"
                )
        if only is not None:
            self.files = [path for path in self.files if only(path.relative_to(self.folder).as_posix())]
        there = {path.relative_to(self.masks).as_posix() for path in self.masks.rglob("*") if path.is_file()}
        for index in range(len(self.files)):
            if self._find_mask(index, there) is None:
                raise FileNotFoundError(
                    f"image {self.files[index]} has no mask {self.masks / self.image_id(index)}.png"
                    + (f". {NO_JPEG}" if self.masks != self.folder and find_file(self.masks, JPEG) else "")
                )
        self.mask_names = [self._find_mask(index, there) for index in range(len(self.files))]
        self.part = Part("", str(self.folder), len(self.files))

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).with_suffix("").as_posix()

    def _find_mask(self, index: int, there: set[str]) -> str | None:
        own = self.files[index].relative_to(self.folder).as_posix()
        return find_mask(self.image_id(index), there, own if self.masks == self.folder else None)

    def values(self, most: int = SAMPLE) -> tuple[Counter[int], bool]:
        """Pixels of each value in the masks, evenly taken from all, and whether these are all."""
        step = max(1, -(-len(self) // most))
        chosen = range(0, len(self), step)
        counts: Counter[int] = Counter()
        with ThreadPoolExecutor(THREADS) as pool:
            for found in pool.map(self._count_values, chosen):
                counts.update(found)
        return counts, step == 1

    def _count_values(self, index: int) -> dict[int, int]:
        return count_values(read_index_mask(self.mask_path(index), self.labels.colours))

    def check_masks(self, *, trusted: bool = False) -> list[str]:
        """Stops when the masks cannot mean what the setting says; see `check_values`."""
        counts, whole = self.values()
        where = f"the masks in {self.masks}" if whole else f"{SAMPLE} masks looked at in {self.masks}"
        return check_values(self.labels, counts, where, whole=whole, trusted=trusted)

    def __len__(self) -> int:
        return len(self.files)

    def image_id(self, index: int) -> str:
        return self._name(self.files[index])

    def mask_path(self, index: int) -> Path:
        return self.masks / str(self.mask_names[index])

    def read_mask(self, index: int) -> Tensor:
        """Returns: (H, W) int64, classes 0..K-1 and 255, at the file's size."""
        return torch.from_numpy(self.labels.read(self.mask_path(index))).long()

    def __getitem__(self, index: int) -> tuple[Any, dict[str, Any]]:
        semantic = self.read_mask(index)
        mask = self.mask_path(index)
        image, turn = read_annotated(self.files[index], tuple(semantic.shape), stated_by=f"its mask {mask} is")
        target = turn_target({"image_id": self.image_id(index), "semantic": tv_tensors.Mask(semantic)}, turn)
        return (image, target) if self.transforms is None else self.transforms(image, target)


def find_mask(stem: str, there: set[str], image: str | None = None) -> str | None:
    """The mask of an image among the names in a folder.

    Args:
        image: the image's own name, where it is in the same folder.
    """
    suffixes = (*MASK_SUFFIXES, *(suffix.upper() for suffix in MASK_SUFFIXES))
    names = (f"{stem}{end}{suffix}" for suffix in suffixes for end in MASK_ENDINGS)
    return next((name for name in names if name in there and name != image), None)


def count_values(indices: np.ndarray) -> dict[int, int]:
    """Pixels of each value."""
    counts = np.bincount(indices.reshape(-1))
    present = np.flatnonzero(counts)
    return dict(zip(present.tolist(), counts[present].tolist()))


def ade20k(root: str | Path, split: str, *, classes: Sequence[str] | None = None, **options: Any) -> SegmentationFolder:
    """ADE20K (ADEChallengeData2016) as it is published: `images/{training,validation}` and `annotations/{...}`.

    The class list is `classes`, or the root's `classes.json` or `objectInfo150.txt`.
    """
    if split not in ("training", "validation"):
        raise ValueError(f"split must be 'training' or 'validation', got {split!r}")
    root = Path(root)
    if classes is None:
        lists = [root / name for name in ("classes.json", "objectInfo150.txt") if (root / name).is_file()]
        if not lists:
            raise FileNotFoundError(
                f"no class list in {root}: put classes.json or objectInfo150.txt there, or give classes="
            )
        classes = read_classes(lists[0])
    options = {"reduce_zero_label": True} | options
    return SegmentationFolder(root / "images" / split, root / "annotations" / split, classes, **options)
