"""Sizes of the CIFAR-10 models, and a short run on the real images where there are some."""

import os

import pytest
import torch
from rich.console import Console

from litevit.engine.config import override
from litevit.jobs.classification import build_classifier
from litevit.jobs.train import train
from litevit.recipes import get_recipe

# Parameters in millions: similar for the four that are compared.
SIZES = {
    "cifar10": 12.0,
    "cifar10_lit": 12.0,
    "cifar10_swin": 12.0,
    "cifar10_convnext": 12.5,
}


@pytest.mark.parametrize("name", SIZES)
def test_the_compared_models_are_of_one_size(name):
    recipe = get_recipe(name)
    with torch.device("meta"):
        model = build_classifier(recipe.model, 10)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(SIZES[name], rel=0.08)


@pytest.mark.parametrize("name", ["cifar10_lit", "cifar10_lvt", "cifar10_swin", "cifar10_convnext"])
def test_the_recipe_is_the_same_for_all(name):
    ours, theirs = get_recipe("cifar10"), get_recipe(name)
    assert (ours.data, ours.optim, ours.schedule, ours.run) == (theirs.data, theirs.optim, theirs.schedule, theirs.run)


@pytest.mark.slow
def test_the_smoke_run_beats_its_floor(tmp_path):
    """CIFAR10=FOLDER pytest -m slow ...: FOLDER has train/ and test/ with one folder per class."""
    folder = os.environ.get("CIFAR10")
    if folder is None:
        pytest.skip("no images: set CIFAR10 to a folder with train/ and test/")
    recipe = override(get_recipe("cifar10_smoke"), "data.path", folder)
    recipe = override(recipe, "run.dir", str(tmp_path))
    assert train(recipe, console=Console(quiet=True)).best["top1"] > 35
