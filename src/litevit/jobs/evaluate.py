"""Evaluates a classifier by the published protocol: what `litevit eval` does."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from litevit.checkpoints.published import WEIGHTS, is_file, weights_word
from litevit.data.class_folders import split_names
from litevit.data.classification import (
    ANY,
    ClassCountError,
    ClassificationData,
    create_dataset,
    multi_hot,
    numeric_class_order,
    part_of,
    real_label_sets,
    same_for_both,
)
from litevit.data.labelled_images import ClassificationImages
from litevit.engine.config import from_dict
from litevit.files import read_json
from litevit.jobs.evaluation_loop import evaluate_classifier, evaluation_loader
from litevit.jobs.inference import fixed_batch, for_inference
from litevit.jobs.preprocessing import side_of
from litevit.jobs.runs import CLASSIFICATION, Run
from litevit.metrics.classification import ClassificationMetric, ClassRow
from litevit.models import create_model

Labels = Literal["own", "imagenet", "real", "v2"]
Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation found. Accuracies in %."""

    model: str
    data: str
    labels: Labels
    images: int
    top1: float
    top5: float
    loss: float | None  # None with label sets
    protocol: str
    per_class: tuple[ClassRow, ...] = ()
    class_names: tuple[str, ...] = ()

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2)


def evaluate(
    model: str | nn.Module,
    data: str,
    *,
    weights: str | None = None,
    labels: Labels = "own",
    reader: str = "",
    split: str = "validation",
    num_classes: int = 1000,
    image_size: int | None = None,
    crop_pct: float | None = None,
    batch_size: int = 128,
    workers: int = 4,
    precision: Precision = "fp32",
    device: str | torch.device = "cpu",
    accelerator: Any = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Top-1, top-5 and loss; exact over any number of processes, because every image is counted by one of them.

    Args:
        model: a name of `list_models(task="classification")`, or a module in which the classes are those of the data.
        weights: "official", a file, or None: the module as it is.
        data: folder, `.tar` or shards, as for training; a folder with the split inside, or the split itself.
        labels: "own": the data's (any data set). "imagenet": the same, of ImageNet-1K's 1,000 classes. "real":
            ImageNet-ReaL's label sets, for ImageNet's validation images under their own names. "v2": folders called
            0..999 (ImageNet-V2).
        image_size: None: the model's published size, with its crop.
        crop_pct: 1.0 resizes without a crop.
        accelerator: of accelerate, when several processes share the work.
        on_progress: called with the images this process has done and has to do.
    """
    name = model if isinstance(model, str) else str(getattr(model, "path", type(model).__name__))  # of an exported file
    settings = _settings(name, num_classes, image_size, crop_pct)
    if (how := getattr(model, "preprocessing", None)) is not None:  # an exported file knows what it is made for
        if getattr(model, "prepare", None) is not None:
            raise ValueError(f"{name} prepares its images itself: evaluate a file exported without --preprocessing")
        settings = replace(
            settings, num_classes=len(getattr(model, "classes", ())),
            image_size=how.size, crop_pct=how.crop_pct if crop_pct is None else crop_pct, mean=how.mean, std=how.std,
            eval_interpolation=how.interpolation,
        )  # fmt: skip
    settings = replace(settings, path=data, reader=reader, eval_split=split)
    opened = replace(settings, num_classes=ANY) if labels == "v2" else settings
    network = _load(model, weights, settings.num_classes) if weights is None or is_file(weights) else None
    try:
        dataset = create_dataset(opened, "eval")  # before anything is downloaded
    except ClassCountError as error:
        raise ValueError(
            f"{error.what}Give weights of {error.classes} classes (a run, or a file and --num-classes {error.classes})."
        ) from None
    network = network or _load(model, weights, settings.num_classes)
    return _measure(
        network, dataset, settings, name=name, labels=labels, device=device, accelerator=accelerator,
        batch_size=batch_size, workers=workers, precision=precision, on_progress=on_progress,
    )  # fmt: skip


def _measure(
    network: nn.Module,
    dataset: Dataset,
    settings: ClassificationData,
    *,
    name: str,
    labels: Labels = "own",
    share: str = "",
    batch_size: int = 128,
    workers: int = 4,
    precision: Precision = "fp32",
    device: str | torch.device = "cpu",
    accelerator: Any = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Args: share: what the protocol says of a part of the data."""
    if accelerator is not None:
        device = accelerator.device
    network = for_inference(network.eval(), device)
    batch_size = fixed_batch(network) or batch_size
    targets = _label_sets(dataset, labels, settings.num_classes)
    loader = evaluation_loader(dataset, batch_size=batch_size, workers=workers, accelerator=accelerator)
    mine = None if settings.stream else loader.sampler

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        done = 0
        for images, own in loader:
            yield images, own if targets is None else targets(mine[done : done + len(images)], own)  # type: ignore[index]
            done += len(images)
            if on_progress:
                on_progress(done, done if mine is None else len(mine))  # type: ignore[arg-type]

    metric = ClassificationMetric(settings.num_classes, device=device)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    with torch.autocast(torch.device(device).type, dtype=dtype, enabled=precision != "fp32"):
        evaluate_classifier(network, batches(), metric, accelerator=accelerator)
    result = metric.compute()
    return Evaluation(
        model=name,
        data=str(settings.path or settings.reader),
        labels=labels,
        images=int(result["images"]),
        top1=result["top1"],
        top5=result["top5"],
        loss=result.get("loss"),
        protocol=_protocol(settings, precision) + share,
        per_class=tuple(metric.per_class()),
        class_names=tuple(getattr(dataset, "classes", ())) if labels in ("own", "imagenet") else (),
    )


def evaluate_run(
    folder: str | Path,
    *,
    data: str | None = None,
    split: str | None = None,
    reader: str | None = None,
    image_size: int | None = None,
    crop_pct: float | None = None,
    labels: Labels = "own",
    **options: Any,
) -> Evaluation:
    """Evaluates the best weights of a training run, with the run's own data settings where nothing else is said.

    Args:
        data: another data set than the run's. It is evaluated whole; classes are matched with the run's by name, and it
            may lack some. The run's own data, moved to another place, stay what they are: their held-out part counts.
        split: of the data; None: what was held out. "train": what the run was trained on, without augmentation.
        reader: of other data than the run's.
        options: of `evaluate`, such as workers, precision and on_progress.
    """
    run = Run.open(folder)
    if run.task not in CLASSIFICATION:
        raise ValueError(f"{folder} is a run of the task '{run.task}', not of classification.")
    settings = from_dict(ClassificationData, run.saved["data"], "recipe.data")
    _check_geometry(image_size, crop_pct)
    if image_size is not None:
        settings = replace(settings, image_size=image_size)
    if crop_pct is not None:
        settings = replace(settings, crop_pct=crop_pct)
    settings, part = _data_of(settings, run.folder, data, split, reader)
    opened = replace(settings, num_classes=ANY) if labels == "v2" else settings
    dataset = create_dataset(opened, part, classes=() if labels == "v2" else run.classes, augment=False)
    share = _share(settings, part)
    name = f"{run.model_name} of {folder}"
    return _measure(run.model(), dataset, settings, name=name, labels=labels, share=share, **options)


def _data_of(
    settings: ClassificationData, folder: Path, data: str | None, split: str | None, reader: str | None
) -> tuple[ClassificationData, Literal["train", "eval"]]:
    """Where to find what is to be evaluated, and whether it is the training or the evaluation part of that."""
    other_hub = reader not in (None, settings.reader) and str(reader).lower().startswith("hfds/")  # needs no path
    if not other_hub and (data is None or _is_own(settings, folder, data)):
        if reader not in (None, settings.reader):
            raise ValueError(f"The data of a run are read as it read them; --reader {reader!r} needs other --data.")
        settings = replace(settings, path=data or settings.path) if settings.eval_path is None else settings
        if split is None:
            return settings, "eval"
        if split in (settings.train_split, *split_names(settings.train_split)):
            return settings, "train"
        held_out = bool(settings.hold_out) and same_for_both(settings)
        known = (settings.eval_split, *(name for name in split_names(settings.eval_split) if name != "test"))
        if (held_out or settings.path == "embedded:digits") and split not in known:
            raise ValueError(
                f"{settings.path or settings.reader} has no '{split}' split: it has {settings.train_split} and "
                f"{settings.eval_split}, the held-out part."
            )
        return (settings if held_out else replace(settings, eval_split=split, hold_out=0.0)), "eval"
    if reader is None:
        reader = "" if settings.reader.lower().startswith("hfds/") else settings.reader
    stream = settings.stream and reader == settings.reader
    other = replace(settings, path=data or "", eval_path=None, hold_out=0.0, reader=reader, stream=stream)
    return replace(other, eval_split=split or settings.eval_split), "eval"


def _is_own(settings: ClassificationData, folder: Path, data: str) -> bool:
    """Whether a path leads to the run's own data, by name or by what lies there."""
    if settings.path and Path(data).resolve() == Path(settings.path).resolve():
        return True
    if not settings.hold_out or settings.reader or not (folder / "data.json").exists():
        return False
    told = read_json(folder / "data.json")
    training = told.get("training") if isinstance(told, dict) else None
    listed = training.get("digest") if isinstance(training, dict) else None
    try:
        found = part_of(create_dataset(replace(settings, path=data, num_classes=ANY), "train"), "training")
    except (ValueError, OSError):
        return False
    return bool(listed) and found.digest == listed


def _settings(name: str, num_classes: int, image_size: int | None, crop_pct: float | None) -> ClassificationData:
    """The published protocol of a model; another size keeps its crop ratio."""
    _check_geometry(image_size, crop_pct)
    known = WEIGHTS.get(name)
    if known is None:
        size, ratio, mean, std = 224, 0.875, ClassificationData().mean, ClassificationData().std
    else:
        prepared = known.preprocessing
        size = prepared.size if isinstance(prepared.size, int) else prepared.size[0]
        ratio, mean, std = prepared.crop_pct or 1.0, prepared.mean, prepared.std
    return ClassificationData(
        num_classes=num_classes,
        image_size=size if image_size is None else image_size,
        crop_pct=ratio if crop_pct is None else crop_pct,
        mean=mean,
        std=std,
    )


def _check_geometry(image_size: int | None, crop_pct: float | None) -> None:
    side_of(image_size)
    if crop_pct is not None and not 0 < crop_pct <= 1:
        raise ValueError(f"--crop-pct must be above 0 and at most 1 (no crop), got {crop_pct}")


def _load(model: str | nn.Module, weights: str | None, num_classes: int) -> nn.Module:
    weights = weights_word(weights)  # type: ignore[assignment]
    if isinstance(model, nn.Module):
        if weights is not None:
            from litevit.checkpoints.load import load_and_tell

            load_and_tell(model, weights)
        return model
    if weights is None:
        raise ValueError(f"{model} without weights would guess: give --weights official, or a file.")
    return create_model(model, weights=weights, num_classes=num_classes)


def _label_sets(dataset: Dataset, labels: Labels, num_classes: int) -> Callable[..., Tensor] | None:
    """From sample numbers and the data's own targets to what is counted; None: the targets themselves."""
    if labels == "imagenet" and num_classes != 1000:
        raise ValueError(
            f"--labels imagenet means ImageNet-1K's 1,000 classes, the model has {num_classes}: leave it out."
        )
    if labels in ("own", "imagenet"):
        return None
    if not isinstance(dataset, ClassificationImages):
        raise ValueError(f"--labels {labels} needs ImageNet's image files.")
    if labels == "real":
        sets = real_label_sets([dataset.name(i) for i in range(len(dataset))])
        return lambda indices, _: multi_hot([sets[i] for i in indices], num_classes)
    order = numeric_class_order(dataset.reader)
    table = torch.tensor([order[i] for i in range(len(order))])
    if int(table.max()) >= num_classes:
        raise ValueError(f"ImageNet-V2 has folders 0..{num_classes - 1}, got one called {int(table.max())}.")
    return lambda _, own: table[own]


def _share(settings: ClassificationData, part: str) -> str:
    if part == "train":
        return ", what it was trained on"
    held_out = bool(settings.hold_out) and same_for_both(settings)
    return f", the held-out {settings.hold_out:.0%} of each class" if held_out else ""


def _protocol(settings: ClassificationData, precision: str) -> str:
    size = settings.image_size
    if settings.crop_pct == 1.0:
        geometry = f"resized to {size} x {size}"
    else:
        geometry = f"shorter side {int(size / settings.crop_pct)}, centre crop {size}"
    return f"{geometry}, {settings.eval_interpolation}, {precision}"
