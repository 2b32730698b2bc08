"""Image classification data: what a recipe says about it, reading it through timm, and the published augmentations.

Sources (`ClassificationData.path` and `.reader`):
* a folder with one folder per class, or with `train` and `validation` (or `val`) folders of that kind;
* a `.tar` file with a folder per class, or a folder with one `.tar` per class;
* WebDataset shards: a folder or a pattern such as `shards/train-{0000..0009}.tar`, with `reader="wds"`;
* a Hugging Face data set, with `reader="hfds/NAME"` (`path` is then its cache folder, and may be empty);
* the data that come with the installation: `path="embedded:digits"`.
"""

import glob
import io
import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from litevit.data.embedded import Digits
from litevit.data.sampling import Unreadable

ANY = 10**9  # as a number of classes: not compared with the data
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Training augmentation; the defaults are those of every published LIT and LITv2 row (timm's names)."""

    crop: Literal["resized", "padded"] = "resized"  # RandomResizedCrop, or (small images) padding and a random crop
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: float = 0.5
    interpolation: Literal["bicubic", "bilinear", "random"] = "bicubic"
    auto_augment: str | None = "rand-m9-mstd0.5-inc1"
    color_jitter: float | None = 0.4  # timm ignores it while auto_augment is set
    erase_prob: float = 0.25
    erase_mode: Literal["pixel", "rand", "const"] = "pixel"
    erase_count: int = 1
    mixup: float = 0.8
    cutmix: float = 1.0
    mix_prob: float = 1.0
    switch_prob: float = 0.5
    label_smoothing: float = 0.1
    repeats: int = 1  # repeated augmentation: each sample this many times per epoch, the epoch as long as before


@dataclass(frozen=True, kw_only=True)
class ClassificationData:
    path: str = ""
    reader: str = ""  # timm's prefix: "" (folder or tar), "wds", "hfds/NAME"
    train_split: str = "train"
    eval_split: str = "validation"
    num_classes: int = 1000  # 0: count the class folders
    hold_out: float = 0.0  # share of each class to evaluate on, where a folder has no split for it
    image_size: int = 224
    crop_pct: float = 0.875  # evaluation: shorter side to image_size / crop_pct, then a centre crop; 1.0: plain resize
    eval_interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    augment: Augment = field(default_factory=Augment)
    eval_batch_size: int = 128  # per process
    unreadable: Literal["skip", "raise"] = "skip"  # in training; evaluation always raises
    max_unreadable: int = 100  # a run skips at most so many before it stops
    token_labels: str | None = None  # folder of label maps (`litevit token-labels`) for token labelling
    token_label_crop: Literal["aligned", "transposed"] = "aligned"  # "transposed" reproduces the published package


def create_dataset(data: ClassificationData, split: Literal["train", "eval"]) -> Dataset:
    """The training set with its augmentation, or the evaluation set with its crop."""
    transform = train_transform(data) if split == "train" else eval_transform(data)
    if data.path == "embedded:digits":
        return Digits("train" if split == "train" else "validation", size=data.image_size, transform=transform)
    policy: Literal["skip", "raise"] = data.unreadable if split == "train" else "raise"
    reader = create_reader(data, data.train_split if split == "train" else data.eval_split)
    if data.hold_out and _one_folder_for_both(data):
        held_out = set(held_out_indices([sample[1] for sample in reader.samples], data.hold_out))
        keep = [i for i in range(len(reader)) if (i in held_out) == (split == "eval")]
        reader.samples = [reader.samples[i] for i in keep]
    elif split == "train" and _one_folder_for_both(data):
        raise ValueError(
            f"{data.path} has no '{data.eval_split}' folder, so it would be evaluated on its training images. "
            "Make one, or hold out a share of each class with --data.hold_out 0.1."
        )
    return ClassificationImages(reader, num_classes=data.num_classes, transform=transform, unreadable=policy)


def _one_folder_for_both(data: ClassificationData) -> bool:
    if data.reader or data.train_split == data.eval_split:
        return False
    root = Path(data.path)
    return root.is_dir() and find_split(root, data.train_split) == find_split(root, data.eval_split) == root


def held_out_indices(labels: Sequence[int], share: float) -> list[int]:
    """A fixed choice of at least one sample per class that has two: the same in every run, whatever its seed."""
    generator = torch.Generator().manual_seed(0)
    of_class: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        of_class.setdefault(int(label), []).append(index)
    chosen = []
    for _, members in sorted(of_class.items()):
        count = max(1, round(share * len(members))) if len(members) > 1 else 0
        chosen += [members[i] for i in torch.randperm(len(members), generator=generator)[:count].tolist()]
    return sorted(chosen)


def train_transform(data: ClassificationData) -> Callable[[Image.Image], Tensor]:
    from timm.data import create_transform

    augment = data.augment
    if augment.crop == "padded":
        return _small_image_transform(data)
    return create_transform(
        input_size=(3, data.image_size, data.image_size),
        is_training=True,
        scale=augment.scale,
        ratio=augment.ratio,
        hflip=augment.hflip,
        color_jitter=augment.color_jitter or 0.0,
        auto_augment=augment.auto_augment,
        interpolation=augment.interpolation,
        mean=data.mean,
        std=data.std,
        re_prob=augment.erase_prob,
        re_mode=augment.erase_mode,
        re_count=augment.erase_count,
        use_prefetcher=False,
    )


def _small_image_transform(data: ClassificationData) -> Callable[[Image.Image], Tensor]:
    """CIFAR's: pad by an eighth, crop, flip, then as for large images."""
    from timm.data.auto_augment import rand_augment_transform
    from timm.data.random_erasing import RandomErasing
    from torchvision import transforms

    augment, size = data.augment, data.image_size
    steps: list[Any] = [transforms.Resize(size), transforms.RandomCrop(size, padding=size // 8)]
    steps.append(transforms.RandomHorizontalFlip(augment.hflip))
    if augment.auto_augment:
        fill = tuple(round(255 * value) for value in data.mean)
        steps.append(rand_augment_transform(augment.auto_augment, {"translate_const": size // 3, "img_mean": fill}))
    steps += [transforms.ToTensor(), transforms.Normalize(data.mean, data.std)]
    if augment.erase_prob:
        mode, count = augment.erase_mode, augment.erase_count
        steps.append(RandomErasing(augment.erase_prob, mode=mode, max_count=count, device="cpu"))
    return transforms.Compose(steps)


def eval_transform(data: ClassificationData) -> Callable[[Image.Image], Tensor]:
    """The published protocol: shorter side to int(size / crop_pct), centre crop; at crop_pct 1 a square resize."""
    from timm.data import create_transform

    return create_transform(
        input_size=(3, data.image_size, data.image_size),
        is_training=False,
        interpolation=data.eval_interpolation,
        mean=data.mean,
        std=data.std,
        crop_pct=data.crop_pct,
        crop_mode="squash" if data.crop_pct == 1.0 else "center",
        use_prefetcher=False,
    )


class ClassificationImages(Dataset):
    """Images of a timm reader. One that cannot be read is never silently replaced (timm's own data set would).

    Args:
        reader: timm's reader: `reader[i]` is (file, class), `reader.filename(i)` its name.
        unreadable: "raise" stops with the file's name; "skip" returns an `Unreadable`, which the loop names and counts.
    """

    def __init__(
        self,
        reader: Any,
        *,
        num_classes: int,
        transform: Callable[[Image.Image], Any] | None = None,
        unreadable: Literal["skip", "raise"] = "raise",
    ):
        self.reader = reader
        self.num_classes = num_classes
        self.transform = transform
        self.unreadable = unreadable
        self.classes = class_names(reader)
        targets = getattr(reader, "targets", None)
        if targets is None and hasattr(reader, "samples"):
            targets = [sample[1] for sample in reader.samples]
        if targets is not None and len(targets):
            check_labels(int(min(targets)), num_classes, "the smallest label")
            check_labels(int(max(targets)), num_classes, "the largest label")

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> Any:
        try:
            image, target = self.load(index)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow raises
            if isinstance(error, LabelError):
                raise
            if self.unreadable == "skip":
                return Unreadable(self.name(index), str(error))
            raise ValueError(f"Cannot read {self.name(index)}: {error}. Remove or repair the file.") from error
        return (self.transform(image) if self.transform else image), target

    def load(self, index: int) -> tuple[Image.Image, int]:
        file, target = self.reader[index][:2]
        target = int(target)
        check_labels(target, self.num_classes, self.name(index))
        image = file if isinstance(file, Image.Image) else Image.open(file)
        return image.convert("RGB"), target

    def name(self, index: int) -> str:
        try:
            return str(self.reader.filename(index, absolute=True))
        except (AssertionError, NotImplementedError, KeyError):  # Hugging Face data sets have no file names
            return f"sample {index}"


class LabelError(ValueError):
    """A label that the head has no class for; never skipped as unreadable."""


def check_labels(label: int, num_classes: int, where: str) -> None:
    if not 0 <= label < num_classes:
        raise LabelError(
            f"Labels must lie in 0..{num_classes - 1} for a head of {num_classes} classes, got {label} ({where}). "
            "Set --data.num_classes to the number of classes of the data."
        )


def class_names(reader: Any) -> tuple[str, ...]:
    mapping = getattr(reader, "class_to_idx", None) or getattr(reader, "class_name_to_idx", None) or {}
    return tuple(name for name, _ in sorted(mapping.items(), key=lambda item: item[1]))


def create_reader(data: ClassificationData, split: str) -> Any:
    """A timm reader, after checks that name what is wrong with the path."""
    if data.reader.lower().startswith("hfds/"):
        from timm.data.readers import create_reader as timm_reader

        try:
            return timm_reader(data.reader, root=data.path or None, split=split)
        except ImportError as error:
            raise ImportError("Hugging Face data sets need the datasets package: pip install datasets") from error
    if not data.path:
        raise ValueError("This recipe needs data: give --data PATH, a folder with one folder per class.")
    if data.reader.lower().split("/")[0] == "wds":
        return WebDatasetReader(data.path, split)
    if data.reader:
        raise ValueError(f"data.reader must be '' (folder or tar), 'wds' or 'hfds/NAME', got {data.reader!r}")
    root = find_split(Path(data.path), split)
    if root.is_dir() and not any(root.glob("*.tar")):
        reader = _folder_reader(root, data.num_classes)
        check_classes(root, reader, data.num_classes)
        return reader
    from timm.data.readers import create_reader as timm_reader

    reader = timm_reader("", root=str(root))
    _compare_classes(root, len(reader.class_name_to_idx), data.num_classes)
    return reader


def find_split(root: Path, split: str) -> Path:
    """The folder of a split: `root/split` (or its usual other names), else `root` itself."""
    if not root.exists():
        raise FileNotFoundError(f"No data at {root}: the path does not exist.")
    others = {
        "train": ("training",),
        "validation": ("val", "valid", "eval", "test"),
        "val": ("validation", "valid", "test"),
    }.get(split, ())
    for name in (split, *others):
        for candidate in (root / name, root / f"{name}.tar"):
            if candidate.exists():
                return candidate
    named = [name for name in ("train", "training", "val", "validation", "test") if (root / name).is_dir()]
    if named:
        raise FileNotFoundError(f"No '{split}' split under {root}; it has {', '.join(named)}.")
    return root


def _folder_reader(root: Path, num_classes: int) -> Any:
    from timm.data.readers import create_reader as timm_reader

    try:
        return timm_reader("", root=str(root), class_map=_imagenet_classes(root, num_classes))
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"No images under {root}: it must hold one folder of images per class ({error}).") from error


def _imagenet_classes(root: Path, num_classes: int) -> dict[str, int] | None:
    """Folders called by ImageNet's WordNet ids mean ImageNet's classes, also where only some of the 1,000 are there."""
    from timm.data import ImageNetInfo

    names = [entry.name for entry in root.iterdir() if entry.is_dir()]
    if num_classes != 1000 or not names:
        return None
    classes = {name: index for index, name in enumerate(ImageNetInfo("imagenet-1k").label_names())}
    return classes if all(name in classes for name in names) else None


def check_classes(root: Path, reader: Any, num_classes: int) -> None:
    """Refuses folders without images (they would shift every later class), and another number of classes than the
    head has."""
    folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    counts = Counter(sample[1] for sample in reader.samples)
    present = {name for name, index in reader.class_to_idx.items() if counts[index]}
    if empty := [name for name in folders if name not in present and not _has_images(root / name, reader)]:
        raise ValueError(
            f"Class folder without images: {', '.join(str(root / name) for name in empty[:5])}. "
            "Every class needs images; remove the folder if the class is not meant."
        )
    _compare_classes(root, len(reader.class_to_idx), num_classes)


def _has_images(folder: Path, reader: Any) -> bool:
    from timm.data.readers.img_extensions import get_img_extensions

    extensions = tuple(get_img_extensions())
    return any(file.suffix.lower() in extensions for file in folder.rglob("*"))


def _compare_classes(root: Path, classes: int, head: int) -> None:
    if head not in (classes, ANY):
        raise ValueError(
            f"{root} has {classes} classes but the head has {head}, so labels and outputs would not mean the same. "
            f"Set --data.num_classes {classes} (0 counts the folders); `litevit doctor` shows what is there."
        )


def count_classes(data: ClassificationData) -> int:
    """How many classes the training set has, by its folders or its largest label."""
    if data.path == "embedded:digits":
        return len(Digits.classes)
    reader = create_reader(replace(data, num_classes=ANY), data.train_split)
    if names := class_names(reader):
        return len(names)
    if isinstance(reader, WebDatasetReader):
        return max(reader.targets) + 1
    raise ValueError(f"Cannot count the classes of {data.path or data.reader}; give --data.num_classes.")


def resolve_classes(data: ClassificationData) -> ClassificationData:
    """Fills in `num_classes` where it is 0."""
    return replace(data, num_classes=count_classes(data)) if data.num_classes == 0 else data


class WebDatasetReader:
    """Random access to WebDataset shards on a local disk, with timm's reader interface.

    A streaming reader's order depends on its workers; this one reads the shards' indexes once (headers only), so that
    sample i is the same for any number of workers and an interrupted run can be continued exactly.

    Args:
        path: a folder (all `*.tar`, or those called `<split>-*.tar` or `<split>_*.tar` where there are any), or a
            pattern with `*` and `{0000..0009}`.
    """

    def __init__(self, path: str, split: str):
        self.shards = expand_shards(path, split)
        images: dict[tuple[int, str], tuple[str, int, int]] = {}
        labels: dict[tuple[int, str], tuple[str, int, int]] = {}
        extensions = {"jpg", "jpeg", "png", "webp", "ppm"}
        for number, shard in enumerate(self.shards):
            try:
                with tarfile.open(shard, "r:") as archive:
                    for member in archive:
                        if not member.isfile():
                            continue
                        folder, _, base = member.name.rpartition("/")
                        stem, _, extension = base.partition(".")
                        place = (member.name, member.offset_data, member.size)
                        if extension.lower() in extensions:
                            images[number, f"{folder}/{stem}"] = place
                        elif extension.lower() in ("cls", "json"):
                            labels[number, f"{folder}/{stem}"] = place
            except tarfile.TarError as error:
                raise ValueError(f"{shard} is not a readable tar file: {error}.") from error
        self.samples: list[tuple[int, str, int, int]] = []
        self.targets: list[int] = []
        for key, (name, offset, size) in images.items():
            if key not in labels:
                raise ValueError(f"{self.shards[key[0]]}: {name} has no label (.cls or .json) beside it.")
            self.targets.append(self._label(key[0], labels[key]))
            self.samples.append((key[0], name, offset, size))
        if not self.samples:
            raise ValueError(f"No images in the shards of {path} ({len(self.shards)} files).")

    def _label(self, shard: int, place: tuple[str, int, int]) -> int:
        name, offset, size = place
        text = self._read(shard, offset, size).decode()
        try:
            return int(json.loads(text)["label"]) if name.endswith("json") else int(text)
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{self.shards[shard]}: the label {name} is not a number: {text[:40]!r}") from None

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
    if os.path.isdir(path):
        every = sorted(glob.glob(os.path.join(path, "*.tar")))
        named = [file for file in every if re.match(rf"{re.escape(split)}[-_]", os.path.basename(file))]
        files = named or every
    else:
        match = re.search(r"\{(\d+)\.\.(\d+)\}", path)
        patterns = [path]
        if match:
            low, high = match[1], match[2]
            numbers = range(int(low), int(high) + 1)
            patterns = [path[: match.start()] + str(n).zfill(len(low)) + path[match.end() :] for n in numbers]
        files = [file for pattern in patterns for file in sorted(glob.glob(pattern)) or [pattern]]
    if not files:
        raise FileNotFoundError(f"No .tar shards in {path}.")
    if missing := [file for file in files if not os.path.exists(file)]:
        raise FileNotFoundError(f"No shard {missing[0]} ({len(missing)} of {len(files)} missing).")
    return files


LabelSet = Literal["imagenet", "real", "v2"]


def real_label_sets(names: Sequence[str]) -> list[list[int]]:
    """ImageNet-ReaL (arXiv:2006.07159): the set of right classes of each validation image, by its file name.

    The labels come with timm. Images with an empty set are not counted.
    """
    import pkgutil

    text = pkgutil.get_data("timm.data", "_info/imagenet_real_labels.json")
    assert text is not None
    labels = json.loads(text)
    sets = []
    for name in names:
        match = re.search(r"ILSVRC2012_val_(\d{8})", os.path.basename(name))
        if match is None or not 1 <= int(match[1]) <= len(labels):
            raise ValueError(
                f"ImageNet-ReaL needs the validation images under their names ILSVRC2012_val_00000001.JPEG ..., "
                f"got {name}"
            )
        sets.append(labels[int(match[1]) - 1])
    return sets


def numeric_class_order(reader: Any) -> dict[int, int]:
    """ImageNet-V2's folders are called 0, 1, ..., 999: the class a folder means, for each class index of a reader.

    timm sorts names naturally, which gives the same order; folders sorted as text (0, 1, 10, ...) would not.
    """
    names = class_names(reader)
    if not all(name.isdigit() for name in names):
        raise ValueError(f"ImageNet-V2 has folders called 0..999, got {', '.join(names[:3])}, ...")
    return {index: int(name) for index, name in enumerate(names)}


def multi_hot(sets: Sequence[Sequence[int]], num_classes: int) -> Tensor:
    """(B, K) bool from a list of class lists."""
    result = torch.zeros(len(sets), num_classes, dtype=torch.bool)
    for row, classes in enumerate(sets):
        result[row, list(classes)] = True
    return result
