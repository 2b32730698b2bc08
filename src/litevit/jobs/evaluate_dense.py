"""Evaluates detectors, segmenters and panoptic models on a data set: what `litevit eval` does for them.

Every image is looked at by exactly one process and counts once; the truth is compared in its own pixels.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor
from torch.utils.data import DataLoader

from litevit.checkpoints.files import Pathlike
from litevit.data.ade20k import SegmentationFolder
from litevit.data.class_names import ADE20K, ClassList
from litevit.data.coco import CocoInstances
from litevit.data.coco_entries import as_flag
from litevit.data.coco_panoptic import CocoPanoptic
from litevit.data.dense import (
    EMBEDDED,
    ScenesData,
    Selected,
    Split,
    mask_labels,
    open_masks,
    open_objects,
    scenes_folder,
)
from litevit.data.dense_transforms import ToFloat
from litevit.data.layouts import Layout, find_layout
from litevit.data.layouts import Task as LayoutTask
from litevit.data.mask_labels import IGNORE, VOID, ZERO, MaskLabels, labels_of
from litevit.data.sampling import shard
from litevit.files import cache_dir, without_nan
from litevit.jobs.dense_models import INSTANCES, PANOPTIC, SEMANTIC, DenseModel, look_of_scenes
from litevit.jobs.measure_dense import Measured, measure_detection, measure_panoptic, measure_semantic
from litevit.jobs.runs import find_run
from litevit.metrics.coco import COCOAveragePrecision

SPLITS = {"val": "validation", "train": "training"}  # COCO's names -> ADE20K's
LAYOUTS: dict[str, LayoutTask] = {PANOPTIC: "panoptic", SEMANTIC: "semantic"}  # others: instances


@dataclass(frozen=True, kw_only=True)
class DenseEvaluation:
    """What an evaluation found. All figures are fractions; -1 (COCO) and nan mark what has no truth."""

    model: str
    task: str
    data: str
    split: str | None  # None: all of the images that were given with annotations
    images: int
    protocol: str
    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]]

    def to_json(self) -> str:
        return json.dumps(without_nan(asdict(self)), indent=2, ensure_ascii=False)


@dataclass(frozen=True, kw_only=True)
class Looks:
    """How a segmenter looks at an image; None keeps what its weights were published with."""

    window: tuple[int, int] | None = None  # height and width of sliding windows
    stride: tuple[int, int] | None = None
    ratios: tuple[float, ...] | None = None  # several scales, averaged
    flip: bool = False

    def __post_init__(self) -> None:
        if self.stride is not None and self.window is None:
            raise ValueError("a stride needs a window")
        for name, pair in (("window", self.window), ("stride", self.stride)):
            if pair is not None and (len(pair) != 2 or min(pair) < 1):
                raise ValueError(f"{name} needs a height and a width of at least 1, got {pair}")
        if self.stride is not None and self.window is not None and any(s > w for s, w in zip(self.stride, self.window)):
            raise ValueError(f"the stride must not be larger than the window, got {self.stride} and {self.window}")
        if self.ratios is not None and (not self.ratios or min(self.ratios) <= 0):
            raise ValueError(f"ratios needs scales above 0, got {self.ratios}")

    @property
    def changed(self) -> bool:
        return self != Looks()


@dataclass(frozen=True, kw_only=True)
class Masks:
    """How a data set is read, as in a recipe's `data`: see `litevit.data.mask_labels`."""

    reduce_zero_label: bool | None = None
    ignore_index: int = IGNORE
    hold_out: float = 0.0  # measure this share, which training has left out; 0: all images
    trusted: bool = False  # what 0 means is not doubted: a run has learned from these data so, or a person insists


def rule_of_run(weights: Pathlike | None, data: Pathlike | None, *, given: Masks | None = None) -> Masks:
    """How a run has read its data, for the same or other data; what is given comes first.

    Args:
        data: other data than the run's: no part of them was held out.
    """
    trained = find_run(weights)
    settings = {} if trained is None else trained.saved["data"]
    own = data is None or Path(data).resolve() == Path(str(settings.get("path"))).resolve()
    run = Masks(
        reduce_zero_label=settings.get("reduce_zero_label"),
        ignore_index=settings.get("ignore_index", IGNORE),
        hold_out=settings.get("hold_out", 0.0) if own else 0.0,
        trusted=own and trained is not None,
    )
    if given is None:
        return run
    return replace(
        run,
        reduce_zero_label=run.reduce_zero_label if given.reduce_zero_label is None else given.reduce_zero_label,
        ignore_index=run.ignore_index if given.ignore_index == IGNORE else given.ignore_index,
        trusted=run.trusted or given.reduce_zero_label is not None,
    )


def evaluate(
    dense: DenseModel,
    data: Pathlike,
    *,
    annotations: Pathlike | None = None,
    split: str = "val",
    limit: int = 0,
    looks: Looks | None = None,
    workers: int = 0,
    folder: Pathlike | None = None,
    accelerator: Any = None,
    on_progress: Callable[[int, int], None] | None = None,
    rule: Masks | None = None,
) -> DenseEvaluation:
    """Runs a model over a data set and measures it.

    Detection: COCO's 12 numbers of boxes, and of masks where the model makes them. Semantic: mIoU, mean accuracy and
    pixel accuracy at the masks' own size. Panoptic: PQ, SQ and RQ of all, things and stuff.

    Args:
        data: a data set in any layout of `litevit.data.layouts`, or with `annotations` the folder of images.
        annotations: COCO-format JSON (panoptic: with its folder of PNGs beside it), or a folder of index masks, for
            data in another layout.
        split: "val" or "train".
        limit: only the first images; 0: all.
        looks: of segmenters.
        folder: gets the results: `results.json`, or `panoptic.json` and `panoptic/`, or `index/`.
        accelerator: of accelerate, when several processes share the work.
        on_progress: called with the images this process has done and has to do.
        rule: how the data are read; see `rule_of_run`.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be 'val' or 'train', got {split!r}")
    if limit < 0:
        raise ValueError(f"limit must be 0 (all images) or more, got {limit}")
    if looks is not None and looks.changed and dense.task != SEMANTIC:
        raise ValueError(f"{dense.name} does {dense.task}: windows, scales and flips are for semantic segmentation")
    run = {SEMANTIC: _semantic, PANOPTIC: _panoptic}.get(dense.task, _detection)
    source = open_data(dense.task, dense.classes, data, annotations, "train" if split == "train" else "val", rule)
    check_classes(source, dense.task, dense.classes, of=dense.name)
    target = None if folder is None else Path(folder)
    if target is not None:
        target.mkdir(parents=True, exist_ok=True)
    chosen = Selected(source, range(min(len(source), limit) if limit else len(source)))
    samples = _Samples(dense, chosen, workers, accelerator, on_progress)
    training = dense.model.training
    dense.model.eval()
    try:
        with torch.inference_mode():
            protocol, measured = run(dense, source, samples, looks or Looks(), target, accelerator)
    finally:
        dense.model.train(training)
    return DenseEvaluation(
        model=dense.name,
        task=dense.task,
        data=str(data),
        split=split if annotations is None else None,
        images=len(chosen),
        protocol=protocol,
        metrics=measured.metrics,
        per_class=measured.per_class,
    )


def data_of_run(weights: Pathlike, task: str) -> str:
    """The folder of the data a training run held out; embedded scenes are drawn where they are not there yet."""
    run = find_run(weights)
    if run is None:
        raise ValueError(f"{weights} does not say which data it was trained on: give --data")
    data = run.saved["data"]
    if data["path"] != EMBEDDED:
        return str(data["path"])
    scenes = data["scenes"]
    look = look_of_scenes(data)
    return str(
        scenes_folder(
            ScenesData(train=scenes["train"], val=scenes["val"], seed=scenes["seed"], look=look),
            cache_dir(),
            "ade" if task == SEMANTIC else "coco",
        )
    )


# -------------------------------------------------------------------- data


def find_data(task: str, data: Pathlike, annotations: Pathlike | None = None) -> None:
    """Raises where there are no data for a task, as `evaluate` would; before a model is loaded."""
    if annotations is None:
        find_layout(Path(data), LAYOUTS.get(task, "instances"))
        return
    for path in (data, annotations):
        if not Path(path).exists():
            raise FileNotFoundError(f"{path} does not exist")


Source = CocoInstances | CocoPanoptic | SegmentationFolder


def open_data(
    task: str,
    classes: ClassList,
    data: Pathlike,
    annotations: Pathlike | None = None,
    split: Split = "val",
    rule: Masks | None = None,
) -> Source:
    """The images and truth that a model of these classes is measured on; all files are there. See `evaluate`."""
    root, rule = Path(data), rule or Masks()
    if not root.exists():
        raise FileNotFoundError(f"data folder {root} does not exist")
    if task == SEMANTIC:
        return _open_semantic(classes, root, annotations, split, rule)
    options: dict[str, Any] = {"transforms": ToFloat()}
    if task == PANOPTIC:
        options["things"] = classes.names[: classes.num_things]
    else:
        options["masks"] = task == INSTANCES
    if annotations is not None:
        kind: Any = CocoPanoptic if task == PANOPTIC else CocoInstances
        source = kind(root, Path(annotations), **options)
        source.require_files()
    else:
        layout = find_layout(root, LAYOUTS.get(task, "instances"))
        source = open_objects(
            _whole(layout, rule.hold_out), split, hold_out=rule.hold_out, panoptic=task == PANOPTIC, **options
        )
    if isinstance(source, CocoInstances) and source.masks and len(source.without_masks) < _objects(source):
        source.require_masks()  # none at all: boxes are measured, see `_detection`
    return source


def _objects(source: CocoInstances) -> int:
    return sum(not as_flag(o.get("iscrowd")) for objects in source.objects for o in objects)


def _whole(layout: Layout, hold_out: float) -> Layout:
    """Somebody else's data have no part of ours: without a split, all images are measured."""
    if hold_out or {"val", "test"} & layout.parts.keys():
        return layout
    part = layout.part("train")[1]
    return replace(layout, parts={"val": part})


def _open_semantic(
    classes: ClassList, root: Path, annotations: Pathlike | None, split: Split, rule: Masks
) -> SegmentationFolder:
    settings: dict[str, Any] = {"reduce_zero_label": rule.reduce_zero_label, "ignore_index": rule.ignore_index}
    if annotations is not None:
        # The masks are read as those were that the model learned from; published models have learned ADE20K's.
        names, ids = classes.names, classes.ids
        if rule.reduce_zero_label is None:
            labels = MaskLabels(names, ids, rule.ignore_index, reduce_zero_label=0 not in ids)
        else:
            labels = labels_of(names, reduce_zero_label=rule.reduce_zero_label, ignore_index=rule.ignore_index)
        source = SegmentationFolder(root, Path(annotations), labels, transforms=ToFloat())
    else:
        layout = find_layout(root, "semantic")
        if layout.classes is None and classes.names != ADE20K:
            raise FileNotFoundError(f"no class list in {root}: put classes.json there, or give --names")
        labels = mask_labels(layout, names=classes.names, **settings)
        source = open_masks(_whole(layout, rule.hold_out), split, labels, hold_out=rule.hold_out, transforms=ToFloat())
    try:
        source.check_masks(trusted=rule.trusted)
    except ValueError as error:  # the options of `litevit eval` have other names than those of a recipe
        raise ValueError(str(error).replace(ZERO, "--reduce-zero-label").replace(VOID, "--ignore-index")) from None
    return source


def check_classes(source: Source, task: str, classes: ClassList, *, of: str) -> None:
    """Labels of a model and of the data must mean the same.

    Args:
        classes: of the model.
        of: its name.
    """
    theirs = tuple(source.classes)
    things = getattr(source, "num_things", None)
    if len(classes.names) != len(theirs) or (things is not None and things != classes.num_things):
        said = "" if things is None else f" ({things} things)"
        mine = "" if things is None else f" ({classes.num_things} things)"
        raise ValueError(f"the data has {len(theirs)} classes{said}, {of} {len(classes.names)}{mine}")
    numbered = all(name == f"class {i}" for i, name in enumerate(classes.names))
    # ADE20K's lists give a class several names and differ in which is first; COCO's are the same everywhere.
    if task != SEMANTIC and not numbered and classes.names != theirs:
        first = next(i for i, (a, b) in enumerate(zip(classes.names, theirs)) if a != b)
        raise ValueError(
            f"class {first} is {classes.names[first]!r} for {of} and {theirs[first]!r} in the data: the model was "
            "made for other classes (--names FILE if only the names differ)"
        )


def _as_is(samples: list[Any]) -> list[Any]:
    return samples


class _Samples:
    """This process's images and truths, one by one, as plain tensors."""

    def __init__(
        self,
        dense: DenseModel,
        dataset: Selected,
        workers: int,
        accelerator: Any,
        on_progress: Callable[[int, int], None] | None,
    ):
        rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
        mine = shard(len(dataset), rank=rank, world=world)
        self.total, self.on_progress = len(mine), on_progress
        self.loader = DataLoader(dataset, batch_size=1, sampler=mine, num_workers=workers, collate_fn=_as_is)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[tuple[list[Tensor], list[dict[str, Any]]]]:
        for done, ((image, target),) in enumerate(self.loader, start=1):
            plain = {k: v.as_subclass(Tensor) if isinstance(v, Tensor) else v for k, v in target.items()}
            yield [image.as_subclass(Tensor)], [plain]
            if self.on_progress is not None:
                self.on_progress(done, self.total)


# ------------------------------------------------------------------- tasks

Outcome = tuple[str, Measured]  # the protocol, and the figures


def _detection(
    dense: DenseModel, source: Any, samples: _Samples, _: Looks, folder: Path | None, accelerator: Any
) -> Outcome:
    boxed = isinstance(source, CocoInstances) and source.masks and bool(source.without_masks)
    kinds = ("bbox", "segm") if dense.task == INSTANCES and not boxed else ("bbox",)
    metric = COCOAveragePrecision(source.classes, source.category_ids, kinds=kinds)
    measured = measure_detection(dense.model, samples, metric, folder=folder, accelerator=accelerator)
    said = ", boxes alone: the data have no masks" if boxed else ""
    return f"COCO, {_input_size(dense)}{said}", measured


def _input_size(dense: DenseModel) -> str:
    config: Any = dense.model.config
    return f"short side {config.min_size}, long at most {config.max_size}" if config.resize else "images as they are"


def _panoptic(
    dense: DenseModel, source: Any, samples: _Samples, _: Looks, folder: Path | None, accelerator: Any
) -> Outcome:
    measured = measure_panoptic(
        dense.model, samples, classes=source.classes, category_ids=source.category_ids, num_things=source.num_things,
        folder=folder, accelerator=accelerator,
    )  # fmt: skip
    return f"COCO panoptic, {_input_size(dense)}", measured


def _semantic(
    dense: DenseModel, source: Any, samples: _Samples, looks: Looks, folder: Path | None, accelerator: Any
) -> Outcome:
    test: Any = dense.model.config.test  # type: ignore[union-attr]
    if looks.changed:
        test = replace(
            test,
            window=looks.window or test.window,
            stride=looks.stride or (None if looks.window else test.stride),
            ratios=looks.ratios or test.ratios,
            flip=looks.flip or test.flip,
        )
    measured = measure_semantic(
        dense.model, samples, classes=source.classes, to_values=source.labels.to_values, test=test, folder=folder,
        accelerator=accelerator,
    )  # fmt: skip
    views = [f"windows of {test.window[0]} x {test.window[1]}" if test.window else "whole images"]
    views += [f"resized to fit {test.scale[0]} x {test.scale[1]}"] if test.scale else []
    views += [f"scales {', '.join(map(str, test.ratios))}"] if test.ratios != (1.0,) else []
    views += ["with mirror images"] if test.flip else []
    return ", ".join(views), measured
