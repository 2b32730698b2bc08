"""What a checkpoint says of the model it is of: the recipe in its header, the classes in its shapes."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from litevit.checkpoints import layouts
from litevit.checkpoints.files import Pathlike, read_metadata, read_state_dict
from litevit.files import parse_json
from litevit.tasks.segmentation import read_overrides

MODEL_NAME = re.compile(r"[\w./-]{0,100}")  # neither hf-hub:... nor local-dir:...
BEST = "best.safetensors"  # in a training run's folder


def weights_file(path: Pathlike) -> Path:
    """The file itself, or the best weights in a training run's folder."""
    path = Path(path).expanduser()
    if not path.is_dir():
        return path
    if not (path / BEST).is_file():
        raise FileNotFoundError(f"{path} is not the folder of a finished training run: no {BEST}")
    return path / BEST


T = TypeVar("T", dict, list)


def recorded(header: Mapping[str, str], key: str, kind: type[T], path: Path) -> T:
    """What a run has written under a key of its weights' header; empty where it has not.

    Raises:
        ValueError: something else is written there.
    """
    value = parse_json(header[key], f"{path}: {key!r} in its header") if key in header else kind()
    if not isinstance(value, kind):
        what = "an object" if kind is dict else "a list"
        raise ValueError(f"{path}: {key!r} in its header must be {what}, got {value!r:.60}; the file is damaged")
    return value


def check_recipe(recipe: Any, path: Path) -> dict[str, Any]:
    """A saved recipe that has what opening its model needs; {}: there is none.

    Raises:
        ValueError: it lacks something of that.
    """
    if recipe == {}:
        return {}
    model = recipe.get("model") if isinstance(recipe, dict) else None
    good = (
        isinstance(model, dict)
        and isinstance(model.get("name"), str)
        and isinstance(model.get("overrides"), dict)
        and isinstance(recipe.get("data"), dict)
        and isinstance(recipe.get("task", ""), str)
        and type(recipe["data"].get("num_classes", 0)) is int
    )
    if not good:
        raise ValueError(
            f"{path}: its recipe must be an object with model.name, model.overrides and data, got {recipe!r:.60}; the "
            "file is damaged, or no run of litevit has written it"
        )
    assert model is not None
    if not MODEL_NAME.fullmatch(model["name"]):
        raise ValueError(f"{path}: its recipe's model.name is no model's name, {model['name']!r:.60}; it is damaged")
    return recipe


def recorded_recipe(path: Path) -> dict[str, Any]:
    """The recipe in the header of a weights file; {}: there is none."""
    return check_recipe(recorded(read_metadata(path), "recipe", dict, path), path)


def recorded_options(path: Pathlike, name: str) -> dict[str, Any]:
    """With which options a training run has made the model `name`; {}: the checkpoint is of another or does not say."""
    path = weights_file(path)
    recipe = recorded_recipe(path)
    if not recipe or recipe["model"]["name"] != name:
        return {}
    options = read_overrides(recipe["model"]["overrides"])
    if "num_classes" in recipe["data"]:
        return {**options, "num_classes": recipe["data"]["num_classes"]}
    return {**options, **class_counts(path)}


def class_counts(path: Pathlike) -> dict[str, int]:
    """Options that give a detector, segmenter or panoptic model the classes of a checkpoint."""
    state = layouts.to_ours(read_state_dict(path).tensors).state
    return {} if "head.weight" in state else class_counts_of(state)


def class_counts_of(state: Mapping[str, Any]) -> dict[str, int]:
    """Options that give a model the classes of a whole model's tensors, under our keys; {}: they have no head."""

    def rows(key: str) -> int | None:
        return len(state[key]) if key in state else None

    scores, deltas = rows("head.cls_logits.bias"), rows("head.deltas.bias")
    if scores and deltas:  # RetinaNet: A * K scores and A * 4 deltas at every position
        return {"num_classes": scores * 4 // deltas}
    things, stuff = rows("roi_heads.box_head.cls_logits.bias"), rows("semantic_head.classifier.bias")
    if things and stuff:
        return {"num_things": things - 1, "num_stuff": stuff - 1}
    if things:
        return {"num_classes": things - 1}
    classes = rows("head.classifier.bias") or rows("head.bias")
    return {"num_classes": classes} if classes else {}
