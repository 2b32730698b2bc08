"""Trains: from a recipe to a run's folder. What `litevit train` does."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from litevit.data.classification import ClassificationData, resolve_classes
from litevit.data.dense import DetectionData, SegmentationData
from litevit.engine.config import Recipe, check, from_dict
from litevit.engine.logging import default_console
from litevit.engine.train import FitResult, Task, fit
from litevit.jobs.classification import ClassificationTask
from litevit.jobs.dense_models import DETECTION, task_of
from litevit.jobs.dense_tasks import DetectionTask, PanopticTask, SegmentationTask, with_options_of
from litevit.jobs.token_labeling import TokenLabelTask

RESULTS = {
    "recipe.json": "the resolved recipe; `litevit train` takes it in place of a name",
    "data.json": "which images of which class were read, and what was left out and why",
    "metrics.jsonl": "losses, learning rate, images/s and evaluations, one JSON object per line",
    "result.json": "metrics of the best weights",
    "curves.png": "the same as pictures",
    "confusion.png": "true and predicted classes of the held-out images",
    "predictions.png": "held-out images with what the model says; mistakes in red, or truth left and answer right",
    "results.json": "detections of the held-out images in COCO's format",
    "per_class.json": "metrics of every class",
    "best.safetensors": "the best weights",
    "checkpoints": "to continue from",
}

# Task name -> what `Recipe.data` is, and what the training loop is given.
TASKS: dict[str, tuple[type, Callable[[Recipe], Task]]] = {
    "classification": (ClassificationData, ClassificationTask),
    "token_labeling": (ClassificationData, TokenLabelTask),
    "detection": (DetectionData, DetectionTask),
    "panoptic": (DetectionData, PanopticTask),
    "segmentation": (SegmentationData, SegmentationTask),
}


def load_recipe(path: Path) -> Recipe:
    """Reads `runs/<name>/recipe.json`; unknown fields and wrong types raise ValueError."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"No recipe at {path}. A run keeps its own as recipe.json in its folder.") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    return recipe_from_dict(values)


def recipe_from_dict(values: dict[str, Any]) -> Recipe:
    """The inverse of `litevit.engine.config.to_dict`."""
    task = values.get("task") if isinstance(values, dict) else None
    if task not in TASKS:
        raise ValueError(f"recipe.task must be one of {', '.join(TASKS)}, got {task!r}")
    return from_dict(Recipe[TASKS[task][0]], values)  # type: ignore[misc, arg-type]


def resolve(recipe: Recipe) -> Recipe:
    """Fills in what depends on data and model: `data.num_classes` 0 becomes the number of class folders, and a detector
    that finds boxes alone reads no masks."""
    if isinstance(recipe.data, ClassificationData):
        return replace(recipe, data=resolve_classes(recipe.data))
    recipe = replace(recipe, model=with_options_of(recipe.model))
    if recipe.task == "detection" and recipe.data.masks and task_of(recipe.model.name) == DETECTION:
        return replace(recipe, data=replace(recipe.data, masks=False))
    return recipe


def create_task(recipe: Recipe) -> Task:
    return TASKS[recipe.task][1](recipe)


def train(recipe: Recipe, *, console: Console | None = None) -> FitResult:
    """Runs a recipe and says where its results are: what `litevit train` does.

    The resolved recipe is `recipe.json` in the run's folder.
    """
    console = console or default_console()
    check(recipe)
    recipe = resolve(recipe)
    main = int(os.environ.get("RANK", "0")) == 0  # accelerate is not up yet
    if main:
        console.print(f"{recipe.name}: {recipe.task}, {recipe.model.name}", highlight=False, soft_wrap=True)
    result = fit(recipe, create_task(recipe), console=console)
    if main and not result.stopped:
        console.print(f"\nResults in {result.folder}/", soft_wrap=True)
        for name, what in RESULTS.items():
            if (result.folder / name).exists():
                console.print(f"  {name:18} {what}", highlight=False, soft_wrap=True)
        console.print(f"Next: litevit eval --run {result.folder}", highlight=False, soft_wrap=True)
    return result
