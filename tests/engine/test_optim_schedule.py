"""Parameter groups and learning rates against the published figures."""

import math

import pytest
import torch

import litevit
from litevit.engine import OptimConfig, ScheduleConfig, param_groups
from litevit.engine.optim import create_optimizer, scaled_lr
from litevit.engine.schedule import learning_rate, total_steps
from litevit.recipes import get_recipe

# Tensors and elements per group, counted on the official models.
OFFICIAL = {
    "lit_ti": {"decay": (59, 19811584), "no_decay": (119, 58304), "offset": (3, 16384)},
    "lit_s": {"decay": (45, 27830784), "no_decay": (106, 121432), "offset": (3, 21504)},
    "lit_m": {"decay": (93, 49064448), "no_decay": (214, 286312), "offset": (3, 21504)},
    "lit_b": {"decay": (93, 86882304), "no_decay": (214, 381408), "offset": (3, 28672)},
    "litv2_s": {"decay": (77, 27744000), "no_decay": (130, 78496), "offset": (3, 21504)},
    "litv2_m": {"decay": (173, 48652032), "no_decay": (274, 156832), "offset": (3, 21504)},
    "litv2_b": {"decay": (173, 86283264), "no_decay": (274, 208768), "offset": (3, 28672)},
    "litv2_s_alpha_00": {"decay": (59, 27989760), "no_decay": (112, 78496), "offset": (3, 21504)},
    "litv2_s_alpha_10": {"decay": (65, 27989760), "no_decay": (118, 78496), "offset": (3, 21504)},
    "pvt_s_msa": {"decay": (73, 20122880), "no_decay": (144, 62504)},
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_groups_have_the_official_members(name):
    with torch.device("meta"):
        model = litevit.create_model(name)
    groups = param_groups(model, lr=1e-3, weight_decay=0.05, offset_lr=1e-5)
    found = {g["name"]: (len(g["params"]), sum(p.numel() for p in g["params"])) for g in groups}
    if name in ("litv2_s", "litv2_m", "litv2_b"):  # one projection for Lo-Fi's q and Hi-Fi's q, k, v: fewer tensors
        found = {group: elements for group, (_, elements) in found.items()}
        assert found == {group: elements for group, (_, elements) in OFFICIAL[name].items()}
    else:
        assert found == OFFICIAL[name]
    rates = {g["name"]: (g["lr"], g["weight_decay"]) for g in groups}
    expected = {"decay": (1e-3, 0.05), "no_decay": (1e-3, 0.0), "offset": (1e-5, 0.05)}
    assert rates == {name: expected[name] for name in found}


def test_without_an_offset_rate_offsets_are_decayed_like_the_rest():
    with torch.device("meta"):
        model = litevit.create_model("litv2_s")
    groups = param_groups(model, lr=1e-3, weight_decay=0.05)
    assert [g["name"] for g in groups] == ["decay", "no_decay"]
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))


def test_frozen_parameters_are_in_no_group():
    model = torch.nn.Linear(3, 2)
    model.weight.requires_grad_(False)
    assert [g["name"] for g in param_groups(model, lr=1.0, weight_decay=0.1)] == ["no_decay"]


STEPS = 1251  # per epoch: 1,281,167 images in batches of 1024


def rate(name, step, base=None, batch=1024):
    recipe = get_recipe(name)
    lr = scaled_lr(recipe.optim, batch)
    return learning_rate(
        recipe.schedule,
        lr if base is None else base,
        step=step,
        steps_per_epoch=STEPS,
        bound_scale=lr / recipe.optim.lr,
    )


def test_lit_ti_changes_per_epoch_and_one_epoch_late():
    assert rate("lit_ti", 0) == rate("lit_ti", STEPS - 1) == rate("lit_ti", STEPS) == 1e-6
    assert rate("lit_ti", 2 * STEPS) == pytest.approx(2.008e-4, rel=1e-4)
    assert rate("lit_ti", 6 * STEPS) == pytest.approx(9.993e-4, rel=1e-4)


def test_lit_ti_offsets_stay_at_1e_5_after_warm_up():
    assert rate("lit_ti", 0, base=1e-5) == 1e-6
    for epoch in (6, 50, 299):
        assert rate("lit_ti", epoch * STEPS, base=1e-5) == pytest.approx(1e-5, rel=1e-12)


def test_litv2_warm_up_per_step_then_a_cosine_that_is_not_shifted():
    assert rate("litv2_s", 0) == rate("litv2_s", 1) == 1e-6  # one step late
    assert rate("litv2_s", 2) > 1e-6
    assert rate("litv2_s", 20 * STEPS) == pytest.approx(1e-3, rel=1e-3)  # the last of warm-up
    assert rate("litv2_s", 20 * STEPS + 1) == pytest.approx(9.892e-4, rel=1e-4)
    assert rate("litv2_s", 300 * STEPS - 1) == pytest.approx(1e-5, rel=1e-6)


def test_litv2_bounds_follow_the_batch_and_lit_tis_do_not():
    assert rate("litv2_s", 0, batch=512) == 5e-7
    assert rate("lit_ti", 0, batch=512) == 1e-6


def test_the_cosine_is_timms():
    from timm.scheduler import CosineLRScheduler

    config = get_recipe("litv2_s").schedule
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    timms = CosineLRScheduler(
        optimizer,
        t_initial=300 * 10,
        lr_min=1e-5,
        warmup_lr_init=1e-6,
        warmup_t=20 * 10,
        cycle_limit=1,
        t_in_epochs=False,
    )
    for step in range(300 * 10):  # the official loop: step_update with the index of the step just finished
        ours = learning_rate(config, 1e-3, step=step, steps_per_epoch=10, bound_scale=2.0)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12), step
        timms.step_update(step)


def test_lvt_runs_310_epochs_the_last_ten_at_the_end_rate():
    schedule = get_recipe("lvt").schedule
    assert total_steps(schedule, STEPS) == 310 * STEPS
    assert rate("lvt", 0) == 1e-6
    assert rate("lvt", STEPS) == pytest.approx(1e-6 + (1.6e-3 - 1e-6) / 20)  # not late
    assert rate("lvt", 300 * STEPS) == rate("lvt", 309 * STEPS) == 1e-5
    assert rate("lvt", 299 * STEPS) > 1e-5


def test_poly_with_a_warm_up_from_a_share_of_the_rate():
    config = ScheduleConfig(kind="poly", steps=160_000, warmup_steps=1500, warmup_ratio=1e-6)
    at = lambda step: learning_rate(config, 6e-5, step=step, steps_per_epoch=100)  # noqa: E731
    assert at(0) == pytest.approx(6e-5 * 1e-6)
    assert at(750) == pytest.approx(6e-5 * (1 - 750 / 160_000) * (1 - 0.5 * (1 - 1e-6)))
    assert at(80_000) == pytest.approx(3e-5)
    assert at(160_000) == 0


def test_steps_at_milestones():
    config = ScheduleConfig(kind="step", epochs=12, milestones=(8, 11))
    rates = [learning_rate(config, 1.0, step=epoch * 5, steps_per_epoch=5) for epoch in range(12)]
    assert rates == pytest.approx([1.0] * 8 + [0.1] * 3 + [0.01])


def test_constant():
    assert learning_rate(ScheduleConfig(kind="constant"), 0.3, step=7, steps_per_epoch=2) == 0.3


def test_optimizers_take_the_recipes_numbers():
    groups = param_groups(torch.nn.Linear(2, 2), lr=0.1, weight_decay=0.01)
    adamw = create_optimizer(groups, OptimConfig(betas=(0.8, 0.9), eps=1e-6))
    assert isinstance(adamw, torch.optim.AdamW)
    assert (adamw.defaults["betas"], adamw.defaults["eps"]) == ((0.8, 0.9), 1e-6)
    sgd = create_optimizer(groups, OptimConfig(name="sgd", momentum=0.7))
    assert isinstance(sgd, torch.optim.SGD)
    assert sgd.defaults["momentum"] == 0.7
    assert math.isclose(scaled_lr(OptimConfig(lr=5e-4, lr_batch=512), 1024), 1e-3)
