"""Recipes: one function per published row, each returning the whole run as a typed `Recipe`."""

import difflib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from litevit.data.classification import ClassificationData, resolve_classes
from litevit.data.dense import DetectionData, SegmentationData
from litevit.engine.config import Recipe, from_dict, to_dict
from litevit.engine.logging import default_console
from litevit.engine.train import FitResult, Task, fit
from litevit.recipes import ade20k, cifar10, coco, imagenet1k, quickstart_dense
from litevit.recipes.classification import ClassificationTask
from litevit.recipes.dense_tasks import DetectionTask, PanopticTask, SegmentationTask
from litevit.recipes.finetune import finetune
from litevit.recipes.quickstart import quickstart
from litevit.recipes.token_labeling import TokenLabelTask

RECIPES: dict[str, Callable[[], Recipe]] = {
    "quickstart": quickstart,
    "quickstart-detection": quickstart_dense.quickstart_detection,
    "quickstart-panoptic": quickstart_dense.quickstart_panoptic,
    "quickstart-segmentation": quickstart_dense.quickstart_segmentation,
    "finetune": finetune,
    "cifar10": cifar10.cifar10,
    "cifar10_lit": cifar10.cifar10_lit,
    "cifar10_lvt": cifar10.cifar10_lvt,
    "cifar10_swin": cifar10.cifar10_swin,
    "cifar10_convnext": cifar10.cifar10_convnext,
    "cifar10_smoke": cifar10.cifar10_smoke,
    "lit_ti": imagenet1k.lit_ti,
    "lit_s": imagenet1k.lit_s,
    "lit_m": imagenet1k.lit_m,
    "lit_b": imagenet1k.lit_b,
    "litv2_s": imagenet1k.litv2_s,
    "litv2_m": imagenet1k.litv2_m,
    "litv2_b": imagenet1k.litv2_b,
    "litv2_b_384": imagenet1k.litv2_b_384,
    "litv2_s_alpha_00": imagenet1k.litv2_s_alpha_00,
    "litv2_s_alpha_02": imagenet1k.litv2_s_alpha_02,
    "litv2_s_alpha_04": imagenet1k.litv2_s_alpha_04,
    "litv2_s_alpha_05": imagenet1k.litv2_s_alpha_05,
    "litv2_s_alpha_07": imagenet1k.litv2_s_alpha_07,
    "litv2_s_alpha_09": imagenet1k.litv2_s_alpha_09,
    "litv2_s_alpha_10": imagenet1k.litv2_s_alpha_10,
    "lvt": imagenet1k.lvt,
    "lit_ti_uniform": imagenet1k.lit_ti_uniform,
    "lit_s_uniform": imagenet1k.lit_s_uniform,
    "pvt_s": imagenet1k.pvt_s,
    "pvt_s_dtm": imagenet1k.pvt_s_dtm,
    "pvt_s_msa": imagenet1k.pvt_s_msa,
    "pvt_s_msa_remove_1": imagenet1k.pvt_s_msa_remove_1,
    "pvt_s_msa_remove_12": imagenet1k.pvt_s_msa_remove_12,
    "pvt_s_msa_remove_123": imagenet1k.pvt_s_msa_remove_123,
    "pvt_s_msa_remove_1234": imagenet1k.pvt_s_msa_remove_1234,
    "swin_ti": imagenet1k.swin_ti,
    "swin_ti_dtm": imagenet1k.swin_ti_dtm,
    "retinanet_lit_ti": coco.retinanet_lit_ti,
    "retinanet_lit_s": coco.retinanet_lit_s,
    "mask_rcnn_lit_ti": coco.mask_rcnn_lit_ti,
    "mask_rcnn_lit_s": coco.mask_rcnn_lit_s,
    "retinanet_litv2_s": coco.retinanet_litv2_s,
    "retinanet_litv2_s_ws4": coco.retinanet_litv2_s_ws4,
    "retinanet_litv2_m": coco.retinanet_litv2_m,
    "retinanet_litv2_m_ws4": coco.retinanet_litv2_m_ws4,
    "retinanet_litv2_b": coco.retinanet_litv2_b,
    "retinanet_litv2_b_ws4": coco.retinanet_litv2_b_ws4,
    "mask_rcnn_litv2_s": coco.mask_rcnn_litv2_s,
    "mask_rcnn_litv2_s_ws4": coco.mask_rcnn_litv2_s_ws4,
    "mask_rcnn_litv2_m": coco.mask_rcnn_litv2_m,
    "mask_rcnn_litv2_m_ws4": coco.mask_rcnn_litv2_m_ws4,
    "mask_rcnn_litv2_b": coco.mask_rcnn_litv2_b,
    "mask_rcnn_litv2_b_ws4": coco.mask_rcnn_litv2_b_ws4,
    "panoptic_fpn_lvt": coco.panoptic_fpn_lvt,
    "panoptic_fpn_lvt_1x": coco.panoptic_fpn_lvt_1x,
    "semantic_fpn_lit_ti": ade20k.semantic_fpn_lit_ti,
    "semantic_fpn_lit_s": ade20k.semantic_fpn_lit_s,
    "semantic_fpn_litv2_s": ade20k.semantic_fpn_litv2_s,
    "semantic_fpn_litv2_m": ade20k.semantic_fpn_litv2_m,
    "semantic_fpn_litv2_b": ade20k.semantic_fpn_litv2_b,
    "segformer_lvt": ade20k.segformer_lvt,
}

RESULTS = {
    "recipe.json": "the resolved recipe; `litevit train` takes it in place of a name",
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


def get_recipe(name: str) -> Recipe:
    """A recipe by name, or from a `recipe.json` that a run has written."""
    if name.endswith(".json"):
        return load_recipe(Path(name))
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=3)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"Known: {', '.join(RECIPES)}."
        raise ValueError(f"Unknown recipe {name!r}. {hint}")
    return RECIPES[name]()


def load_recipe(path: Path) -> Recipe:
    """Reads `runs/<name>/recipe.json`; unknown fields and wrong types raise ValueError."""
    try:
        values = json.loads(path.read_text())
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
    """Fills in what depends on the data: `data.num_classes` 0 becomes the number of class folders."""
    if isinstance(recipe.data, ClassificationData):
        return replace(recipe, data=resolve_classes(recipe.data))
    return recipe


def create_task(recipe: Recipe) -> Task:
    return TASKS[recipe.task][1](recipe)


def train(recipe: Recipe, *, console: Console | None = None) -> FitResult:
    """Runs a recipe and says where its results are: what `litevit train` does.

    The resolved recipe is printed first, and is `recipe.json` in the run's folder.
    """
    console = console or default_console()
    recipe = resolve(recipe)
    main = int(os.environ.get("RANK", "0")) == 0  # accelerate is not up yet
    if main:
        console.print_json(json.dumps(to_dict(recipe)), indent=2)
    result = fit(recipe, create_task(recipe), console=console)
    if main and not result.stopped:
        console.print(f"\nResults in {result.folder}/", soft_wrap=True)
        for name, what in RESULTS.items():
            if (result.folder / name).exists():
                console.print(f"  {name:18} {what}", highlight=False, soft_wrap=True)
        console.print(f"Next: litevit eval --run {result.folder}", highlight=False, soft_wrap=True)
    return result
