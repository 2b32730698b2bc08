"""Every number of the published recipes, and two steps of each on toy data."""

import ast
import inspect
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console

import litevit
from litevit.engine.config import override, to_dict
from litevit.jobs.recipe_files import load_recipe, recipe_from_dict
from litevit.jobs.train import create_task, train
from litevit.recipes import RECIPES, get_recipe, imagenet1k

# What differs between the rows. Everything else is in `test_...common`.
TI = {
    "augment.repeats": 3, "optim.clip_grad": None, "schedule.per": "epoch", "schedule.warmup_epochs": 5,
    "schedule.warmup_lr": 1e-6, "schedule.min_lr": 1e-5, "schedule.scale_bounds": False,
}  # fmt: skip
SMB = {
    "augment.repeats": 1, "optim.clip_grad": 5.0, "schedule.per": "step", "schedule.warmup_epochs": 20,
    "schedule.warmup_lr": 5e-7, "schedule.min_lr": 5e-6, "schedule.scale_bounds": True,
}  # fmt: skip
TI_ROWS = {
    "lit_ti": 0.1, "lit_ti_uniform": 0.1, "pvt_s": 0.1, "pvt_s_dtm": 0.1, "pvt_s_msa": 0.1, "pvt_s_msa_remove_1": 0.1,
    "pvt_s_msa_remove_12": 0.1, "pvt_s_msa_remove_123": 0.1, "pvt_s_msa_remove_1234": 0.1,
}  # fmt: skip
SMB_ROWS = {
    "lit_s": 0.2, "lit_m": 0.3, "lit_b": 0.5, "lit_s_uniform": 0.2, "swin_ti": 0.2, "swin_ti_dtm": 0.2,
    "litv2_s": 0.2, "litv2_m": 0.3, "litv2_b": 0.5,
    **{f"litv2_s_alpha_{a}": 0.2 for a in ("00", "02", "04", "05", "07", "09", "10")},
}  # fmt: skip


def read(recipe, path):
    value = recipe.data if path.startswith("augment") else recipe
    for name in path.split("."):
        value = getattr(value, name)
    return value


@pytest.mark.parametrize(("name", "drop_path"), {**TI_ROWS, **SMB_ROWS}.items())
def test_numbers_of_lit_and_litv2(name, drop_path):
    recipe = get_recipe(name)
    assert (recipe.name, recipe.task, recipe.model.name) == (name, "classification", name)
    assert recipe.model.overrides == {"drop_path_rate": drop_path}
    for path, value in (TI if name in TI_ROWS else SMB).items():
        assert read(recipe, path) == value, path
    optim, schedule, augment, data = recipe.optim, recipe.schedule, recipe.data.augment, recipe.data
    assert (optim.name, optim.lr, optim.lr_batch, optim.weight_decay) == ("adamw", 5e-4, 512, 0.05)
    assert (optim.betas, optim.eps, optim.offset_lr_ratio) == ((0.9, 0.999), 1e-8, 0.01)
    assert (schedule.kind, schedule.epochs, schedule.late, schedule.cooldown_epochs) == ("cosine", 300, True, 0)
    assert (augment.label_smoothing, augment.mixup, augment.cutmix) == (0.1, 0.8, 1.0)
    assert (augment.mix_prob, augment.switch_prob) == (1.0, 0.5)
    assert (augment.auto_augment, augment.color_jitter) == ("rand-m9-mstd0.5-inc1", 0.4)
    assert (augment.erase_prob, augment.erase_mode, augment.erase_count) == (0.25, "pixel", 1)
    assert (augment.crop, augment.scale, augment.ratio) == ("resized", (0.08, 1.0), (3 / 4, 4 / 3))
    assert (augment.hflip, augment.interpolation) == (0.5, "bicubic")
    assert (data.image_size, data.crop_pct, data.num_classes) == (224, 0.875, 1000)
    assert (data.mean, data.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (recipe.run.batch_size, recipe.run.seed, recipe.run.ema_decay) == (1024, 0, None)
    assert recipe.run.grad_checkpointing == (name == "lit_b")


def test_numbers_of_the_384_fine_tuning():
    recipe, base = get_recipe("litv2_b_384"), get_recipe("litv2_b")
    assert (recipe.optim.lr, recipe.optim.lr_batch, recipe.optim.weight_decay) == (2e-5, 512, 1e-8)
    assert (recipe.schedule.epochs, recipe.schedule.warmup_epochs) == (30, 5)
    assert (recipe.schedule.warmup_lr, recipe.schedule.min_lr, recipe.schedule.scale_bounds) == (2e-8, 2e-7, True)
    assert (recipe.data.image_size, recipe.data.crop_pct) == (384, 1.0)
    assert (recipe.model.name, recipe.model.weights) == ("litv2_b", "official")  # starts from the weights at 224
    assert recipe.model.overrides == {"drop_path_rate": 0.5}
    assert (recipe.optim.clip_grad, recipe.data.augment) == (5.0, base.data.augment)


def test_numbers_of_lvt():
    recipe = get_recipe("lvt")
    optim, schedule, augment = recipe.optim, recipe.schedule, recipe.data.augment
    assert (recipe.task, recipe.model.name, recipe.model.overrides) == (
        "token_labeling",
        "lvt",
        {},
    )  # drop path is dead
    assert (optim.lr, optim.lr_batch, optim.weight_decay, optim.clip_grad) == (1.6e-3, None, 0.05, None)
    assert (optim.betas, optim.eps, optim.offset_lr_ratio) == ((0.9, 0.999), 1e-8, None)
    assert (schedule.kind, schedule.per, schedule.late) == ("cosine", "epoch", False)
    assert (schedule.epochs, schedule.warmup_epochs, schedule.cooldown_epochs) == (300, 20, 10)
    assert (schedule.warmup_lr, schedule.min_lr) == (1e-6, 1e-5)
    assert (augment.mixup, augment.cutmix, augment.label_smoothing, augment.repeats) == (0, 0, 0.1, 1)
    assert (augment.erase_prob, augment.erase_mode, augment.erase_count) == (0.25, "pixel", 1)
    assert (augment.auto_augment, augment.interpolation) == ("rand-m9-mstd0.5-inc1", "random")
    assert (augment.scale, augment.ratio, augment.hflip) == ((0.08, 1.0), (3 / 4, 4 / 3), 0.5)
    assert recipe.data.crop_pct == 0.96
    assert recipe.data.image_size == 224
    assert (recipe.run.batch_size, recipe.run.seed, recipe.run.ema_decay) == (1024, 42, None)


def test_every_published_classification_model_has_a_recipe():
    plain = {"lvt_plain"}  # no published accuracy
    assert set(litevit.list_models(task="classification")) - plain <= set(RECIPES)


def test_published_accuracy_in_each_docstring():
    from litevit.checkpoints.published import WEIGHTS

    for name, weights in WEIGHTS.items():
        top1 = weights.published.get("top1")
        if name in RECIPES and top1 is not None:
            assert str(top1) in (RECIPES[name].__doc__ or ""), name


def test_one_documented_function_per_row():
    tree = ast.parse(inspect.getsource(imagenet1k))
    for function in tree.body:
        if isinstance(function, ast.FunctionDef) and not function.name.startswith("_"):
            assert "Published top-1" in (ast.get_docstring(function) or ""), function.name
            assert RECIPES[function.name] is getattr(imagenet1k, function.name)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_survive_json(name, tmp_path):
    recipe = get_recipe(name)
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(to_dict(recipe)))
    assert to_dict(load_recipe(file)) == to_dict(recipe)
    assert type(load_recipe(file).data) is type(recipe.data)


@pytest.fixture(scope="module")
def toy_images(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("toy")
    generator = torch.Generator().manual_seed(0)
    for split in ("train", "val", "test"):
        for label in ("cat", "dog"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(2):
                pixels = torch.randint(0, 256, (48, 40, 3), generator=generator, dtype=torch.uint8)
                Image.fromarray(pixels.numpy()).save(folder / f"{i}.png")
    return root


def shrunk(name: str) -> dict:
    """Overrides that keep the model's parts and make it small."""
    if name in ("swin_ti", "swin_ti_dtm", "quickstart", "cifar10", "cifar10_smoke", "finetune") or "litv2" in name:
        return {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 4)}
    if name == "cifar10_swin":
        return {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 4)}
    if name == "cifar10_convnext":
        return {"dims": (8, 8, 8, 8), "depths": (1, 1, 1, 1)}
    if "lvt" in name:
        return {"depths": (1, 1, 1, 1)}
    return {"embed_dims": (8, 16, 16, 32), "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 4)}


# One of every kind by default; the rest differ from them in numbers that the tests above hold.
QUICK = {"lit_ti", "lit_s", "litv2_s", "lvt", "finetune", "cifar10", "swin_ti_dtm"}


# The dense recipes have tests of their own.
OURS = [name for name in RECIPES if get_recipe(name).task in ("classification", "token_labeling")]


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in OURS])
def test_each_recipe_runs_two_steps(name, toy_images, tmp_path):
    recipe = get_recipe(name)
    if "lit" in name and not name.startswith("cifar10"):
        recipe = override(recipe, "data.image_size", 64)
    for field, value in shrunk(name).items():
        recipe = override(recipe, f"model.overrides.{field}", value)
    changes = {
        "model.weights": None,
        "data.path": str(toy_images),
        "data.num_classes": 2,
        "data.hold_out": 0.0,
        "schedule.epochs": max(recipe.schedule.epochs, 2),  # one step each
        "run.batch_size": 4,
        "run.max_steps": 2,
        "run.workers": 0,
        "run.log_every": 1,
        "run.device": "cpu",
        "run.dir": str(tmp_path / "run"),
    }
    for path, value in changes.items():
        recipe = override(recipe, path, value)
    if name == "lit_b":
        recipe = override(recipe, "run.precision", "fp32")
    result = train(recipe, console=Console(quiet=True))
    rows = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    assert result.step == 2
    assert len(losses) == 2
    assert all(0 < loss < 20 for loss in losses)
    assert 0 <= result.best["top1"] <= 100
    assert result.best["images"] == 4
    assert (result.folder / "best.safetensors").exists()


def test_unknown_names_say_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'litv2_s'"):
        get_recipe("litv2s")
    with pytest.raises(ValueError, match=r"no field 'lrr'.*Did you mean 'lr'"):
        override(get_recipe("litv2_s"), "optim.lrr", 1)
    with pytest.raises(ValueError, match=r"recipe\.optim\.lrr"):
        recipe_from_dict({**to_dict(get_recipe("litv2_s")), "optim": {"lrr": 1.0}})


def test_finetune_counts_the_classes(toy_images):
    from litevit.jobs.train import resolve

    recipe = resolve(override(get_recipe("finetune"), "data.path", str(toy_images)))
    assert recipe.data.num_classes == 2
    assert create_task(recipe).train_dataset().classes == ("cat", "dog")
