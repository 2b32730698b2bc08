"""What a checkpoint says of the model it is of: the recipe in its header, the classes in its shapes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from litevit.checkpoints import layouts
from litevit.checkpoints.files import Pathlike, read_metadata, read_state_dict
from litevit.tasks.segmentation import read_overrides

BEST = "best.safetensors"  # in a training run's folder


def weights_file(path: Pathlike) -> Path:
    """The file itself, or the best weights in a training run's folder."""
    path = Path(path).expanduser()
    if not path.is_dir():
        return path
    if not (path / BEST).is_file():
        raise FileNotFoundError(f"{path} is not the folder of a finished training run: no {BEST}")
    return path / BEST


def recorded_options(path: Pathlike, name: str) -> dict[str, Any]:
    """With which options a training run has made the model `name`; {}: the checkpoint is of another or does not say."""
    path = weights_file(path)
    recipe = json.loads(read_metadata(path).get("recipe", "{}"))
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
