"""Checkpoints that are written whole or not at all, and known to be whole when they are read.

A file is written beside its final name, flushed to the disk and renamed. Its name carries the start of its own SHA-256
(as torch.hub's files do), so damage is noticed without trusting the content: `step-00001200-1f3a9c0e.pt`.
"""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from litevit.devices import out_of_memory
from litevit.files import torch_file, whole_file
from litevit.seals import save_sealed

NAME = re.compile(r"step-(\d{8,})-([0-9a-f]{8})\.pt")


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], *, keep: int) -> Path:
    """Writes the state of a run after `step` optimizer steps; the newest `keep` checkpoints stay."""
    path = folder / f"step-{step:08d}.pt"

    def named(temporary: Path) -> Path:
        nonlocal path
        path = folder / f"step-{step:08d}-{_digest(temporary)}.pt"
        return path

    with whole_file(path, sync=True, named=named, fails_with=(RuntimeError,)) as temporary:  # torch, on a full disk
        torch.save(state, temporary)
    for other in list_checkpoints(folder):
        if other != path and _step_of(other) >= step:  # damaged: the run has gone back before them
            other.unlink(missing_ok=True)
    remove_older(folder, step, keep=keep)
    return path


def remove_older(folder: Path, step: int, *, keep: int) -> None:
    """Of the checkpoints up to `step` the newest `keep` stay; what killed processes have half written goes."""
    old = [path for path in list_checkpoints(folder) if _step_of(path) <= step]
    for path in (*old[max(keep, 1) :], *folder.glob(".step-*.tmp")):
        path.unlink(missing_ok=True)


def _step_of(path: Path) -> int:
    match = NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def list_checkpoints(folder: Path) -> list[Path]:
    """Newest first."""
    found = [(int(match[1]), path) for path in folder.glob("step-*.pt") if (match := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def load_latest(folder: Path, warn: Callable[[str], None]) -> tuple[Path, dict[str, Any]] | None:
    """The newest whole checkpoint of a folder, or None. Damaged ones are named through `warn` and passed over.

    Raises:
        ValueError: there are checkpoints, but none is whole: beginning anew would overwrite what the run has kept.
    """
    found = list_checkpoints(folder)
    for path in found:
        try:
            return path, load_checkpoint(path)
        except (DamagedError, OSError) as error:
            if path == found[-1]:
                raise ValueError(
                    f"{error} No checkpoint of {folder} is whole. Nothing was changed: to begin anew, give --run.dir "
                    "another folder or delete the damaged files."
                ) from error
            warn(f"{error} The checkpoint before it is used.")
    return None


class DamagedError(ValueError):
    """A checkpoint is not what was written."""


def load_checkpoint(path: Path) -> dict[str, Any]:
    match = NAME.fullmatch(path.name)
    if match and _digest(path) != match[2]:
        raise DamagedError(f"{path} is damaged: its content does not match the checksum in its name.")
    try:
        with torch_file(path) as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a broken archive
        if out_of_memory(error):  # nothing is wrong with the file
            raise MemoryError(f"{path} cannot be read: out of memory") from error
        raise DamagedError(f"{path} is damaged or not a checkpoint: {str(error)[:300]}.") from error


def save_weights(path: Path, state: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Weights alone as safetensors, with what they are in the header."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    text = {name: value if isinstance(value, str) else json.dumps(value) for name, value in metadata.items()}
    with whole_file(path, sync=True, fails_with=(SafetensorError,)) as temporary:
        save_sealed(tensors, temporary, text)


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:8]
