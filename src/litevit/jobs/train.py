"""Trains: from a recipe to a run's folder. What `litevit train` does."""

import os
from collections.abc import Callable
from dataclasses import replace

from rich.console import Console

from litevit.checkpoints.packed import is_packed
from litevit.data.classification import ClassificationData, resolve_classes
from litevit.engine.config import ModelConfig, Recipe, check
from litevit.engine.logging import default_console
from litevit.engine.train import FitResult, Task, fit
from litevit.jobs.classification import ClassificationTask
from litevit.jobs.classification import with_options_of as with_options_of_classifier
from litevit.jobs.dense_models import DETECTION, task_of
from litevit.jobs.dense_tasks import DetectionTask, PanopticTask, SegmentationTask, with_options_of
from litevit.jobs.recipe_files import DATA
from litevit.jobs.token_labeling import TokenLabelTask
from litevit.zoo import BACKBONES, GENERIC

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

# Task name -> what the training loop is given; `recipe_files.DATA` has what their data are.
TASKS: dict[str, Callable[[Recipe], Task]] = {
    "classification": ClassificationTask,
    "token_labeling": TokenLabelTask,
    "detection": DetectionTask,
    "panoptic": PanopticTask,
    "segmentation": SegmentationTask,
}


def resolve(recipe: Recipe) -> Recipe:
    """Fills in what depends on data, model and start: `data.num_classes` 0 becomes the number of class folders, a model
    that starts from a run gets its options, a detector that finds boxes alone reads no masks, and timm's backbones,
    whose layers are not known, learn at one rate.

    Raises:
        ValueError: the model is a packed one; its folder or hub would be asked by whoever opens the recipe.
    """
    if is_packed(recipe.model.name):
        raise ValueError(
            f"model.name must be a model of `litevit list` or timm/NAME, got {recipe.model.name!r:.60}; a packed "
            "model's weights are given as --model.weights FOLDER/model.safetensors"
        )
    if recipe.optim.layer_decay is not None and not _has_known_layers(recipe.model):
        recipe = replace(recipe, optim=replace(recipe.optim, layer_decay=None))
    if isinstance(recipe.data, ClassificationData):
        return replace(recipe, model=with_options_of_classifier(recipe.model), data=resolve_classes(recipe.data))
    recipe = replace(recipe, model=with_options_of(recipe.model))
    if recipe.task == "detection" and recipe.data.masks and task_of(recipe.model.name) == DETECTION:
        return replace(recipe, data=replace(recipe.data, masks=False))
    return recipe


def _has_known_layers(model: ModelConfig) -> bool:
    """Whether the backbone is ours."""
    if model.name in GENERIC:
        return with_options_of(model).overrides.get("backbone") in BACKBONES
    return not model.name.startswith("timm/")


def create_task(recipe: Recipe) -> Task:
    if not isinstance(recipe.data, DATA.get(recipe.task, ())):
        raise ValueError(
            f"A recipe's task is what its data are for: {recipe.task!r:.60} takes no {type(recipe.data).__name__}"
        )
    return TASKS[recipe.task](recipe)


def train(recipe: Recipe, *, console: Console | None = None) -> FitResult:
    """Runs a recipe and says where its results are: what `litevit train` does.

    The resolved recipe is `recipe.json` in the run's folder.
    """
    console = console or default_console()
    check(recipe)
    given, recipe = recipe, resolve(recipe)
    main = int(os.environ.get("RANK", "0")) == 0  # accelerate is not up yet
    if main:
        console.print(f"{recipe.name}: {recipe.task}, {recipe.model.name}", highlight=False, soft_wrap=True)
        if recipe.optim.layer_decay != given.optim.layer_decay:
            said = (
                f"optim.layer_decay {given.optim.layer_decay} is left out: the layers of timm's backbones are not known"
            )
            console.print(f"{said}, all learn at one rate", highlight=False, soft_wrap=True)
    result = fit(recipe, create_task(recipe), console=console)
    if main and not result.stopped:
        console.print(f"\nResults in {result.folder}/", soft_wrap=True)
        for name, what in RESULTS.items():
            if (result.folder / name).exists():
                console.print(f"  {name:18} {what}", highlight=False, soft_wrap=True)
        console.print(f"Next: litevit eval --run {result.folder}", highlight=False, soft_wrap=True)
    return result
