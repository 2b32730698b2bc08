"""Detectors, segmenters and panoptic models with their weights, and what their classes are called."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import nn

from litevit.checkpoints import published as published
from litevit.checkpoints.files import Pathlike
from litevit.checkpoints.load import load_and_tell
from litevit.checkpoints.packed import is_packed, open_packed
from litevit.checkpoints.preprocessing import check_largest
from litevit.checkpoints.recorded import class_counts
from litevit.data.class_names import (
    ClassList,
    detection_classes,
    panoptic_classes,
    read_class_list,
    semantic_classes,
)
from litevit.data.dense import EMBEDDED
from litevit.data.scenes import ScenesConfig, scene_categories
from litevit.jobs.runs import Run, find_run
from litevit.models import create_model
from litevit.zoo import GENERIC, MODELS

DETECTION, INSTANCES = "detection", "instance segmentation"
SEMANTIC, PANOPTIC = "semantic segmentation", "panoptic segmentation"
OWN: Literal["own"] = "own"
Size = int | Literal["own"]  # short side that images are resized to, or their own size


class DenseModel(NamedTuple):
    """A model in evaluation mode and what its labels are called."""

    model: nn.Module
    name: str
    task: str  # as in `litevit.list_models(task=...)`
    classes: ClassList


def task_of(name: str | None, weights: Pathlike | None = None) -> str:
    """The task of a model, by its name or else by what the checkpoint of a training run says."""
    if is_packed(name):
        return open_packed(str(name)).task
    if name is None and (run := find_run(weights)) is not None:
        name = run.model_name
    if name in MODELS:
        return MODELS[name].task.name
    return GENERIC[name].name if name in GENERIC else "classification"


def load_dense(
    name: str | None,
    weights: Pathlike | None,
    *,
    num_classes: int | None = None,
    names: Pathlike | None = None,
    score_threshold: float | None = None,
    size: Size | None = None,
) -> DenseModel:
    """A dense model with its weights and class names.

    Args:
        name: model name; None: what the checkpoint of a training run says; or a packed model (`local-dir:FOLDER`,
            `hf-hub:OWNER/NAME`), whose own weights are its `"official"` ones.
        weights: None or `"none"` (random), `"official"`, a checkpoint file, or the folder of a training run.
        num_classes: where it is not the model's own and the checkpoint does not tell.
        names: file of class names, see `read_class_list`; None: the training data's, COCO's or ADE20K's, or numbers.
        score_threshold: least score of objects; None keeps the model's.
        size: short side the image is resized to, or "own": images as they are; None keeps the model's.
    """
    weights = published.weights_word(weights)
    packed = open_packed(str(name)) if is_packed(name) else None
    if packed is not None and weights == "official":
        weights = packed.weights()
    run = find_run(weights)
    path = run.weights if run is not None else Path(weights) if published.is_file(weights) else None  # type: ignore[arg-type]
    overrides: dict[str, Any] = {}
    trained = run if run is not None and name in (None, run.model_name) else None
    if trained is not None:
        name, overrides = trained.model_name, trained.overrides
    if packed is not None:
        name, overrides = packed.name, dict(packed.options)
    if name is None:
        raise ValueError(f"{weights} does not say which model it is of: give its name (--model)")
    task = task_of(name)
    if task == "classification":
        raise ValueError(f"{name} is a classification model, not one of {', '.join((DETECTION, SEMANTIC, PANOPTIC))}")
    if score_threshold is not None:
        if task == SEMANTIC:
            raise ValueError(f"{name} does semantic segmentation, whose classes have no scores: no score threshold")
        if not 0 <= score_threshold <= 1:
            raise ValueError(f"score_threshold must be in [0, 1], got {score_threshold}")
        overrides["score_threshold"] = float(score_threshold)
    if num_classes is not None:
        if task == PANOPTIC:
            raise ValueError(f"{name}: things and stuff are counted apart; they come from the checkpoint")
        overrides["num_classes"] = num_classes
    elif path is not None:
        overrides |= class_counts(path)
    classes = read_class_list(Path(names), first_id=int(task == SEMANTIC)) if names is not None else None
    model = create_model(name, **overrides)
    if weights == "imagenet":
        raise ValueError(
            f"{name}: imagenet gives its backbone alone, under a random head: give official, none or a file"
        )
    if weights is not None:
        report = load_and_tell(model, path if path is not None else published.fetch(name))
        if report.missing:
            raise ValueError(
                f"{weights} is not a checkpoint of the whole {name}: {len(report.missing)} tensors are missing, "
                f"such as {report.missing[0]}. A backbone or a classifier is what training starts from: litevit train "
                f"RECIPE --model.name {name} --model.weights {weights}"
            )
    model.config = config_at_size(model, task, size)  # type: ignore[assignment]
    if classes is None and packed is not None and packed.classes:
        classes = ClassList(packed.classes, packed.class_ids, packed.about.get("num_things"))
    elif classes is None and trained is not None:
        classes = _classes_of_run(trained, task)
    return DenseModel(model.eval(), name, task, _checked(classes, _own_classes(model, task), str(names or weights)))


def config_at_size(model: nn.Module, task: str, size: Size | None) -> Any:
    """The config of a model that looks at images at another size.

    Args:
        size: as of `load_dense`.
    """
    config: Any = model.config
    if size is None:
        return config
    if size == OWN:
        if task == SEMANTIC:
            return replace(config, test=replace(config.test, scale=None))
        return replace(config, resize=False)
    if size < 32:
        raise ValueError(f"--size must be at least 32, got {size}")
    check_largest(size)
    if task == SEMANTIC:
        return replace(config, test=replace(config.test, scale=(4 * size, size)))
    # The published ratio of the longest to the shortest side.
    return replace(config, min_size=size, max_size=round(size * config.max_size / config.min_size), resize=True)


def _own_classes(model: nn.Module, task: str) -> ClassList:
    config: Any = model.config
    if task == PANOPTIC:
        return panoptic_classes(config.num_things, config.num_stuff)
    return (semantic_classes if task == SEMANTIC else detection_classes)(config.num_classes)


def _checked(given: ClassList | None, own: ClassList, source: str) -> ClassList:
    if given is None:
        return own
    if len(given.names) != len(own.names):
        raise ValueError(f"{source} has {len(given.names)} names, the model {len(own.names)} classes")
    if own.num_things is not None and given.num_things not in (None, own.num_things):
        raise ValueError(f"{source} has {given.num_things} things, the model {own.num_things}")
    return replace(given, num_things=own.num_things)


def look_of_scenes(data: dict[str, Any]) -> ScenesConfig:
    """Of a recipe's `data` whose path is `embedded:scenes`."""
    look: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data["scenes"]["look"].items()}
    return ScenesConfig(**look)


def _classes_of_run(run: Run, task: str) -> ClassList | None:
    """From the run's data where it still is, else the names that the run has written; None: unknown."""
    if run.class_ids:
        return ClassList(run.names, run.class_ids)
    data = run.saved["data"]
    first_id = int(task == SEMANTIC)
    if data["path"] == EMBEDDED:
        categories = scene_categories(look_of_scenes(data))
        names = tuple(c["name"] for c in categories)
        if task == SEMANTIC:
            return ClassList(names, tuple(range(1, len(names) + 1)))
        things = sum(c["isthing"] for c in categories)
        shown = categories if task == PANOPTIC else categories[:things]
        return ClassList(tuple(c["name"] for c in shown), tuple(c["id"] for c in shown), things)
    root, kind = Path(data["path"]), "panoptic" if task == PANOPTIC else "instances"
    files = [root / "annotations" / f"{kind}_{split}2017.json" for split in ("val", "train")]
    if task == SEMANTIC:
        files = [root / "classes.json", root / "objectInfo150.txt"]
    for file in files:
        if file.is_file():
            return read_class_list(file, first_id=first_id)
    names = run.classes
    return ClassList(names, tuple(range(first_id, first_id + len(names)))) if names else None
