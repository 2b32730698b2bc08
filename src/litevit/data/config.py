"""What a recipe says of its data: frozen dataclasses, no behaviour.

No libraries here but those that check ranges, so that a recipe can be made, read and shown without waiting for any.
"""

from dataclasses import dataclass, field
from typing import Literal

from litevit.data.ranges import Above0, AtLeast0, Count, Positive, Share, ShareAbove0, ShareBelow1
from litevit.ops import imagenet

IGNORE = 255  # label of ignored pixels in tensors, whatever the files use
EMBEDDED = "embedded:scenes"
Split = Literal["train", "val"]


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Training augmentation; the defaults are those of every published LIT and LITv2 row (timm's names)."""

    crop: Literal["resized", "padded"] = "resized"  # RandomResizedCrop, or (small images) padding and a random crop
    scale: tuple[ShareAbove0, ShareAbove0] = (0.08, 1.0)
    ratio: tuple[Above0, Above0] = (3 / 4, 4 / 3)
    hflip: Share = 0.5
    interpolation: Literal["bicubic", "bilinear", "random"] = "bicubic"
    auto_augment: str | None = "rand-m9-mstd0.5-inc1"
    color_jitter: AtLeast0 | None = 0.4  # timm ignores it while auto_augment is set
    erase_prob: Share = 0.25
    erase_mode: Literal["pixel", "rand", "const"] = "pixel"
    erase_count: Positive = 1
    mixup: AtLeast0 = 0.8
    cutmix: AtLeast0 = 1.0
    mix_prob: Share = 1.0
    switch_prob: Share = 0.5
    label_smoothing: ShareBelow1 = 0.1
    repeats: Positive = 1  # repeated augmentation: each sample this many times per epoch, the epoch as long as before


@dataclass(frozen=True, kw_only=True)
class ClassificationData:
    path: str = ""
    eval_path: str | None = None  # where the evaluation data are, if not under path
    reader: str = ""  # "" (folder or tar), "wds", "hfds/NAME"
    stream: bool = False  # read shards front to back: for data that are not on a local disk
    num_samples: Positive | None = None  # an epoch of a stream; None: what the shards hold, where that is known
    shuffle_buffer: Positive = 4096  # undecoded images of a stream that every process draws from
    train_split: str = "train"
    eval_split: str = "validation"
    image_column: str | None = None  # of a Hugging Face data set; None: the one whose type or name says so
    label_column: str | None = None
    num_classes: Count = 1000  # 0: count the class folders
    hold_out: ShareBelow1 = 0.0  # share of each class to evaluate on, where a folder has no split for it
    image_size: Positive = 224
    crop_pct: ShareAbove0 = 0.875  # evaluation: shorter side to image_size / crop_pct, centre crop; 1.0: plain resize
    eval_interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    mean: tuple[float, float, float] = imagenet.MEAN
    std: tuple[Above0, Above0, Above0] = imagenet.STD
    augment: Augment = field(default_factory=Augment)
    eval_batch_size: Positive = 128  # per process
    unreadable: Literal["skip", "raise"] = "skip"  # in training; evaluation always raises
    max_unreadable: Count = 100  # a run skips at most so many before it stops
    token_labels: str | None = None  # folder of label maps (`litevit token-labels`) for token labelling
    token_label_crop: Literal["aligned", "transposed"] = "aligned"  # "transposed" reproduces the published package


@dataclass(frozen=True, kw_only=True)
class ScenesConfig:
    """What drawn scenes look like."""

    height: Positive = 128  # pixels, at least 32
    width: Positive = 128  # pixels, at least 32
    things: tuple[str, ...] = ("disc", "square", "triangle")  # a choice of SHAPES
    stuff: tuple[str, ...] = ("grass", "water", "sand", "brick")  # a choice of GROUNDS
    objects: tuple[Count, Count] = (1, 7)  # per scene, ends included
    radius: tuple[ShareAbove0, ShareAbove0] = (0.08, 0.26)  # of a thing, as a share of the shorter side
    typical: Share = 0.8  # share of things that wear the texture of their class; 0: a texture says nothing
    turn: AtLeast0 = 0.3  # things are turned by at most this angle, in radians; pi: any way up
    empty_rate: Share = 0.02  # scenes without things
    crowd_rate: Share = 0.05  # scenes with a crowd


DEFAULT_LOOK = ScenesConfig()


@dataclass(frozen=True, kw_only=True)
class ScenesData:
    """How many scenes a run is made of, and what they look like; used with path `embedded:scenes`."""

    train: Positive = 1600
    val: Positive = 200
    seed: Count = 0
    look: ScenesConfig = DEFAULT_LOOK


@dataclass(frozen=True, kw_only=True)
class DetectionData:
    """Objects or panoptic maps in any layout of `litevit.data.layouts`. The defaults are the published 1x pipeline."""

    path: str = "data/coco"  # or "embedded:scenes"
    hold_out: ShareBelow1 = 0.1  # share of the images to evaluate on, where the data have no split for it
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
    eval_own_size: bool = False  # the best weights are also measured on images that are not resized
    eval_batch_size: Positive = 1
    scenes: ScenesData = ScenesData()


@dataclass(frozen=True, kw_only=True)
class SegmentationData:
    """Masks of classes in any layout of `litevit.data.layouts`. The defaults are the published pipeline."""

    path: str = "data/ADEChallengeData2016"  # or "embedded:scenes"
    hold_out: ShareBelow1 = 0.1  # share of the images to evaluate on, where the data have no split for it
    reduce_zero_label: bool | None = None  # 0 in masks is ignored, 1.. are the classes; None: ADE20K's layout True
    ignore_index: int = IGNORE  # value in masks that counts for nothing; -1: none
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
    eval_own_size: bool = False  # the best weights are also measured on images that are not resized
    scenes: ScenesData = ScenesData()
