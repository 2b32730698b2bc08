"""What ran for hours without a chance: more objects than detections, one pixel to normalise, a loss of 0, NaN."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import annotated_sets as sets
from litevit.engine.config import override
from litevit.engine.train import fit
from litevit.jobs.train import create_task
from litevit.recipes import get_recipe

pytest.importorskip("accelerate", reason="training needs accelerate")

SMALL = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}


def small(name: str, root, folder, **changes):
    recipe = get_recipe(name)
    overrides = recipe.model.overrides | SMALL
    values = {"model.overrides": overrides, "data.path": str(root), "run.dir": str(folder), "run.device": "cpu"}
    for field, value in (values | {"run.max_steps": 1, "run.batch_size": 2} | changes).items():
        recipe = override(recipe, field, value)
    return recipe


def test_300_objects_and_100_detections(tmp_path) -> None:
    pytest.importorskip("faster_coco_eval", reason="COCO masks need faster-coco-eval (the extra 'coco')")
    sets.official(tmp_path / "set")
    file = tmp_path / "set" / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    one = content["annotations"][0]
    content["annotations"] += [one | {"id": 100 + k, "bbox": [k % 50, k % 30, 9, 9]} for k in range(299)]
    file.write_text(json.dumps(content))
    task = create_task(small("quickstart-detection", tmp_path / "set", tmp_path / "run"))
    task.build_model()
    task.build_model()
    assert task.notes == [
        "an image has 300 objects and the model gives at most 100 per image (--model.overrides.max_detections 300); "
        "COCO's AP counts the best 100"
    ]


class Learns(nn.Module):
    def __init__(self, loss):
        super().__init__()
        self.weight, self.loss = nn.Parameter(torch.ones(1)), loss

    def forward(self, *_):
        return {"loss_seg": self.loss(self.weight)}

    def segment(self, image):
        return torch.zeros(image.shape[-2:], dtype=torch.int64)


def run(tmp_path, loss, capsys, **changes) -> str:
    """Trains a segmenter with another loss; returns what was said."""
    recipe = small("quickstart-segmentation", tmp_path / "set", tmp_path / "run", **changes)
    task = create_task(recipe)
    task.build_model = lambda: Learns(loss)
    task.param_groups = lambda model, optim, lr: [{"params": list(model.parameters()), "lr": lr}]
    task.report = lambda *_: None
    fit(recipe, task)
    said = capsys.readouterr()
    return said.out + said.err


def test_a_loss_of_0_from_the_first_step(tmp_path, capsys) -> None:
    sets.masks(tmp_path / "set")
    words = "the loss is 0 from the first step: these data teach nothing"
    assert words in run(tmp_path, lambda weight: 0 * weight.sum(), capsys)


def test_a_loss_that_is_not_0(tmp_path, capsys) -> None:
    sets.masks(tmp_path / "set")
    assert "the loss is 0" not in run(tmp_path, lambda weight: weight.sum(), capsys, **{"run.max_steps": 2})


def test_a_single_value_to_normalise(tmp_path, capsys) -> None:
    sets.masks(tmp_path / "set")
    norm = nn.BatchNorm2d(1)
    with pytest.raises(ValueError, match=r"a single value per channel: one image of 32 pixels .* --run\.batch_size 2"):
        run(tmp_path, lambda weight: norm(weight.view(1, 1, 1, 1)).sum(), capsys)


def test_nan_is_said_and_never_written(tmp_path, capsys) -> None:
    """Whatever a task evaluates to: the run's files stay JSON."""
    sets.masks(tmp_path / "set")
    recipe = small("quickstart-segmentation", tmp_path / "set", tmp_path / "run")
    task = create_task(recipe)
    task.build_model = lambda: Learns(lambda weight: weight.sum())
    task.param_groups = lambda model, optim, lr: [{"params": list(model.parameters()), "lr": lr}]
    task.report = lambda *_: None
    task.evaluate = lambda *_: {"miou": float("nan")}
    fit(recipe, task)
    said = capsys.readouterr()
    assert "warning: miou is not a number: nothing in the evaluation data could be counted" in said.out + said.err
    text = (tmp_path / "run" / "result.json").read_text()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name))["miou"] is None
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(name))


def test_evaluation_masks_without_a_label_stop_before_training(tmp_path) -> None:
    sets.masks(tmp_path / "set")
    sets.write_masks(tmp_path / "set" / "masks" / "val", sets.VAL, change=lambda values: np.full_like(values, 255))
    with pytest.raises(ValueError, match="have no labelled pixel"):
        create_task(small("quickstart-segmentation", tmp_path / "set", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "write"), [("quickstart-segmentation", sets.masks), ("quickstart-detection", sets.cvat)]
)
def test_a_broken_evaluation_picture_stops_before_training(name, write, tmp_path) -> None:
    """It cost an epoch: the first evaluation fell over it."""
    write(tmp_path / "set")
    picture = tmp_path / "set" / "images" / "val" / "7.png"
    picture.write_bytes(picture.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"7\.png"):
        create_task(small(name, tmp_path / "set", tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    sets.write_pictures(picture.parent, sets.VAL)
    task = create_task(small(name, tmp_path / "set", tmp_path / "run"))
    assert "all 2 evaluation images can be read" in task.parts[-1].note
