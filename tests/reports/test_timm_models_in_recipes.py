"""The recipes of timm's models (`cifar10_swin`) were refused as unknown models, and their runs could not predict."""

import json

from annotated_sets import official
from litevit.recipes import get_recipe


def test_the_peers_of_cifar10(litevit, photos):
    for name in ("cifar10_swin", "cifar10_convnext"):
        code, out, _ = litevit("train", name, "--data", photos, "--data.num-classes", 3, "--show-recipe")
        assert code == 0
        assert json.loads(out)["model"]["overrides"] == json.loads(json.dumps(get_recipe(name).model.overrides))


def test_a_run_of_a_timm_model_predicts_and_evaluates(litevit, photos, tmp_path):
    options = ("--data.image-size", 160, "--run.batch-size", 4, "--run.max-steps", 1, "--run.workers", 0)
    options += ("--model.name", "timm/test_vit", "--model.weights", "None", "--run.dir", tmp_path / "run")
    code, _, said = litevit("train", "finetune", "--data", photos, *options)
    assert code == 0, said
    code, out, said = litevit("eval", "--run", tmp_path / "run", "--json", "--workers", 0)
    assert json.loads(out)["images"] == 6, said
    picture = photos / "val" / "bee" / "val0.png"
    code, out, said = litevit("predict", picture, "--weights", tmp_path / "run", "--json")
    assert code == 0, said
    assert {guess["name"] for guess in json.loads(out)[0]["guesses"]} == {"bee", "cow", "dog"}


def test_timms_backbones_learn_at_one_rate_by_themselves(tmp_path, litevit):
    """`--optim.layer_decay None` had to be given by hand."""
    command = ("train", "finetune-detection", "--data", official(tmp_path / "data"), "--model.name", "retinanet")
    code, out, said = litevit(*command, "--model.overrides.backbone", "resnet18", "--show-recipe")
    assert (code, json.loads(out)["optim"]["layer_decay"]) == (0, None), said
    code, out, _ = litevit(*command, "--model.overrides.backbone", "lit_ti", "--show-recipe")
    assert (code, json.loads(out)["optim"]["layer_decay"]) == (0, 0.9)
    options = ("--model.weights", "none", "--run.dir", tmp_path / "run", "--run.device", "cpu", "--run.workers", 0)
    options += (
        "--run.max_steps",
        1,
        "--run.batch_size",
        2,
        "--model.overrides.channels",
        16,
        "--model.overrides.resize",
        False,
        "--data.resize",
        False,
    )
    code, _, said = litevit(*command, "--model.overrides.backbone", "resnet18", *options)
    assert code == 0, said
    assert "optim.layer_decay 0.9 is left out: the layers of timm's backbones are not known" in said
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["optim"]["layer_decay"] is None
