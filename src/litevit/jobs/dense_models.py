"""Detectors, segmenters and panoptic models with their weights, and what their classes are called."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from litevit.checkpoints import layouts
from litevit.checkpoints import published as published
from litevit.checkpoints.files import Pathlike, read_metadata, read_state_dict
from litevit.checkpoints.load import load_weights
from litevit.data.class_names import (
    ClassList,
    detection_classes,
    panoptic_classes,
    read_class_list,
    semantic_classes,
)
from litevit.data.dense import EMBEDDED
from litevit.data.scenes import ScenesConfig, scene_categories
from litevit.models import create_model
from litevit.tasks.segmentation import read_overrides
from litevit.zoo import GENERIC, MODELS

DETECTION, INSTANCES = "detection", "instance segmentation"
SEMANTIC, PANOPTIC = "semantic segmentation", "panoptic segmentation"


class DenseModel(NamedTuple):
    """A model in evaluation mode and what its labels are called."""

    model: nn.Module
    name: str
    task: str  # as in `litevit.list_models(task=...)`
    classes: ClassList


def read_run(weights: Pathlike | None) -> tuple[Path | None, dict[str, Any]]:
    """The weights file, and the recipe that made it where it is from a training run.

    Args:
        weights: a checkpoint, or the folder of a training run.
    """
    if weights is None or str(weights) == "official":
        return None, {}
    path = Path(weights)
    if path.is_dir():
        path = path / "best.safetensors"
        if not path.is_file():
            raise FileNotFoundError(f"{path.parent} is not the folder of a finished training run: no {path.name}")
    elif not path.is_file():
        raise FileNotFoundError(f"Checkpoint {path} does not exist.")
    return path, json.loads(read_metadata(path).get("recipe", "{}"))


def task_of(name: str | None, weights: Pathlike | None = None) -> str:
    """The task of a model, by its name or else by what the checkpoint of a training run says."""
    if name is None:
        name = read_run(weights)[1].get("model", {}).get("name")
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
    size: int | None = None,
) -> DenseModel:
    """A dense model with its weights and class names.

    Args:
        name: model name; None: what the checkpoint of a training run says.
        weights: None (random), `"official"`, a checkpoint file, or the folder of a training run.
        num_classes: where it is not the model's own and the checkpoint does not tell.
        names: file of class names, see `read_class_list`; None: the training data's, COCO's or ADE20K's, or numbers.
        score_threshold: least score of objects; None keeps the model's.
        size: short side the image is resized to; None keeps the model's.
    """
    path, recipe = read_run(weights)
    overrides: dict[str, Any] = {}
    trained = recipe if recipe and name in (None, recipe["model"]["name"]) else {}
    if trained:
        name = trained["model"]["name"]
        overrides = read_overrides(trained["model"]["overrides"])
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
        overrides |= _class_counts(path, task)
    model = create_model(name, **overrides)
    if weights is not None:
        report = load_weights(model, path if path is not None else published.fetch(name))
        if report.missing:
            raise ValueError(
                f"{weights} is not a checkpoint of the whole {name}: {len(report.missing)} tensors are missing, "
                f"such as {report.missing[0]}"
            )
    _resize_to(model, task, size)
    classes = read_class_list(Path(names), first_id=int(task == SEMANTIC)) if names is not None else None
    if classes is None and trained:
        classes = _classes_of_run(path.parent if path else Path(), trained, task)
    return DenseModel(model.eval(), name, task, _checked(classes, _own_classes(model, task), str(names or weights)))


def _class_counts(path: Path, task: str) -> dict[str, int]:
    """Options that give the model the classes of a checkpoint."""
    state = layouts.to_ours(read_state_dict(path).tensors).state

    def rows(key: str) -> int | None:
        return len(state[key]) if key in state else None

    if task == DETECTION:  # A * K scores and A * 4 deltas at every position
        scores, deltas = rows("head.cls_logits.bias"), rows("head.deltas.bias")
        return {"num_classes": scores * 4 // deltas} if scores and deltas else {}
    things = rows("roi_heads.box_head.cls_logits.bias")
    stuff = rows("semantic_head.classifier.bias")
    if task == PANOPTIC:
        return {"num_things": things - 1, "num_stuff": stuff - 1} if things and stuff else {}
    if task == INSTANCES:
        return {"num_classes": things - 1} if things else {}
    classes = rows("head.classifier.bias")
    return {"num_classes": classes} if classes else {}


def _resize_to(model: nn.Module, task: str, size: int | None) -> None:
    if size is None:
        return
    if size < 32:
        raise ValueError(f"--size must be at least 32, got {size}")
    config: Any = model.config
    if task == SEMANTIC:
        model.config = replace(config, test=replace(config.test, scale=(4 * size, size)))  # type: ignore[assignment]
    else:  # the published ratio of the longest to the shortest side
        longest = round(size * config.max_size / config.min_size)
        model.config = replace(config, min_size=size, max_size=longest, resize=True)  # type: ignore[assignment]


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


def _classes_of_run(folder: Path, recipe: dict[str, Any], task: str) -> ClassList | None:
    """From the run's data where it still is, else the names that the run has written; None: unknown."""
    data = recipe["data"]
    metadata = read_metadata(folder / "best.safetensors") if (folder / "best.safetensors").is_file() else {}
    if "class_ids" in metadata:
        names, ids = json.loads(metadata["classes"]), json.loads(metadata["class_ids"])
        return ClassList(tuple(names), tuple(ids))
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
    table = folder / "per_class.json"
    if not table.is_file():
        return None
    names = tuple(json.loads(table.read_text()))
    return ClassList(names, tuple(range(first_id, first_id + len(names))))
