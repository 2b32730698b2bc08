"""A set of photos as a person has it, and a run on it that takes a second."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from litevit import cli
from litevit.engine.config import ModelConfig, override
from litevit.recipes import get_recipe

SHADES = {"bee": 60, "cow": 120, "dog": 180}


def write_photo(path: Path, shade: int, size: tuple[int, int] = (32, 32)) -> Path:
    """A grey picture with some noise, so that no two are the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(str(path)) + shade).integers(-9, 10, (size[1], size[0], 3))
    Image.fromarray((shade + noise).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def photo() -> Callable[..., Path]:
    """`photo(path, shade)` writes one."""
    return write_photo


@pytest.fixture
def photos(tmp_path) -> Path:
    """Three classes, four images each to train on and two to evaluate on."""
    for split, count in (("train", 4), ("val", 2)):
        for name, shade in SHADES.items():
            for i in range(count):
                write_photo(tmp_path / "photos" / split / name / f"{split}{i}.png", shade + i)
    return tmp_path / "photos"


@pytest.fixture
def recipe(tmp_path) -> Callable[..., Any]:
    """`recipe(path, data__hold_out=0.2)`: fine-tuning of a tiny LITv2 on a folder, two steps, into `run`."""

    def make(path: Path, *, run: str = "run", **changes: Any) -> Any:
        base = get_recipe("finetune")
        overrides = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}
        values = {
            "model": ModelConfig(name="litv2_s", overrides=overrides),
            "data": replace(base.data, path=str(path), image_size=32),
            "run": replace(base.run, batch_size=4, max_steps=2, workers=0, device="cpu", dir=str(tmp_path / run)),
        }
        made = replace(base, **values)
        for name, value in changes.items():
            made = override(made, name.replace("__", "."), value)
        return made

    return make


@pytest.fixture
def litevit(capsys) -> Callable[..., tuple[int, str, str]]:
    """Runs a command: exit code, standard output, standard error."""

    def run(*arguments: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run
