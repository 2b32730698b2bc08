"""Recipes as JSON, in the words of the task that they train."""

from pathlib import Path
from typing import Any

from litevit.data.config import ClassificationData, DetectionData, SegmentationData
from litevit.engine.config import Recipe, from_dict
from litevit.files import read_json

# Task name -> what `Recipe.data` is.
DATA: dict[str, type] = {
    "classification": ClassificationData,
    "token_labeling": ClassificationData,
    "detection": DetectionData,
    "panoptic": DetectionData,
    "segmentation": SegmentationData,
}


def load_recipe(path: Path) -> Recipe:
    """Reads `runs/<name>/recipe.json`; unknown fields and wrong types raise ValueError."""
    try:
        values = read_json(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"No recipe at {path}. A run keeps its own as recipe.json in its folder.") from None
    return recipe_from_dict(values)


def recipe_from_dict(values: dict[str, Any]) -> Recipe:
    """The inverse of `litevit.engine.config.to_dict`."""
    task = values.get("task") if isinstance(values, dict) else None
    if not isinstance(task, str) or task not in DATA:
        raise ValueError(f"recipe.task must be one of {', '.join(DATA)}, got {task!r:.60}")
    return from_dict(Recipe[DATA[task]], values)  # type: ignore[misc, valid-type]
