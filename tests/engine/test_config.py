"""Recipes to JSON and back, checked; a field replaced by name."""

from dataclasses import replace

import pytest

from litevit.data.classification import Augment, ClassificationData
from litevit.data.dense import DetectionData, SegmentationData
from litevit.engine.config import (
    ModelConfig,
    OptimConfig,
    Recipe,
    RunConfig,
    check,
    from_dict,
    override,
    to_dict,
)

RECIPE = Recipe(name="x", task="classification", model=ModelConfig(name="litv2_s"), data=ClassificationData())
Kind = Recipe[ClassificationData]


def values(**changed):
    return {**to_dict(RECIPE), **changed}


def test_there_and_back():
    recipe = replace(
        RECIPE,
        optim=OptimConfig(lr=2e-3, betas=(0.8, 0.9), clip_grad=None),
        run=RunConfig(trackers=("tensorboard", "wandb"), max_steps=3),
        data=ClassificationData(augment=Augment(scale=(0.5, 1.0)), std=(1.0, 1.0, 1.0)),
    )
    assert from_dict(Kind, to_dict(recipe)) == recipe
    for data in (DetectionData(short_side=(640, 800)), SegmentationData()):
        recipe = replace(RECIPE, data=data)
        assert from_dict(Recipe[type(data)], to_dict(recipe)) == recipe


def test_what_is_not_given_has_its_default_and_whole_numbers_are_numbers():
    read = from_dict(Kind, {"name": "x", "task": "classification", "model": {"name": "lvt"}, "data": {"mixup": 0}}
                     | {"data": {"augment": {"mixup": 0, "scale": [1, 1]}}})  # fmt: skip
    assert read.data.augment == Augment(mixup=0.0, scale=(1.0, 1.0))
    assert isinstance(read.data.augment.mixup, float)
    assert read.optim == OptimConfig()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"optim": {"lrr": 1.0}}, r"^recipe\.optim\.lrr: no field 'lrr' in the recipe\.optim\. Did you mean 'lr'\?$"),
        ({"data": {"augment": {"mixip": 1}}}, r"recipe\.data\.augment\.mixip: no field .* Did you mean 'mixup'\?"),
        ({"zzz": 1}, r"recipe\.zzz: no field 'zzz' in the recipe\. It has: name, task, model"),
        ({"model": {}}, r"recipe\.model\.name is missing"),
        ({"optim": {"lr": "fast"}}, r"recipe\.optim\.lr must be a valid number, got 'fast'"),
        ({"optim": {"lr": "1e-3"}}, r"recipe\.optim\.lr must be a valid number, got '1e-3'"),
        ({"optim": {"lr": float("nan")}}, r"recipe\.optim\.lr must be a finite number, got nan"),
        ({"optim": {"betas": [1]}}, r"recipe\.optim\.betas"),
        ({"optim": {"betas": [0.9, 1.0]}}, r"recipe\.optim\.betas\.1 must be less than 1, got 1"),
        ({"optim": {"name": "adam"}}, r"recipe\.optim\.name must be 'adamw' or 'sgd', got 'adam'"),
        ({"optim": 3}, r"recipe\.optim must be an object with the fields name, lr, .*, got 3"),
        ({"run": {"batch_size": True}}, r"recipe\.run\.batch_size must be a valid integer, got True"),
        ({"run": {"batch_size": 1.5}}, r"recipe\.run\.batch_size must be a valid integer"),
        ({"run": {"compile": 1}}, r"recipe\.run\.compile must be a valid boolean, got 1"),
        ({"run": {"seed": -1, "workers": -1}}, r"run\.seed .*got -1; recipe\.run\.workers .*got -1$"),
        ({"model": {"name": "x", "overrides": [1]}}, r"recipe\.model\.overrides must be .*, got \[1\]"),
    ],
)
def test_wrong_recipes_say_where_and_what(changed, message):
    with pytest.raises(ValueError, match=message):
        from_dict(Kind, values(**changed))


def test_no_object_at_all():
    with pytest.raises(ValueError, match="recipe must be an object with the fields name, task"):
        from_dict(Kind, [1])


def test_one_field_is_replaced():
    recipe = replace(RECIPE, model=ModelConfig(name="litv2_s", overrides={"depths": (1, 1, 2, 1)}))
    assert override(recipe, "optim.lr", 1).optim.lr == 1.0
    assert override(recipe, "data.augment.scale", [0.5, 1]).data.augment.scale == (0.5, 1.0)
    changed = override(recipe, "model.overrides.alpha", 0.5)
    assert changed.model.overrides == {"depths": (1, 1, 2, 1), "alpha": 0.5}
    assert override(recipe, "run.seed", 3).model == recipe.model
    assert override(recipe.data, "hold_out", 0.1) == replace(recipe.data, hold_out=0.1)
    for path, value, message in [
        ("optim.lrr", 1, r"recipe\.optim\.lrr: no field.*Did you mean 'lr'"),
        ("optimm.lr", 1, r"recipe\.optimm: no field.*Did you mean 'optim'"),
        ("optim.lr.x", 1, r"optim\.lr\.x does not exist: lr is a value"),
        ("optim", 3, "optim is a group; give one of its fields: name, lr"),
        ("optim.lr", "fast", r"optim\.lr must be a valid number"),
    ]:
        with pytest.raises(ValueError, match=message):
            override(recipe, path, value)


@pytest.mark.parametrize(
    ("path", "wrong", "right"),
    [
        ("run.batch_size", 0, 1),
        ("run.log_every", 0, 1),
        ("run.eval_every", 0, 1),
        ("run.max_steps", -3, 1),
        ("run.workers", -1, 0),
        ("run.ema_decay", 1.0, 0.999),
        ("schedule.epochs", 0, 1),
        ("schedule.milestones", (0,), (1,)),
        ("optim.lr", 0.0, 1e-9),
        ("optim.lr", float("inf"), 1.0),
        ("optim.weight_decay", -0.1, 0.0),
        ("data.hold_out", 1.5, 0.5),
        ("data.hold_out", 1.0, 0.0),
        ("data.crop_pct", 0.0, 1.0),
        ("data.image_size", 0, 32),
        ("data.num_classes", -1, 0),
        ("data.std", (0.0, 1.0, 1.0), (0.1, 1.0, 1.0)),
        ("data.augment.label_smoothing", 1.0, 0.0),
        ("data.augment.scale", (0.0, 1.0), (0.1, 1.0)),
    ],
)
def test_ranges_hold_for_recipes_made_in_python_too(path, wrong, right):
    def changed(value):
        groups = path.split(".")
        parts = [RECIPE]
        for group in groups[:-1]:
            parts.append(getattr(parts[-1], group))
        for part, name in zip(reversed(parts), reversed(groups)):
            value = replace(part, **{name: value})
        return value

    check(changed(right))
    with pytest.raises(ValueError, match=rf"^{path}(\.0)? must be .*, got"):
        check(changed(wrong))
