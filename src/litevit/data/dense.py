"""What a detection, segmentation or panoptic recipe says about its data, and the data sets made from it."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from torch.utils.data import Dataset

from litevit.data.ade20k import SegmentationFolder, ade20k
from litevit.data.coco import CocoInstances, coco2017
from litevit.data.coco_panoptic import CocoPanoptic, coco2017_panoptic
from litevit.data.dense_transforms import ToFloat, detection_train, segmentation_train
from litevit.data.ranges import Above0, Count, Positive, Share, ShareAbove0
from litevit.data.scenes import ScenesConfig, write_ade, write_coco

EMBEDDED = "embedded:scenes"
DEFAULT_LOOK = ScenesConfig()
Split = Literal["train", "val"]


@dataclass(frozen=True, kw_only=True)
class ScenesData:
    """How many scenes a run is made of, and what they look like; used with path `embedded:scenes`."""

    train: Positive = 1600
    val: Positive = 200
    seed: Count = 0
    look: ScenesConfig = DEFAULT_LOOK


@dataclass(frozen=True, kw_only=True)
class DetectionData:
    """COCO 2017's layout, instances or panoptic. The defaults are the published 1x pipeline."""

    path: str = "data/coco"  # or "embedded:scenes"
    masks: bool = True  # instance masks are read, learned and evaluated
    resize: bool = True  # False: images keep their size (the model's `resize` must agree)
    long_side: Positive = 1333
    short_side: tuple[Positive, Positive] = (800, 800)  # range from which every image's is drawn
    flip: Share = 0.5
    group: Positive = 2  # images of one aspect-ratio group that stay together in a batch
    repeat: Positive = 1  # passes over the images in what the schedule calls an epoch
    limit: Count = 0  # train on the first images only; 0: all
    eval_split: Split = "val"  # "train" evaluates what was trained on: a check, no result
    eval_limit: Count = 0
    eval_batch_size: Positive = 1
    scenes: ScenesData = ScenesData()


@dataclass(frozen=True, kw_only=True)
class SegmentationData:
    """ADE20K's layout. The defaults are the published pipeline."""

    path: str = "data/ADEChallengeData2016"  # or "embedded:scenes"
    long_side: Positive = 2048
    short_side: Positive = 512
    ratios: tuple[Above0, Above0] = (0.5, 2.0)  # random scale on top of both
    crop: Positive = 512
    category_cap: ShareAbove0 = 0.75  # no class may cover more of a crop
    flip: Share = 0.5
    distortion: bool = True  # photometric
    limit: Count = 0  # train on the first images only; 0: all
    eval_split: Split = "val"
    eval_limit: Count = 0
    scenes: ScenesData = ScenesData()


class Selected(Dataset):
    """Some images of a data set, `times` times over; keeps what the samplers and metrics ask the set for."""

    def __init__(self, dataset: Any, indices: Sequence[int], times: int = 1):
        self.dataset, self.indices = dataset, list(indices) * times

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self.indices[index]]

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


class DetectionSets:
    """Training and evaluation set of a recipe, instances or panoptic.

    Args:
        cache: where embedded scenes are kept.
    """

    def __init__(self, data: DetectionData, *, cache: Path, panoptic: bool = False):
        root = scenes_folder(data.scenes, cache, "coco") if data.path == EMBEDDED else Path(data.path)
        self.root, self.data, self.panoptic = root, data, panoptic
        if not data.resize:
            transforms = detection_train(flip=data.flip, resize=False)
        else:
            transforms = detection_train(data.long_side, data.short_side, data.flip)
        self.train_source = self._open("train", train=True, transforms=transforms)
        self.train = Selected(self.train_source, _limited(len(self.train_source), data.limit), data.repeat)
        self.classes, self.category_ids = self.train_source.classes, self.train_source.category_ids

    def _open(self, split: Split, **options: Any) -> CocoInstances | CocoPanoptic:
        if self.panoptic:
            return coco2017_panoptic(self.root, split, **options)
        return coco2017(self.root, split, masks=self.data.masks, **options)

    def eval(self) -> Selected:
        """Evaluation images as they are, truth in their own pixels."""
        source = self._open(self.data.eval_split, train=False, transforms=ToFloat())
        if (source.classes, source.category_ids) != (self.classes, self.category_ids):
            raise ValueError(f"{source.file} has other categories than {self.train_source.file}")
        indices: Sequence[int] = range(len(source.images))
        if self.data.eval_split == "train":  # the very images of the training
            trained = {self.train_source.images[i]["id"] for i in self.train.indices}
            indices = [i for i in indices if source.images[i]["id"] in trained]
        return Selected(source, [indices[i] for i in _limited(len(indices), self.data.eval_limit)])


class SegmentationSets:
    """Training and evaluation set of a semantic segmentation recipe."""

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
        self.train_source = ade20k(root, "training", transforms=transforms)
        self.train = Selected(self.train_source, _limited(len(self.train_source), data.limit))
        self.classes = self.train_source.classes

    def eval(self) -> Selected:
        """Evaluation images as they are, masks at their own size."""
        split = "validation" if self.data.eval_split == "val" else "training"
        source: SegmentationFolder = ade20k(self.root, split, transforms=ToFloat())
        limit = self.data.limit if split == "training" else self.data.eval_limit
        return Selected(source, _limited(len(source), limit))
