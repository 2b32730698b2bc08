"""Every number of the published ADE20K recipes, held to the published configs."""

from dataclasses import replace

import pytest
import torch

import litevit
from litevit.engine.config import IMAGENET, to_dict
from litevit.engine.schedule import learning_rate, total_steps
from litevit.jobs.dense_tasks import dense_param_groups
from litevit.jobs.recipe_files import recipe_from_dict
from litevit.recipes import RECIPES, ade20k, get_recipe

# name: (drop path, activation checkpointing)
SEMANTIC_FPN = {
    "semantic_fpn_lit_ti": (0.1, False),
    "semantic_fpn_lit_s": (0.2, True),
    "semantic_fpn_litv2_s": (0.2, False),
    "semantic_fpn_litv2_m": (0.2, False),
    "semantic_fpn_litv2_b": (0.3, False),
}
NAMES = [*SEMANTIC_FPN, "segformer_lvt"]


def test_every_published_segmenter_has_a_recipe() -> None:
    assert sorted(NAMES) == litevit.list_models(task="semantic segmentation")
    assert set(NAMES) == {name for name, recipe in RECIPES.items() if recipe.__module__ == ade20k.__name__}


@pytest.mark.parametrize("name", NAMES)
def test_common_numbers(name: str) -> None:
    recipe = get_recipe(name)
    assert (recipe.name, recipe.task, recipe.model.name, recipe.model.weights) == (name, "segmentation", name, IMAGENET)
    optim, run, data = recipe.optim, recipe.run, recipe.data
    assert (optim.name, optim.betas, optim.eps, optim.clip_grad) == ("adamw", (0.9, 0.999), 1e-8, None)
    assert (optim.offset_lr_ratio, optim.lr_batch) == (None, None)
    assert (run.batch_size, run.precision, run.ema_decay) == (16, "fp32", None)
    assert (data.long_side, data.short_side, data.ratios, data.crop) == (2048, 512, (0.5, 2.0), 512)
    assert data.category_cap == 0.75
    assert recipe_from_dict(to_dict(recipe)) == recipe


@pytest.mark.parametrize("name", SEMANTIC_FPN)
def test_numbers_of_semantic_fpn(name: str) -> None:
    recipe = get_recipe(name)
    drop_path, checkpointing = SEMANTIC_FPN[name]
    assert recipe.model.overrides == {"drop_path_rate": drop_path}
    optim, run = recipe.optim, recipe.run
    assert (optim.lr, optim.weight_decay, optim.decay, optim.head_lr_ratio) == (1e-4, 1e-4, "all", 1.0)
    assert (run.eval_steps, run.grad_checkpointing) == (8_000, checkpointing)
    assert total_steps(recipe.schedule, 1263) == 80_000
    for step in (0, 1, 40_000, 79_999):
        expected = (1e-4 - 1e-6) * (1 - step / 80_000) ** 0.9 + 1e-6
        assert learning_rate(recipe.schedule, 1e-4, step=step, steps_per_epoch=1263) == pytest.approx(
            expected, rel=1e-12
        )


def test_numbers_of_segformer() -> None:
    recipe = get_recipe("segformer_lvt")
    assert recipe.model.overrides == {}
    optim = recipe.optim
    assert (optim.lr, optim.weight_decay, optim.decay, optim.head_lr_ratio) == (6e-5, 0.01, "no_norms", 10.0)
    assert recipe.run.eval_steps == 16_000
    assert total_steps(recipe.schedule, 1263) == 160_000

    def rate(step: int) -> float:
        return learning_rate(recipe.schedule, 6e-5, step=step, steps_per_epoch=1263)

    for step in (0, 1, 750, 1499):  # mmcv: the scheduled rate times 1 - (1 - i/1500) (1 - 1e-6)
        scheduled = 6e-5 * (1 - step / 160_000)
        assert rate(step) == pytest.approx(scheduled * (1 - (1 - step / 1500) * (1 - 1e-6)), rel=1e-12)
    assert rate(1500) == pytest.approx(6e-5 * (1 - 1500 / 160_000), rel=1e-12)
    assert rate(80_000) == pytest.approx(3e-5, rel=1e-12)


def test_parameter_groups_of_segformer() -> None:
    """The published file's: 100 plain, 48 norms, 15 of the head, of which the unused conv_seg's 2 do not exist here."""
    recipe = get_recipe("segformer_lvt")
    with torch.device("meta"):
        model = litevit.create_model("segformer_lvt")
    groups = {group["name"]: group for group in dense_param_groups(model, recipe.optim, recipe.optim.lr)}
    assert {name: len(group["params"]) for name, group in groups.items()} == {"decay": 100, "no_decay": 48, "head": 13}
    assert {name: group["weight_decay"] for name, group in groups.items()} == {
        "decay": 0.01,
        "no_decay": 0.0,
        "head": 0.01,
    }
    assert {name: group["lr"] for name, group in groups.items()} == pytest.approx(
        {"decay": 6e-5, "no_decay": 6e-5, "head": 6e-4}
    )


def test_weight_decay_of_semantic_fpn_acts_on_everything() -> None:
    recipe = get_recipe("semantic_fpn_litv2_s")
    with torch.device("meta"):
        model = litevit.create_model("semantic_fpn_litv2_s")
    (group,) = dense_param_groups(model, recipe.optim, recipe.optim.lr)
    assert (group["name"], len(group["params"])) == ("decay", len(list(model.parameters())))


def test_offsets_learn_at_their_own_rate_where_a_recipe_says_so() -> None:
    recipe = get_recipe("semantic_fpn_litv2_s")
    with torch.device("meta"):
        model = litevit.create_model("semantic_fpn_litv2_s")
    optim = replace(recipe.optim, offset_lr_ratio=0.05)
    groups = {group["name"]: group for group in dense_param_groups(model, optim, 1e-3)}
    assert len(groups["offset"]["params"]) == 3
    assert groups["offset"]["lr"] == pytest.approx(5e-5)
    assert sum(len(group["params"]) for group in groups.values()) == len(list(model.parameters()))
