"""Recipes as JSON, in the words of the task that they train."""

import json
from pathlib import Path
from typing import Any

from litevit.data.config import ClassificationData, DetectionData, SegmentationData
from litevit.engine.config import Recipe, from_dict

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
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"No recipe at {path}. A run keeps its own as recipe.json in its folder.") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    return recipe_from_dict(values)


def recipe_from_dict(values: dict[str, Any]) -> Recipe:
    """The inverse of `litevit.engine.config.to_dict`."""
    task = values.get("task") if isinstance(values, dict) else None
    if task not in DATA:
        raise ValueError(f"recipe.task must be one of {', '.join(DATA)}, got {task!r}")
    return from_dict(Recipe[DATA[task]], values)  # type: ignore[misc, valid-type]
