"""The folder of a run: made before the first step, found again by workers that torchrun restarts."""

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import torch

from litevit.engine.checkpoint import list_checkpoints
from litevit.engine.config import Recipe, to_dict
from litevit.engine.logging import launcher
from litevit.files import read_json, write_json


def open_folder(recipe: Recipe, made: dict[str, Any]) -> Path:
    """The run's folder, with the resolved recipe in it: `run.dir`, or a new `runs/<name>`, `runs/<name>-2`, ...

    Workers that torchrun restarted go on in the folder of the first try.
    """
    run = recipe.run
    if run.dir is not None:
        folder = Path(run.dir)
        folder.mkdir(parents=True, exist_ok=True)
    else:
        folder = _same_launch(recipe) or _new_folder(Path(run.root), recipe.name)
    if not list_checkpoints(folder / "checkpoints"):
        write_json(folder / "recipe.json", to_dict(recipe), indent=2, sync=True)
        write_json(folder / "launch.json", {"launcher": launcher(), "command": sys.argv, **made}, indent=2)
    return folder


def _new_folder(root: Path, name: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        folder = root / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1


def _same_launch(recipe: Recipe) -> Path | None:
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) == 0:
        return None
    for file in Path(recipe.run.root).glob(f"{recipe.name}*/launch.json"):
        with contextlib.suppress(OSError, ValueError):
            told = read_json(file)
            if isinstance(told, dict) and told.get("launcher") == launcher():
                return file.parent
    return None


def made_on(accelerator: Any, precision: str, optimized: dict[str, int]) -> dict[str, Any]:
    """What a run computes with, as its `launch.json` says it."""
    return {
        "device": device_name(accelerator.device),
        "processes": accelerator.num_processes,
        "precision": precision,
        "optimized": optimized,
    }


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def how(made: dict[str, Any], chosen: str) -> str:
    """How a run computes, in a line."""
    many = "" if made["processes"] == 1 else f", {made['processes']} processes"
    auto = " (run.precision auto)" if chosen == "auto" else ""
    fast = ", ".join(f"{number} {kind}" for kind, number in made["optimized"].items())
    faster = f"; faster modules of the same function (run.optimize auto): {fast}" if fast else ""
    return f"Training on {made['device']}{many} in {made['precision']}{auto}{faster}."
