"""The folder of a run: made before the first step, found again by workers that torchrun restarts, and of one run."""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from litevit.engine import parallel
from litevit.engine.checkpoint import list_checkpoints
from litevit.engine.config import Recipe, to_dict
from litevit.engine.logging import launcher
from litevit.files import read_json, remove_all_temporaries, write_json

PATIENCE = 10.0  # seconds for a run that is ending, or loader workers that a killed one has left


@contextlib.contextmanager
def opened(recipe: Recipe, made: dict[str, Any], accelerator: Any) -> Iterator[Path]:
    """The run's folder on every process, locked by the first one until the block ends.

    Raises:
        ValueError: another run is in it.
        OSError: it cannot be written to.
    """
    with contextlib.ExitStack() as held:
        found: Path | Exception | None = None
        if accelerator.is_main_process:
            try:
                found = open_folder(recipe, made, held)
            except (ValueError, OSError) as error:
                found = error  # the other processes wait for it
        found = parallel.from_main_process(found, accelerator)
        if isinstance(found, Exception):
            raise found
        assert isinstance(found, Path)
        yield found


def open_folder(recipe: Recipe, made: dict[str, Any], held: contextlib.ExitStack) -> Path:
    """The run's folder, with the resolved recipe in it: `run.dir`, or a new `runs/<name>`, `runs/<name>-2`, ...

    Workers that torchrun restarted go on in the folder of the first try.

    Args:
        held: takes the lock.
    """
    run = recipe.run
    try:
        if run.dir is not None:
            folder = Path(run.dir)
            folder.mkdir(parents=True, exist_ok=True)
        else:
            folder = _same_launch(recipe) or _new_folder(Path(run.root), recipe.name)
    except OSError as error:
        raise OSError(
            f"Cannot make {run.dir or run.root}: {error.strerror or error}. Give another --run.dir or --run.root"
        ) from None
    _lock(folder, held)
    for place in (folder, folder / "checkpoints"):
        remove_all_temporaries(place)  # of a process that was killed
    if not list_checkpoints(folder / "checkpoints"):
        write_json(folder / "recipe.json", to_dict(recipe), indent=2, sync=True)
        write_json(
            folder / "launch.json",
            {"launcher": launcher(), "command": sys.argv, "folder": os.getcwd(), **made},
            indent=2,
            sync=True,
        )
    return folder


def _lock(folder: Path, held: contextlib.ExitStack) -> None:
    """The system lets go of the lock when the process ends, however it ends."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        raise ValueError(
            f"Another run is training in {folder}. Wait for it or stop it, or give this one another --run.dir"
        ) from None
    except NotImplementedError:  # a file system without locks
        warnings.warn(f"{folder} cannot be locked: take care to start no second run in it", stacklevel=2)
    except OSError as error:
        raise OSError(f"Cannot write to {folder}: {error.strerror or error}. Give another --run.dir") from None
    else:
        held.callback(lock.release)


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
