"""Image classification data: what a recipe says about it, reading it through timm, and the published augmentations.

Sources (`ClassificationData.path` and `.reader`):
* a folder with one folder per class, or with `train` and `validation` (or `val`) folders of that kind;
* a `.tar` file with a folder per class, or a folder with one `.tar` per class;
* WebDataset shards: a folder or a pattern such as `shards/train-{0000..0009}.tar`, with `reader="wds"`;
* a Hugging Face data set, with `reader="hfds/NAME"` (`path` is then its cache folder, and may be empty);
* either of the two read front to back instead of by index, with `stream=True` (`litevit.data.streaming`);
* the data that come with the installation: `path="embedded:digits"`.
"""

import json
import os
import re
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
from litevit.data.images import ClassificationImages, Policy, class_names
from litevit.data.posterize import with_posterize_to_black
from litevit.data.shards import WebDatasetReader, expand_shards, split_names
from litevit.data.streaming import NO_DATASETS, StreamedImages, create_source, epoch_samples

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
    eval_path: str | None = None  # where the evaluation data are, if not under path
    reader: str = ""  # timm's prefix: "" (folder or tar), "wds", "hfds/NAME"
    stream: bool = False  # read shards front to back: for data that are not on a local disk
    num_samples: int | None = None  # an epoch of a stream; None: what the shards hold, where that is known
    shuffle_buffer: int = 4096  # undecoded images of a stream that every process draws from
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
    policy: Policy = data.unreadable if split == "train" else "raise"
    if data.stream:
        return _create_stream(data, split, transform, policy)
    reader = create_reader(*_source(data, split))
    if data.hold_out and same_for_both(data):
        _take_share(reader, data.hold_out, held_out=split == "eval")
    elif split == "train" and same_for_both(data):
        raise ValueError(
            f"{data.path} has no '{data.eval_split}' part, so it would be evaluated on its training images. Make one, "
            "give it with --data.eval_path, or hold out a share of each class with --data.hold_out 0.1."
        )
    return ClassificationImages(reader, num_classes=data.num_classes, transform=transform, unreadable=policy)


def _create_stream(data: ClassificationData, split: str, transform: Any, policy: Policy) -> StreamedImages:
    if not data.path and data.reader.lower() == "wds":
        raise ValueError(NO_PATH)
    part, part_split = _source(data, split)
    source = create_source(part.path, part.reader, part_split)
    for name, used in {
        "hold_out": data.hold_out > 0 and same_for_both(data),
        "augment.repeats": split == "train" and data.augment.repeats > 1,
        "token_labels": split == "train" and data.token_labels is not None,
    }.items():
        if used:
            raise ValueError(f"data.{name} needs data read by index: set --data.stream False, or do without it.")
    if split == "train" and same_for_both(data):
        raise ValueError(
            f"{data.path} has no '{data.eval_split}' part, so it would be evaluated on its training images. Give "
            "other shards with --data.eval_path, or set data.eval_split to data.train_split if that is meant."
        )
    if source.classes:
        _compare_classes(Path(source.where), len(source.classes), data.num_classes)
    return StreamedImages(
        source,
        num_classes=data.num_classes,
        transform=transform,
        unreadable=policy,
        buffer=data.shuffle_buffer,
        samples=data.num_samples,
    )


NO_PATH = "This recipe needs data: give --data PATH, a folder with one folder per class."


def _source(data: ClassificationData, split: str) -> tuple[ClassificationData, str]:
    """The data with the path that is read, and the name of the split there."""
    if split == "train":
        return data, data.train_split
    return replace(data, path=data.eval_path or data.path), data.eval_split


def same_for_both(data: ClassificationData) -> bool:
    """Whether training and evaluation would read the same files, and nobody asked for it."""
    path, reader = data.path, data.reader.lower()
    if data.train_split == data.eval_split or data.eval_path not in (None, path) or not path:
        return False
    if reader == "wds":
        return expand_shards(path, data.train_split) == expand_shards(path, data.eval_split)
    return not reader and find_split(Path(path), data.train_split) == find_split(Path(path), data.eval_split)


def _take_share(reader: Any, share: float, *, held_out: bool) -> None:
    """Leaves a reader the held-out part of every class, or the rest."""
    has_targets = hasattr(reader, "targets")
    labels = list(reader.targets) if has_targets else [sample[1] for sample in reader.samples]
    chosen = set(held_out_indices(labels, share))
    keep = [i for i in range(len(labels)) if (i in chosen) == held_out]
    reader.samples = [reader.samples[i] for i in keep]
    if has_targets:
        reader.targets = [labels[i] for i in keep]


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
    transform = create_transform(
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
    return with_posterize_to_black(transform)


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
    return with_posterize_to_black(transforms.Compose(steps))


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


def create_reader(data: ClassificationData, split: str) -> Any:
    """A timm reader, after checks that name what is wrong with the path."""
    if data.reader.lower().startswith("hfds/"):
        from timm.data.readers import create_reader as timm_reader

        try:
            return timm_reader(data.reader, root=data.path or None, split=split)
        except ImportError as error:
            raise ImportError(NO_DATASETS) from error
    if not data.path:
        raise ValueError(NO_PATH)
    if data.reader.lower().split("/")[0] == "wds":
        return WebDatasetReader(data.path, split)
    if data.reader:
        raise ValueError(f"data.reader must be '' (folder or tar), 'wds' or 'hfds/NAME', got {data.reader!r}")
    root = find_split(Path(data.path), split)
    if root.is_dir() and not any(root.glob("*.tar")):
        reader = _folder_reader(root, data.num_classes)
        check_classes(root, reader, data.num_classes)
        return reader
    if root.is_file() and root.suffix.lower() != ".tar":
        raise ValueError(f"{root} is one file; data are a folder with one folder per class, or a .tar.")
    from litevit.data.class_tars import ClassTarReader

    tars = ClassTarReader(root)
    _compare_classes(root, len(tars.class_name_to_idx), data.num_classes)
    return tars


def find_split(root: Path, split: str) -> Path:
    """The folder of a split: `root/split` (or its usual other names), else `root` itself."""
    if not root.exists():
        raise FileNotFoundError(f"No data at {root}: the path does not exist.")
    for name in split_names(split):
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
        archives = sorted(
            path.name for ending in ("gz", "tgz", "zip", "bz2", "xz") for path in root.glob(f"*.{ending}")
        )
        unpack = f" It has {', '.join(archives[:3])}: unpack first." if archives else ""
        raise ValueError(
            f"No images under {root}: it must hold one folder of images per class ({error}).{unpack}"
        ) from error


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
    if data.stream and data.reader.lower().startswith("hfds/"):
        names = create_source(data.path, data.reader, data.train_split).classes
        if names:
            return len(names)
        raise ValueError(f"Cannot count the classes of {data.reader}; give --data.num_classes.")
    reader = create_reader(replace(data, num_classes=ANY), data.train_split)
    if names := class_names(reader):
        return len(names)
    if isinstance(reader, WebDatasetReader):
        return max(reader.targets) + 1
    raise ValueError(f"Cannot count the classes of {data.path or data.reader}; give --data.num_classes.")


def resolve_classes(data: ClassificationData) -> ClassificationData:
    """Fills in `num_classes` where it is 0, and the length of a stream's epoch."""
    if data.num_classes == 0:
        data = replace(data, num_classes=count_classes(data))
    if data.stream and data.num_samples is None:
        data = replace(data, num_samples=epoch_samples(create_dataset(data, "train")))  # type: ignore[arg-type]
    return data


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
