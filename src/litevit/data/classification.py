"""Image classification data: what a recipe says about it, what reads it, and the published augmentations.

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
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from litevit.data import hugging_face
from litevit.data.class_folders import SPLIT_NAMES, ClassFolders, Part, digest_of, find_split, split_names, unpack_first
from litevit.data.class_tars import ClassTars
from litevit.data.classification_transforms import eval_transform, train_transform
from litevit.data.config import Augment as Augment
from litevit.data.config import ClassificationData as ClassificationData
from litevit.data.embedded import Digits
from litevit.data.labelled_images import ClassificationImages, Policy, class_names
from litevit.data.layouts import TRAINED_BY, layouts_of
from litevit.data.shards import WebDatasetReader, expand_shards
from litevit.data.streaming import Source, StreamedImages, create_source, epoch_samples

ANY = 10**9  # as a number of classes: not compared with the data


def create_dataset(
    data: ClassificationData,
    split: Literal["train", "eval"],
    *,
    classes: Sequence[str] = (),
    augment: bool | None = None,
) -> Dataset:
    """The training set with its augmentation, or the evaluation set with its crop.

    Args:
        classes: what the model's labels are called. Data that have some of them are matched by name, others are
            refused. (): the data's own.
        augment: whether training images get their augmentation, and unreadable ones may be skipped; None: for training.
    """
    augment = split == "train" if augment is None else augment
    transform = train_transform(data) if augment else eval_transform(data)
    if data.path == "embedded:digits":
        _compare_classes(data.path, len(Digits.classes), data.num_classes)
        held_out = split == "eval" and data.eval_split not in split_names("train")
        return Digits("validation" if held_out else "train", size=data.image_size, transform=transform)
    policy: Policy = data.unreadable if augment else "raise"
    if data.stream:
        return _create_stream(data, split, transform, policy, classes)
    part, part_split = _source(data, split)
    reader = create_reader(part, part_split)
    if data.hold_out and same_for_both(data):
        _take_share(reader, data.hold_out, held_out=split == "eval")
    elif split == "train" and same_for_both(data):
        raise ValueError(
            f"{data.path or data.reader} has no '{data.eval_split}' part, so it would be evaluated on its training "
            "images. Make one, give it with --data.eval_path, or hold out a share of each class with "
            "--data.hold_out 0.1."
        )
    where = reader.part.where
    if empty := () if classes else getattr(reader, "empty", ()):
        raise ValueError(
            f"Class folder without images: {', '.join(os.path.join(where, name) for name in empty[:5])}. "
            "Every class needs images; remove the folder if the class is not meant."
        )
    names, labels = match_classes(class_names(reader), classes, data.num_classes, where)
    return ClassificationImages(
        reader, num_classes=data.num_classes, classes=names, labels=labels, transform=transform, unreadable=policy
    )


def match_classes(
    theirs: tuple[str, ...], classes: Sequence[str], head: int, where: str
) -> tuple[tuple[str, ...], list[int] | None]:
    """What the labels are called, and the label of each class of the data (None: its own number).

    Args:
        theirs: names of the data's classes; (): they have none.
        classes: names that the model's labels have; (): none are known.
    """
    if classes and theirs:
        if unknown := [name for name in theirs if name not in classes]:
            raise ValueError(
                f"{where} has classes that training does not have: {', '.join(unknown[:8])}. Training has "
                f"{', '.join(classes[:8])}{', ...' if len(classes) > 8 else ''}; labels would mean different things."
            )
        return tuple(classes), None if theirs == tuple(classes) else [classes.index(name) for name in theirs]
    if theirs and (imagenet := _imagenet_classes(theirs, head)):
        return tuple(imagenet), [imagenet[name] for name in theirs]
    if theirs:
        _compare_classes(where, len(theirs), head)
    return theirs or tuple(classes), None


def _create_stream(
    data: ClassificationData, split: str, transform: Any, policy: Policy, classes: Sequence[str]
) -> StreamedImages:
    if not data.path and data.reader.lower() == "wds":
        raise ValueError(NO_PATH)
    source = _open_stream(*_source(data, split))
    for name, used in {
        "hold_out": data.hold_out > 0 and same_for_both(data),
        "augment.repeats": split == "train" and data.augment.repeats > 1,
        "token_labels": split == "train" and data.token_labels is not None,
    }.items():
        if used:
            raise ValueError(f"data.{name} needs data read by index: set --data.stream False, or do without it.")
    if split == "train" and same_for_both(data):
        raise ValueError(
            f"{data.path or data.reader} has no '{data.eval_split}' part, so it would be evaluated on its training "
            "images. Give other shards with --data.eval_path, or set data.eval_split to data.train_split if that is "
            "meant."
        )
    names, labels = match_classes(tuple(source.classes), classes, data.num_classes, source.where)
    return StreamedImages(
        source,
        num_classes=data.num_classes,
        classes=names,
        labels=labels,
        transform=transform,
        unreadable=policy,
        buffer=data.shuffle_buffer,
        samples=data.num_samples,
    )


def _open_stream(data: ClassificationData, split: str) -> Source:
    return create_source(data.path, data.reader, split, image_column=data.image_column, label_column=data.label_column)


NO_PATH = "This recipe needs data: give --data PATH, a folder with one folder per class."


def _source(data: ClassificationData, split: str) -> tuple[ClassificationData, str]:
    """The data with the path that is read, and the name of the split there."""
    if split == "train" or (data.hold_out and same_for_both(data)):
        return data, data.train_split
    return replace(data, path=data.eval_path or data.path), data.eval_split


def same_for_both(data: ClassificationData) -> bool:
    """Whether training and evaluation would read the same files, and nobody asked for it."""
    if data.train_split == data.eval_split or data.eval_path not in (None, data.path):
        return False
    if data.path == "embedded:digits" or not (data.path or data.reader):
        return False
    try:
        train = _place(data, data.train_split)
    except (FileNotFoundError, ValueError):  # only evaluation data are there
        return False
    try:
        return train == _place(data, data.eval_split)
    except (FileNotFoundError, ValueError):  # there are none: a share of the training split, if that is asked for
        return data.hold_out > 0 and data.eval_split.lower() in SPLIT_NAMES


def _place(data: ClassificationData, split: str) -> Any:
    """The files of a split, to be compared."""
    if data.reader.lower().startswith("hfds/"):
        return hugging_face.find_split(data.reader[len("hfds/") :], split)
    if data.reader.lower() == "wds":
        return expand_shards(data.path, split)
    return find_split(Path(data.path), split)


def _take_share(reader: Any, share: float, *, held_out: bool) -> None:
    """Leaves a reader the held-out part of every class, or the rest."""
    chosen = set(held_out_indices(reader.targets, share))
    if not chosen:
        raise ValueError(
            f"data.hold_out {share} leaves nothing to evaluate on: every class of {reader.part.where} has one image. "
            "Give more images, or others to evaluate on with --data.eval_path."
        )
    reader.keep([i for i in range(len(reader.targets)) if (i in chosen) == held_out])


def held_out_indices(labels: Sequence[int], share: float) -> list[int]:
    """A fixed choice of at least one sample per class that has two: the same in every run, whatever its seed."""
    generator = torch.Generator().manual_seed(0)
    of_class: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        of_class.setdefault(int(label), []).append(index)
    chosen = []
    for _, members in sorted(of_class.items()):
        count = min(max(1, round(share * len(members))), len(members) - 1)
        chosen += [members[i] for i in torch.randperm(len(members), generator=generator)[:count].tolist()]
    return sorted(chosen)


def create_reader(data: ClassificationData, split: str) -> Any:
    """What reads a split by index, after checks that name what is wrong with the path.

    A reader has `targets`, `class_to_idx` where classes have names, `part` (what was found), `keep`, and for each index
    the image and its class, `filename` and `key`.
    """
    if data.reader.lower().startswith("hfds/"):
        name = data.reader[len("hfds/") :]
        return hugging_face.HuggingFaceImages(name, split, data.path or None, data.image_column, data.label_column)
    if not data.path:
        raise ValueError(NO_PATH)
    if data.reader.lower().split("/")[0] == "wds":
        return WebDatasetReader(data.path, split)
    if data.reader:
        raise ValueError(f"data.reader must be '' (folder or tar), 'wds' or 'hfds/NAME', got {data.reader!r}")
    root = find_split(Path(data.path), split)
    if root.is_dir() and not any(root.glob("*.tar")):
        _refuse_other_layouts(Path(data.path))
        return ClassFolders(root)
    if root.is_file() and root.suffix.lower() != ".tar":
        raise ValueError(
            f"{root} is one file; data are a folder with one folder per class, or a .tar.{unpack_first(root)}"
        )
    return ClassTars(root)


def _refuse_other_layouts(path: Path) -> None:
    """COCO's `train2017/` and `val2017/` would be two classes, `images/` and `masks/` too."""
    found = layouts_of(path)
    if found and all(layout.task != "classification" for layout in found):
        raise ValueError(
            f"{path} is {found[0]}, for {TRAINED_BY[found[0].task]}. A classifier is trained on class folders: "
            "{train,val}/<class>/<image>, or <class>/<image>."
        )


def _imagenet_classes(names: Sequence[str], num_classes: int) -> dict[str, int] | None:
    """Folders called by ImageNet's WordNet ids mean ImageNet's classes, also where only some of the 1,000 are there."""
    if num_classes != 1000 or not re.fullmatch(r"n\d{8}", names[0]):
        return None
    from timm.data import ImageNetInfo

    classes = {name: index for index, name in enumerate(ImageNetInfo("imagenet-1k").label_names())}
    return classes if all(name in classes for name in names) else None


class ClassCountError(ValueError):
    """The data have another number of classes than the model."""

    def __init__(self, where: str, classes: int, head: int):
        self.what = (
            f"{where} has {classes} classes but the head has {head}, so labels and outputs would not mean the same. "
        )
        self.classes = classes
        super().__init__(
            f"{self.what}Set --data.num_classes {classes} (0 counts the folders); `litevit doctor` shows what is there."
        )


def _compare_classes(where: str, classes: int, head: int) -> None:
    if head not in (classes, ANY):
        raise ClassCountError(where, classes, head)


def count_classes(data: ClassificationData) -> int:
    """How many classes the training set has, by its folders or its largest label."""
    if data.path == "embedded:digits":
        return len(Digits.classes)
    if data.stream and data.reader.lower().startswith("hfds/"):
        names = _open_stream(data, data.train_split).classes
        if names:
            return len(names)
        raise ValueError(f"Cannot count the classes of {data.reader}; give --data.num_classes.")
    reader = create_reader(data, data.train_split)
    return len(class_names(reader)) or max(reader.targets) + 1


def part_of(dataset: Dataset, name: str) -> Part:
    """What is in a data set: images of each class, and what was left out when it was listed."""
    if isinstance(dataset, StreamedImages):
        part = dataset.source.part
        samples = dataset.source.count() if dataset.samples is None else dataset.samples
        return Part(name, part.where, samples or 0, left_out=part.left_out)
    if isinstance(dataset, ClassificationImages):
        part, names = dataset.reader.part, dataset.classes
        labels = [dataset.label(target) for target in dataset.reader.targets]
        digest = digest_of(map(dataset.key, range(len(labels))), labels)
    else:
        assert isinstance(dataset, Digits)
        part, names, labels = Part(name, "embedded:digits", len(dataset)), dataset.classes, dataset.targets.tolist()
        digest = ""
    counts = Counter(labels)
    shown = names or tuple(str(label) for label in range(max(counts, default=-1) + 1))
    classes = {word: counts[label] for label, word in enumerate(shown)}
    return Part(name, part.where, len(labels), classes, part.left_out, digest)


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
