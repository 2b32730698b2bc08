"""Semantic segmentation data: ADE20K as published, and any folder of images with index masks.

A sample is `(image, target)`: image a uint8 `tv_tensors.Image` (3, H, W), target a dict with
    semantic  `tv_tensors.Mask` (H, W) int64: classes 0..K-1, 255 where nothing is to be learned
    image_id  str, the file's path inside the folder without its suffix
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from litevit.data.images import SUFFIXES, is_image, read_annotated, turn_target

IGNORE = 255
IMAGE_SUFFIXES = SUFFIXES


def read_index_mask(path: str | Path) -> np.ndarray:
    """Returns: (H, W) int64 indices. A palette PNG gives its indices, not its colours."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"mask {path} does not exist")
    try:
        with PILImage.open(path) as file:
            mode, indices = file.mode, np.array(file)
    except (OSError, SyntaxError) as error:
        raise OSError(f"mask {path} cannot be decoded: {error}") from None
    if mode not in ("L", "P", "I", "I;16", "1"):
        raise ValueError(
            f"mask {path} is a colour picture (mode {mode}); a PNG of class indices (mode L or P) is needed"
        )
    return indices.astype(np.int64)


def read_classes(path: str | Path) -> tuple[str, ...]:
    """Class names from `classes.json` (a list, or a dict of index -> name from 1) or ADE20K's `objectInfo150.txt`."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"class list {path} does not exist")
    if path.suffix == ".txt":  # Idx  Ratio  Train  Val  Stuff  Name, with a head line and tabs
        rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:] if line.strip()]
        return tuple(row[-1].strip() for row in rows)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"class list {path} is not JSON: {error}") from None
    if isinstance(content, list):
        return tuple(str(name) for name in content)
    if isinstance(content, dict) and sorted(content, key=lambda k: (len(k), k)) == [
        str(i + 1) for i in range(len(content))
    ]:
        return tuple(str(content[str(i + 1)]) for i in range(len(content)))
    raise ValueError(f"class list {path} must be a list of names or an object with the keys '1', '2', ... without gaps")


class SegmentationFolder(Dataset):
    """A folder of images and a folder of index masks with the same names (and subfolders).

    Args:
        images: folder of the images.
        masks: folder of the masks, `.png`.
        classes: names of the classes 0..K-1.
        reduce_zero_label: the file's 0 is "ignore" and 1..K are the classes (ADE20K); otherwise 0..K-1 are the classes.
            255 is "ignore" either way.
        transforms: called as `transforms(image, target)`.
    """

    def __init__(
        self,
        images: str | Path,
        masks: str | Path,
        classes: Sequence[str],
        *,
        reduce_zero_label: bool = False,
        transforms: Callable[[Any, Any], tuple[Any, Any]] | None = None,
    ):
        self.folder, self.masks = Path(images), Path(masks)
        self.classes = tuple(classes)
        self.reduce_zero_label, self.transforms = reduce_zero_label, transforms
        if not 1 <= len(self.classes) <= IGNORE:
            raise ValueError(f"classes needs 1 to {IGNORE} names, got {len(self.classes)}")
        for folder in (self.folder, self.masks):
            if not folder.is_dir():
                raise FileNotFoundError(f"folder {folder} does not exist")
        self.files = sorted(path for path in self.folder.rglob("*") if is_image(path))
        if not self.files:
            raise ValueError(f"no images ({', '.join(IMAGE_SUFFIXES)}) in {self.folder}")
        for index in range(len(self.files)):
            if not self.mask_path(index).is_file():
                raise FileNotFoundError(f"image {self.files[index]} has no mask {self.mask_path(index)}")

    def __len__(self) -> int:
        return len(self.files)

    def image_id(self, index: int) -> str:
        return self.files[index].relative_to(self.folder).with_suffix("").as_posix()

    def mask_path(self, index: int) -> Path:
        return self.masks / f"{self.image_id(index)}.png"

    def read_mask(self, index: int) -> Tensor:
        """Returns: (H, W) int64, classes 0..K-1 and 255, at the file's size."""
        path = self.mask_path(index)
        indices = read_index_mask(path)
        void = indices == IGNORE
        if self.reduce_zero_label:
            void |= indices == 0
            indices = indices - 1
        if (wrong := (indices >= len(self.classes)) & ~void).any():
            allowed = (
                f"0 (ignore) and 1..{len(self.classes)}" if self.reduce_zero_label else f"0..{len(self.classes) - 1}"
            )
            value = int(indices[wrong].max()) + self.reduce_zero_label
            raise ValueError(f"mask {path} has the value {value}; {len(self.classes)} classes allow {allowed}, and 255")
        return torch.from_numpy(np.where(void, IGNORE, indices))

    def __getitem__(self, index: int) -> tuple[Any, dict[str, Any]]:
        semantic = self.read_mask(index)
        mask = self.mask_path(index)
        image, turn = read_annotated(self.files[index], tuple(semantic.shape), stated_by=f"its mask {mask} is")
        target = turn_target({"image_id": self.image_id(index), "semantic": tv_tensors.Mask(semantic)}, turn)
        return (image, target) if self.transforms is None else self.transforms(image, target)


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
