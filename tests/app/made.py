"""A small run's folder and the server over it, as the tests of the page use them."""

import json
from pathlib import Path
from typing import Any

import torch

import litevit
from litevit.checkpoints.files import write_state_dict
from litevit.engine.config import to_dict
from litevit.recipes import get_recipe

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


def add_rows(folder: Path, steps: Any) -> None:
    with open(folder / "metrics.jsonl", "a") as file:
        for step in steps:
            row = {"kind": "train", "epoch": 0, "step": step, "loss": 2 / step, "lr": 1e-3, "images_per_s": 9.0}
            file.write(json.dumps(row) + "\n")
            if step % 2 == 0:
                held_out = {"kind": "eval", "epoch": 1, "step": step, "top1": 10.0 * step, "loss": 1 / step}
                file.write(json.dumps(held_out) + "\n")
