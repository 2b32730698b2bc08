"""A small run's folder and the server over it, as the tests of the page use them."""

import json
from pathlib import Path
from typing import Any

import torch

import litevit
from litevit.checkpoints.files import write_state_dict
from litevit.deploy.verify import with_lively_heads
from litevit.engine.config import to_dict
from litevit.recipes import get_recipe
from litevit.tasks.segmentation import read_overrides

SMALL = {"embed_dim": 16, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8), "alpha": 0.5}


def write_run(folder: Path) -> Path:
    """A classifier of digits, hardly trained, with lines of metrics as a run that goes on writes them."""
    saved = to_dict(get_recipe("quickstart")) | {"model": {"name": "litv2_s", "weights": None, "overrides": SMALL}}
    saved["data"] |= {"image_size": 64, "crop_pct": 1.0}
    torch.manual_seed(0)
    model = litevit.create_model("litv2_s", num_classes=10, **SMALL)
    for name, parameter in model.named_parameters():  # far from uniform attention, and offsets of a cell or so
        parameter.data += (0.02 if "offset" in name else 0.2) * torch.randn_like(parameter)
    header = {"recipe": json.dumps(saved), "classes": json.dumps([str(i) for i in range(10)]), "step": "7"}
    folder.mkdir(parents=True)
    write_state_dict(model.state_dict(), folder / "best.safetensors", metadata=header)
    (folder / "recipe.json").write_text(json.dumps(saved))
    add_rows(folder, range(1, 6))
    return folder


def write_dense_run(folder: Path, recipe: str = "quickstart-detection", **overrides: Any) -> Path:
    """A dense model that finds something although it was not trained, as a run's folder. Its offsets are a cell or so.

    Args:
        overrides: of the recipe's model; with a backbone of its own in place of them.
    """
    saved = to_dict(get_recipe(recipe))
    saved["model"]["overrides"] = overrides if "backbone" in overrides else saved["model"]["overrides"] | overrides
    torch.manual_seed(0)
    counts = {"quickstart-panoptic": {"num_things": 3, "num_stuff": 4}, "quickstart-segmentation": {"num_classes": 7}}
    options = {**saved["model"]["overrides"], **counts.get(recipe, {"num_classes": 3})}
    model = with_lively_heads(litevit.create_model(saved["model"]["name"], **read_overrides(options)))
    for name, parameter in model.named_parameters():
        if "offset" in name and "backbone" not in overrides:
            parameter.data += 0.03 * torch.randn_like(parameter)
    folder.mkdir(parents=True)
    header = {"recipe": json.dumps(saved), "step": "7"}
    write_state_dict(model.state_dict(), folder / "best.safetensors", metadata=header)
    (folder / "recipe.json").write_text(json.dumps(saved))
    return folder


def add_rows(folder: Path, steps: Any) -> None:
    with open(folder / "metrics.jsonl", "a") as file:
        for step in steps:
            row = {"kind": "train", "epoch": 0, "step": step, "loss": 2 / step, "lr": 1e-3, "images_per_s": 9.0}
            file.write(json.dumps(row) + "\n")
            if step % 2 == 0:
                held_out = {"kind": "eval", "epoch": 1, "step": step, "top1": 10.0 * step, "loss": 1 / step}
                file.write(json.dumps(held_out) + "\n")
