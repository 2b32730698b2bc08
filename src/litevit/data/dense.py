"""What a detection, segmentation or panoptic recipe says about its data, and the data sets made from it."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from torch.utils.data import Dataset

from litevit.data import voc, yolo
from litevit.data.ade20k import SegmentationFolder
from litevit.data.class_folders import Part as ReadPart
from litevit.data.coco import CocoInstances
from litevit.data.coco_entries import read_json
from litevit.data.coco_panoptic import CocoPanoptic
from litevit.data.config import DEFAULT_LOOK as DEFAULT_LOOK
from litevit.data.config import EMBEDDED as EMBEDDED
from litevit.data.config import DetectionData as DetectionData
from litevit.data.config import ScenesConfig as ScenesConfig
from litevit.data.config import ScenesData as ScenesData
from litevit.data.config import SegmentationData as SegmentationData
from litevit.data.config import Split as Split
from litevit.data.dense_transforms import ToFloat, detection_train, segmentation_train
from litevit.data.layouts import JPEG, MASK_SUFFIXES, NO_JPEG, Layout, Part, find_file, find_layout, is_mask_name
from litevit.data.mask_labels import IGNORE, MaskLabels, labels_of, palette_labels, read_labels
from litevit.data.scenes import write_ade, write_coco


class Selected(Dataset):
    """Some images of a data set, `times` times over; keeps what the samplers and metrics ask the set for."""

    def __init__(self, dataset: Any, indices: Sequence[int], times: int = 1):
        self.dataset, self.indices = dataset, list(indices) * times

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self.indices[index]]

    def check(self, index: int) -> None:
        """Raises what reading the image and its truth would raise."""
        self[index]

    @property
    def aspect_ratios(self) -> list[float]:
        ratios = self.dataset.aspect_ratios
        return [ratios[i] for i in self.indices]


def scenes_folder(scenes: ScenesData, cache: Path, layout: Literal["coco", "ade"]) -> Path:
    """The scenes on disk, drawn on first use into a folder named after everything that decides them."""
    key = hashlib.sha256(json.dumps(asdict(scenes), sort_keys=True).encode()).hexdigest()[:12]
    folder = cache / f"scenes-{layout}-{key}"
    if not folder.is_dir():
        write: Callable[..., Path] = write_coco if layout == "coco" else write_ade
        try:
            write(folder, train=scenes.train, val=scenes.val, config=scenes.look, seed=scenes.seed)
        except (OSError, ValueError):
            if not folder.is_dir():  # otherwise another process was faster
                raise
    return folder


def _limited(total: int, limit: int) -> range:
    return range(min(total, limit) if limit else total)


def divide(part: Part, names: Sequence[str], share: float) -> Callable[[str], bool]:
    """Which of a part's images are held out, by their names: the same for every run, whatever their order."""
    if not share:
        raise ValueError(
            f"{part.images} has no split to evaluate on: give --data.hold_out 0.1 to hold a share of the images out"
        )
    if len(names) < 2:
        raise ValueError(f"{part.images} has {len(names)} image; two are needed to train on one and evaluate on one")
    count = min(max(1, round(share * len(names))), len(names) - 1)
    held = set(sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())[:count])
    return lambda name: name in held


def open_objects(
    layout: Layout, split: Split, *, hold_out: float = 0.0, panoptic: bool = False, **options: Any
) -> CocoInstances | CocoPanoptic:
    """One split of objects or panoptic maps, whatever the layout.

    Args:
        hold_out: share that is held out where the data have no split to evaluate on.
        options: of `CocoInstances` or `CocoPanoptic`.
    """
    name, part, shared = layout.part(split)
    if layout.kind == "yolo":
        options["content"] = yolo.read(layout, part)
    elif layout.kind == "voc":
        options["content"] = voc.read(layout, part, voc.class_names(layout), from_zero=voc.counts_from_zero(layout))
    if shared:
        if "content" not in options and not panoptic:
            options["content"] = read_json(part.annotations, needs=("images", "annotations", "categories"))
        content = options.get("content") or read_json(part.annotations, needs=("images",))
        names = [image["file_name"] for image in content["images"] if isinstance(image.get("file_name"), str)]
        held = divide(part, names, hold_out)
        options["only"] = held if split == "val" else lambda name: not held(name)
    kind: type[CocoInstances] | type[CocoPanoptic] = CocoPanoptic if panoptic else CocoInstances
    source = kind(part.images, part.annotations, **options)
    source.require_files()
    source.part.where = _where(layout, name, part, f"{hold_out:.0%} held out" if shared else "")
    return source


def _where(layout: Layout, name: str, part: Part, shared: str) -> str:
    facts = [
        layout.name,
        *([] if part.annotations == part.images else [part.annotations.name]),
        *([shared] * bool(shared)),
    ]
    return f"{part.images} ({', '.join(facts)})"


class DetectionSets:
    """Training and evaluation set of a recipe, instances or panoptic.

    `parts` are the sets as they were read, `notes` what a person should know of them.

    Args:
        cache: where embedded scenes are kept.
    """

    def __init__(self, data: DetectionData, *, cache: Path, panoptic: bool = False):
        root = scenes_folder(data.scenes, cache, "coco") if data.path == EMBEDDED else Path(data.path)
        self.root, self.data, self.panoptic = root, data, panoptic
        self.layout = find_layout(root, "panoptic" if panoptic else "instances")
        if not data.resize:
            transforms = detection_train(flip=data.flip, resize=False)
        else:
            transforms = detection_train(data.long_side, data.short_side, data.flip)
        self.train_source = self._open("train", train=True, transforms=transforms)
        self.train = Selected(self.train_source, _limited(len(self.train_source), data.limit), data.repeat)
        self.classes, self.category_ids = self.train_source.classes, self.train_source.category_ids
        self.parts: list[ReadPart] = [self.train_source.part]
        self.notes = list(getattr(self.train_source, "notes", []))

    def _open(self, split: Split, **options: Any) -> CocoInstances | CocoPanoptic:
        if not self.panoptic:
            options["masks"] = self.data.masks
        source = open_objects(self.layout, split, hold_out=self.data.hold_out, panoptic=self.panoptic, **options)
        if isinstance(source, CocoInstances) and self.data.masks:
            source.require_masks()
        return source

    @property
    def most_objects(self) -> int:
        """In one image of the training set."""
        if isinstance(self.train_source, CocoInstances):
            return max(map(len, self.train_source.objects))
        return max(len(annotation["segments_info"]) for annotation in self.train_source.annotations)

    def eval(self) -> Selected:
        """Evaluation images as they are, truth in their own pixels."""
        known: dict[str, Any] = {"train": False, "transforms": ToFloat()}
        if isinstance(self.train_source, CocoPanoptic):
            known["things"] = self.classes[: self.train_source.num_things]
        source = self._open(self.data.eval_split, **known)
        if source.classes != self.classes:
            source = self._by_name(source, known)
        if self.data.eval_split != "train":
            self.parts[1:] = [source.part]
        indices: Sequence[int] = range(len(source.images))
        if self.data.eval_split == "train":  # the very images of the training
            trained = {self.train_source.images[i]["id"] for i in self.train.indices}
            indices = [i for i in indices if source.images[i]["id"] in trained]
        return Selected(source, [indices[i] for i in _limited(len(indices), self.data.eval_limit)])

    def _by_name(self, source: CocoInstances | CocoPanoptic, known: dict[str, Any]) -> CocoInstances | CocoPanoptic:
        """The evaluation set with the labels of the training set: exports number every split anew."""
        strange = [name for name in source.classes if name not in self.classes]
        if strange or isinstance(source, CocoPanoptic):
            some = ", ".join(strange[:5] or [name for name in self.classes if name not in source.classes][:5])
            raise ValueError(
                f"{source.file} has other categories than {self.train_source.file}: {some or 'another order'}"
            )
        return self._open(self.data.eval_split, classes=self.classes, partial=True, **known)


def mask_labels(
    layout: Layout,
    *,
    names: Sequence[str] | None = None,
    reduce_zero_label: bool | None = None,
    ignore_index: int = IGNORE,
) -> MaskLabels:
    """What the masks of a data set mean: by its class list, its layout, or its palette.

    Args:
        names: of the classes, where the data have no list.
    """
    ade = layout.name.startswith("ADE20K")
    if layout.classes is not None:
        return read_labels(layout.classes, reduce_zero_label=reduce_zero_label, ignore_index=ignore_index, ade=ade)
    if names is not None:
        reduce = ade if reduce_zero_label is None else reduce_zero_label
        return labels_of(names, reduce_zero_label=reduce, ignore_index=ignore_index)
    part = next(iter(layout.parts.values()))
    together = part.images == part.annotations
    files = (path for path in part.annotations.rglob("*") if path.suffix.lower() in MASK_SUFFIXES)
    masks = sorted(path for path in files if not together or is_mask_name(path.name))[:200]
    if not masks:
        why = f". {NO_JPEG}" if not together and find_file(part.annotations, JPEG) else ""
        raise FileNotFoundError(f"no class list in {layout.root}: put classes.json there{why}")
    return palette_labels(masks, ignore_index=ignore_index, reduce_zero_label=reduce_zero_label)


def open_masks(
    layout: Layout, split: Split, labels: MaskLabels, *, hold_out: float = 0.0, **options: Any
) -> SegmentationFolder:
    """One split of a data set of masks. See `open_objects`."""
    name, part, shared = layout.part(split)
    if shared:
        everything = SegmentationFolder(part.images, part.annotations, labels, listed=part.listed)
        names = [path.relative_to(part.images).as_posix() for path in everything.files]
        held = divide(part, names, hold_out)
        options["only"] = held if split == "val" else lambda name: not held(name)
    source = SegmentationFolder(part.images, part.annotations, labels, listed=part.listed, **options)
    source.part.name = "training" if split == "train" else "validation"
    source.part.where = _where(layout, name, part, f"{hold_out:.0%} held out" if shared else "")
    return source


class SegmentationSets:
    """Training and evaluation set of a semantic segmentation recipe. See `DetectionSets`."""

    def __init__(self, data: SegmentationData, *, cache: Path):
        root = scenes_folder(data.scenes, cache, "ade") if data.path == EMBEDDED else Path(data.path)
        transforms = segmentation_train(
            data.long_side,
            data.short_side,
            data.crop,
            data.ratios,
            data.category_cap,
            data.flip,
            distortion=data.distortion,
        )
        self.root, self.data = root, data
        self.layout = find_layout(root, "semantic")
        self.labels = mask_labels(self.layout, reduce_zero_label=data.reduce_zero_label, ignore_index=data.ignore_index)
        self.classes, self.category_ids = self.labels.names, self.labels.values
        if len(self.classes) == 1:
            raise ValueError(
                f"{root} has one class, {self.classes[0]!r}: a segmenter chooses between classes, so its loss would be "
                "0 from the first step. Give the rest of the pictures a class of its own (background) in masks and list"
            )
        self.train_source = open_masks(self.layout, "train", self.labels, hold_out=data.hold_out, transforms=transforms)
        self.notes = self.train_source.check_masks()
        self.train = Selected(self.train_source, _limited(len(self.train_source), data.limit))
        self.parts: list[ReadPart] = [self.train_source.part]

    def eval(self) -> Selected:
        """Evaluation images as they are, masks at their own size."""
        source = open_masks(
            self.layout, self.data.eval_split, self.labels, hold_out=self.data.hold_out, transforms=ToFloat()
        )
        if self.data.eval_split != "train":
            source.check_masks(trusted=True)
            self.parts[1:] = [source.part]
        limit = self.data.limit if self.data.eval_split == "train" else self.data.eval_limit
        return Selected(source, _limited(len(source), limit))
