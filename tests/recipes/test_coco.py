"""Every number of the published COCO recipes, held to the published configs."""

import json

import pytest
import torch

import litevit
from litevit.engine.config import IMAGENET, to_dict
from litevit.engine.schedule import learning_rate, total_steps
from litevit.jobs.dense_tasks import dense_param_groups
from litevit.jobs.recipe_files import recipe_from_dict
from litevit.recipes import RECIPES, coco, get_recipe

# name: (lr, drop path, decay, precision, activation checkpointing)
DETECTION = {
    "retinanet_lit_ti": (1e-4, 0.1, "all", "fp32", False),
    "retinanet_lit_s": (1e-4, 0.2, "no_norms", "auto", True),
    "retinanet_litv2_s": (1e-4, 0.2, "all", "auto", False),
    "retinanet_litv2_s_ws4": (1e-4, 0.2, "all", "auto", False),
    "retinanet_litv2_m": (1e-4, 0.2, "all", "auto", False),
    "retinanet_litv2_m_ws4": (1e-4, 0.2, "all", "auto", False),
    "retinanet_litv2_b": (1e-4, 0.3, "all", "auto", True),
    "retinanet_litv2_b_ws4": (1e-4, 0.3, "all", "auto", True),
    "mask_rcnn_lit_ti": (2e-4, 0.1, "all", "fp32", False),
    "mask_rcnn_lit_s": (2e-4, 0.2, "no_norms", "auto", True),
    "mask_rcnn_litv2_s": (2e-4, 0.2, "no_norms", "auto", False),
    "mask_rcnn_litv2_s_ws4": (2e-4, 0.2, "no_norms", "auto", False),
    "mask_rcnn_litv2_m": (2e-4, 0.2, "no_norms", "auto", False),
    "mask_rcnn_litv2_m_ws4": (2e-4, 0.2, "no_norms", "auto", False),
    "mask_rcnn_litv2_b": (2e-4, 0.3, "no_norms", "auto", True),
    "mask_rcnn_litv2_b_ws4": (2e-4, 0.3, "no_norms", "auto", True),
}
PANOPTIC = {"panoptic_fpn_lvt": (3e-4, 3, (640, 800)), "panoptic_fpn_lvt_1x": (4e-4, 1, (800, 800))}


def test_every_published_detector_has_a_recipe() -> None:
    models = {*litevit.list_models(task="detection"), *litevit.list_models(task="instance segmentation")}
    assert set(DETECTION) == models
    assert set(DETECTION) | set(PANOPTIC) == {
        name for name, recipe in RECIPES.items() if recipe.__module__ == coco.__name__
    }


@pytest.mark.parametrize("name", DETECTION)
def test_numbers_of_the_detectors(name: str) -> None:
    recipe = get_recipe(name)
    lr, drop_path, decay, precision, checkpointing = DETECTION[name]
    assert (recipe.name, recipe.task, recipe.model.name) == (name, "detection", name)
    assert recipe.model.weights == IMAGENET
    assert recipe.model.overrides == {"drop_path_rate": drop_path}
    optim, run, data = recipe.optim, recipe.run, recipe.data
    assert (optim.name, optim.lr, optim.lr_batch, optim.weight_decay) == ("adamw", lr, None, 1e-4)
    assert (optim.betas, optim.eps, optim.clip_grad) == ((0.9, 0.999), 1e-8, None)
    assert (optim.decay, optim.head_lr_ratio, optim.offset_lr_ratio) == (decay, 1.0, None)
    assert (run.batch_size, run.precision, run.grad_checkpointing) == (16, precision, checkpointing)
    assert (run.ema_decay, run.sync_batchnorm, run.eval_every) == (None, False, 1)
    assert data.masks == name.startswith("mask_rcnn")
    assert (data.resize, data.long_side, data.short_side, data.flip) == (True, 1333, (800, 800), 0.5)
    assert (data.group, data.repeat, data.eval_batch_size) == (2, 1, 1)


@pytest.mark.parametrize("name", PANOPTIC)
def test_numbers_of_the_panoptic_rows(name: str) -> None:
    recipe = get_recipe(name)
    lr, repeat, short_side = PANOPTIC[name]
    assert (recipe.name, recipe.task, recipe.model.name) == (name, "panoptic", "panoptic_fpn_lvt")
    assert (recipe.model.weights, recipe.model.overrides) == (IMAGENET, {})
    optim, run, data = recipe.optim, recipe.run, recipe.data
    assert (optim.name, optim.lr, optim.weight_decay, optim.decay) == ("adamw", lr, 1e-4, "all")
    assert (optim.clip_grad, optim.head_lr_ratio, optim.betas) == (None, 1.0, (0.9, 0.999))
    assert (run.batch_size, run.precision, run.ema_decay) == (64, "fp32", None)
    assert (data.long_side, data.short_side, data.flip) == (1333, short_side, 0.5)
    assert (data.repeat, data.group) == (repeat, 8)


@pytest.mark.parametrize("name", [*DETECTION, *PANOPTIC])
def test_schedule(name: str) -> None:
    """12 epochs, x 0.1 after 8 and 11, warm-up as mmcv's: lr (1 - (1 - i/500) (1 - 0.001))."""
    recipe, epoch = get_recipe(name), 7330
    base = recipe.optim.lr
    assert total_steps(recipe.schedule, epoch) == 12 * epoch

    def rate(step: int) -> float:
        return learning_rate(recipe.schedule, base, step=step, steps_per_epoch=epoch)

    for step in (0, 1, 250, 499):
        assert rate(step) == pytest.approx(base * (1 - (1 - step / 500) * (1 - 0.001)), rel=1e-12)
    assert rate(500) == rate(8 * epoch - 1) == base
    assert rate(8 * epoch) == rate(11 * epoch - 1) == pytest.approx(base * 0.1)
    assert rate(11 * epoch) == rate(12 * epoch - 1) == pytest.approx(base * 0.01)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        # As many parameters as the official names with "norm" or "relative_position_bias_table" in the published files.
        ("mask_rcnn_litv2_s", {"decay": 188, "no_decay": 54}),
        ("mask_rcnn_lit_s", {"decay": 136, "no_decay": 62}),
        ("mask_rcnn_litv2_b_ws4", {"decay": 356, "no_decay": 102}),
        ("retinanet_litv2_s", {"decay": 236}),
        ("panoptic_fpn_lvt", {"decay": 213}),
    ],
)
def test_what_weight_decay_acts_on(name: str, counts: dict[str, int]) -> None:
    recipe = get_recipe(name)
    with torch.device("meta"):
        model = litevit.create_model(recipe.model.name, **recipe.model.overrides)
    groups = dense_param_groups(model, recipe.optim, recipe.optim.lr)
    assert {group["name"]: len(group["params"]) for group in groups} == counts
    assert {group["name"]: group["weight_decay"] for group in groups} == {
        n: 1e-4 if n == "decay" else 0 for n in counts
    }
    assert all(group["lr"] == recipe.optim.lr for group in groups)
    assert sum(counts.values()) == len(list(model.parameters()))


@pytest.mark.parametrize("name", [*DETECTION, *PANOPTIC])
def test_recipes_survive_json(name: str) -> None:
    recipe = get_recipe(name)
    assert recipe_from_dict(json.loads(json.dumps(to_dict(recipe)))) == recipe
