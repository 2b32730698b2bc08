"""Frozen stages and rates by depth."""

import pytest
import torch
from torch import nn

import litevit
from litevit.engine.config import ScheduleConfig
from litevit.engine.optim import param_groups
from litevit.engine.schedule import epochs_for, total_steps
from litevit.engine.stages import decay_by_layer, freeze_stages, stage_of

SMALL = {"embed_dim": 8, "depths": (1, 1, 2, 1), "num_heads": (1, 1, 2, 2)}


def small(name: str = "litv2_s", **options) -> nn.Module:
    return litevit.create_model(name, num_classes=3, **SMALL, **options)


def learns(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_frozen_stages_neither_learn_nor_count() -> None:
    model = small()
    frozen, line = freeze_stages(model, 2)
    first = ("backbone.embeds.0.", "backbone.embeds.1.", "backbone.stages.0.", "backbone.stages.1.")
    assert learns(model) == {name for name, _ in model.named_parameters() if not name.startswith(first)}
    counted = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert f"{counted:,} of" in line
    grouped = {id(p) for group in param_groups(model, lr=1.0, weight_decay=0.0) for p in group["params"]}
    assert grouped == {id(p) for p in model.parameters() if p.requires_grad}
    norms = [m for m in frozen if isinstance(m, nn.BatchNorm2d)]
    assert norms  # deformable merging's, whose statistics would move


@pytest.mark.parametrize("name", ["lit_ti", "litv2_s", "lvt", "pvt_s", "swin_ti"])
def test_all_stages_leave_the_head_alone(name: str) -> None:
    with torch.device("meta"):
        model = litevit.create_model(name)
    freeze_stages(model, 4)
    assert {key.partition(".")[0] for key in learns(model)} <= {"head", "aux_head"}
    assert "head.weight" in learns(model)


def test_a_detector_keeps_its_pyramid_and_input_norms() -> None:
    model = small("retinanet_litv2_s", channels=16)
    freeze_stages(model, 4)
    found = learns(model)
    assert any(name.startswith("backbone.out_norms.") for name in found)
    assert not any(name.startswith("backbone.") and "out_norms" not in name for name in found)
    assert stage_of("fpn.pyramid.inner_blocks.0.0.weight", 4) is None


def test_more_stages_than_there_are() -> None:
    with pytest.raises(ValueError, match=r"optim\.freeze is 5, but the model has 4 stages: give 0 to 4"):
        freeze_stages(small(), 5)
    with pytest.raises(ValueError, match=r"optim\.freeze 1 needs a model with a backbone of ours"):
        freeze_stages(nn.Linear(2, 2), 1)


def test_rates_fall_towards_the_image_as_timm_has_it() -> None:
    model = small()
    groups = decay_by_layer(model, param_groups(model, lr=1.0, weight_decay=0.1, offset_lr=0.1), 0.5)
    scales = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    found = {name: scales[id(p)] for name, p in model.named_parameters()}
    assert len(found) == len(scales)
    for part, layer in {
        "backbone.embeds.0.": 0, "backbone.stages.0.blocks.0.": 1, "backbone.embeds.1.": 2,
        "backbone.stages.1.blocks.0.": 2, "backbone.stages.2.blocks.1.": 4, "backbone.stages.3.blocks.0.": 5,
        "norm.": 6, "head.": 6,
    }.items():  # fmt: skip
        values = {value for name, value in found.items() if name.startswith(part)}
        assert values == {0.5 ** (6 - layer)}, part
    assert {group["lr"] for group in groups if group["name"].startswith("offset")} == {0.1}
    assert all(group["weight_decay"] == 0 for group in groups if group["name"].startswith("no_decay"))


def test_epochs_follow_from_the_images() -> None:
    assert [epochs_for(n) for n in (1, 100, 101, 500, 833, 834, 100_000)] == [100, 100, 100, 20, 13, 12, 12]
    with pytest.raises(ValueError, match="follows from the number of training images"):
        total_steps(ScheduleConfig(epochs=None), 3)
