"""Fine-tuning of every task: what is loaded, what is fresh, what is frozen, and what is said of it."""

import io
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file

from litevit import cli
from litevit.data.scenes import ScenesConfig, write_ade, write_coco
from litevit.engine.config import Recipe, override
from litevit.jobs.train import train
from litevit.models import create_model
from litevit.recipes import get_recipe

pytest.importorskip("faster_coco_eval", reason="COCO evaluation needs faster-coco-eval (the extra 'coco')")
pytest.importorskip("accelerate", reason="training needs accelerate (the extra 'train')")

LITV2 = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "alpha": 0.5}
LVT = {"embed_dims": [8, 16, 24, 32], "num_heads": [1, 1, 1, 1], "depths": [1, 1, 1, 1], "mlp_ratios": [2, 2, 2, 2]}
BOXES = {"channels": 16, "resize": False}
REGIONS = {"box_hidden": 32, "pre_nms_train": 50, "pre_nms_test": 20, "max_proposals": 10, "rpn_samples": 16}
SMALL: dict[str, dict] = {
    "finetune-detection": {**LITV2, **BOXES},
    "finetune-instances": {**LITV2, **BOXES, **REGIONS},
    "finetune-panoptic": {**LVT, **BOXES, **REGIONS, "semantic_channels": 12},
    "finetune-segmentation": {**LITV2, "fpn_channels": 16, "head_channels": 16},
}
# A tensor of the classes, and one of the head that is none.
HEADS = {
    "finetune-detection": ("head.cls_logits.weight", "head.deltas.weight"),
    "finetune-instances": ("roi_heads.box_head.deltas.weight", "rpn.conv.weight"),
    "finetune-panoptic": ("semantic_head.classifier.weight", "rpn.conv.weight"),
    "finetune-segmentation": ("head.classifier.weight", "head.branches.0.0.0.weight"),
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> dict[str, Path]:
    """Scenes of 64 x 64 as COCO and as masks."""
    root = tmp_path_factory.mktemp("scenes")
    look = ScenesConfig(height=64, width=64, radius=(0.15, 0.3), empty_rate=0.0)
    write_coco(root / "coco", train=8, val=2, config=look, seed=0)
    write_ade(root / "ade", train=8, val=2, config=look, seed=0)
    return {"coco": root / "coco", "ade": root / "ade"}


def tiny(name: str, scenes: dict[str, Path], folder: Path, **fields: object) -> Recipe:
    masks = name == "finetune-segmentation"
    values = {"data.path": str(scenes["ade" if masks else "coco"]), "model.overrides": SMALL[name]} | {
        "run.max_steps": 1, "run.workers": 0, "run.device": "cpu", "run.dir": str(folder),
    }  # fmt: skip
    values |= {"data.crop": 64, "data.short_side": 64} if masks else {"data.resize": False}
    recipe = get_recipe(name)
    for path, value in (values | fields).items():
        recipe = override(recipe, path, value)
    return recipe


def said(recipe: Recipe) -> str:
    console = Console(record=True, width=1000, file=io.StringIO())
    train(recipe, console=console)
    return console.export_text()


def other_classes(name: str) -> torch.nn.Module:
    """The recipe's model for classes of other numbers than the scenes'."""
    model = get_recipe(name).model.name
    sizes = {"num_things": 9, "num_stuff": 9} if name == "finetune-panoptic" else {"num_classes": 11}
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in SMALL[name].items()}
    return create_model(model, **sizes, **options)


@pytest.mark.parametrize("name", SMALL)
def test_heads_of_other_classes_are_dropped_and_said(name: str, scenes, tmp_path) -> None:
    source = other_classes(name)
    torch.save(source.state_dict(), tmp_path / "start.pth")
    # A rate of next to nothing: what was loaded is still there after the step.
    fields = {"model.weights": str(tmp_path / "start.pth"), "optim.lr": 1e-12, "schedule.min_lr": 0.0}
    text = said(tiny(name, scenes, tmp_path / "run", **fields, **{"optim.freeze": 2}))
    classes, shared = HEADS[name]
    (line,) = [line for line in text.splitlines() if line.startswith("starting from ")]
    assert "left out" in line
    assert "100 epochs of 8 images" in text
    assert "stages 1 to 2 are frozen" in text
    got, there = load_file(tmp_path / "run" / "best.safetensors"), source.state_dict()
    assert got[classes].shape != there[classes].shape
    assert torch.allclose(got[shared], there[shared], atol=1e-6)
    frozen = [
        key for key in there if key.startswith(("backbone.stages.0.", "backbone.stages.1.", "backbone.embeds.1."))
    ]
    assert frozen
    assert all(torch.equal(got[key], there[key]) for key in frozen)  # buffers of BatchNorm too
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["schedule"]["epochs"] == 100


def test_what_differs_beside_the_classes_is_refused(scenes, tmp_path) -> None:
    torch.save(other_classes("finetune-instances").state_dict(), tmp_path / "start.pth")
    recipe = tiny("finetune-instances", scenes, tmp_path / "run", **{"model.weights": str(tmp_path / "start.pth")})
    with pytest.raises(ValueError, match=r"box_head\.fc"):
        train(override(recipe, "model.overrides.box_hidden", 16), console=Console(quiet=True))
    assert not (tmp_path / "run").exists()


def test_a_run_starts_from_a_run_with_its_options(scenes, tmp_path) -> None:
    first = tiny("finetune-detection", scenes, tmp_path / "first", **{"model.weights": None})
    train(first, console=Console(quiet=True))
    again = tiny("finetune-detection", scenes, tmp_path / "again", **{"model.weights": str(tmp_path / "first")})
    text = said(override(again, "model.overrides", {}))
    (line,) = [line for line in text.splitlines() if line.startswith("starting from ")]
    assert "left out" not in line  # the same classes
    saved = json.loads((tmp_path / "again" / "recipe.json").read_text())["model"]["overrides"]
    assert saved["embed_dim"] == 8


def test_a_segmenter_takes_the_backbone_of_a_classifiers_run(scenes, tmp_path) -> None:
    rng = np.random.default_rng(0)
    for split, name in itertools.product(("train", "val"), ("bee", "cow")):
        (tmp_path / "photos" / split / name).mkdir(parents=True)
        for i in range(2):
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / split / name / f"{i}.png")
    recipe = get_recipe("finetune")
    for path, value in {
        "model.weights": None, "model.overrides": LITV2, "data.path": str(tmp_path / "photos"), "data.image_size": 32,
        "run.batch_size": 4, "run.max_steps": 1, "run.workers": 0, "run.device": "cpu",
        "run.dir": str(tmp_path / "cls"), "optim.freeze": 4,
    }.items():  # fmt: skip
        recipe = override(recipe, path, value)
    probe = said(recipe)
    assert "stages 1 to 4 are frozen, embeddings and statistics included: 130 of" in probe  # 64 x 2 and 2
    start = tiny("finetune-segmentation", scenes, tmp_path / "run", **{"model.weights": str(tmp_path / "cls")})
    fields = {"fpn_channels": 16, "head_channels": 16}
    start = override(start, "model.overrides", fields)
    text = said(override(start, "optim.freeze", 1))
    assert "fresh: " in text
    key = "backbone.embeds.0.proj.weight"
    runs = [load_file(tmp_path / run / "best.safetensors") for run in ("cls", "run")]
    assert torch.equal(runs[0][key], runs[1][key])


def test_a_detector_takes_the_backbone_of_a_classifier(scenes, tmp_path) -> None:
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in LITV2.items()}
    classifier = create_model("litv2_s", num_classes=5, **options)
    torch.save(classifier.state_dict(), tmp_path / "start.pth")
    fields = {"model.weights": str(tmp_path / "start.pth"), "optim.freeze": 1}
    text = said(tiny("finetune-detection", scenes, tmp_path / "run", **fields))
    assert "head.weight" in text
    assert "fresh: " in text
    key = "backbone.embeds.0.proj.weight"
    assert torch.equal(load_file(tmp_path / "run" / "best.safetensors")[key], classifier.state_dict()[key])


def test_more_stages_than_there_are_is_one_line(scenes, tmp_path, capsys) -> None:
    command = ["train", "quickstart-detection", "--data", str(scenes["coco"]), "--optim.freeze", "5"]
    assert cli.main([*command, "--run.device", "cpu", "--run.dir", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "optim.freeze is 5, but the model has 4 stages: give 0 to 4" in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_layers_far_from_the_head_hardly_move(scenes, tmp_path) -> None:
    source = other_classes("finetune-segmentation")
    torch.save(source.state_dict(), tmp_path / "start.pth")
    fields = {"model.weights": str(tmp_path / "start.pth"), "optim.layer_decay": 1e-4, "optim.lr": 1e-2}
    train(tiny("finetune-segmentation", scenes, tmp_path / "run", **fields), console=Console(quiet=True))
    got, there = load_file(tmp_path / "run" / "best.safetensors"), source.state_dict()
    first, last = "backbone.embeds.0.proj.weight", "head.branches.0.0.0.weight"
    assert torch.allclose(got[first], there[first], atol=1e-8)
    assert (got[last] - there[last]).abs().max() > 5e-5
