"""Training batches and the evaluation of every task on the device without float64; figures are those of the CPU."""

import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils._pytree import tree_leaves

from litevit.data.config import ScenesConfig, ScenesData
from litevit.engine.config import ModelConfig, Recipe, override
from litevit.explain import merging_offsets, sampling_chain
from litevit.jobs.token_labeling import TokenLabelTask
from litevit.jobs.train import create_task
from litevit.metrics import classification
from litevit.recipes import get_recipe
from numerics.device import Autocast, Machine, OnDevice, as_tensor, put, put_model
from optimize.models import stirred

pytest.importorskip("faster_coco_eval", reason="COCO evaluation needs faster-coco-eval (the extra 'coco')")

TASKS = ("quickstart", "quickstart-detection", "quickstart-panoptic", "quickstart-segmentation")


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch, "autocast", Autocast)
    monkeypatch.setattr(torch, "as_tensor", as_tensor)
    monkeypatch.setattr(classification, "has_float64", lambda device: torch.device(device).type == "cpu")
    monkeypatch.setenv("LITEVIT_CACHE", str(tmp_path / "cache"))


def tiny(name: str) -> Recipe:
    recipe = override(override(get_recipe(name), "run.workers", 0), "run.device", "cpu")
    if name == "quickstart":
        return override(recipe, "data.augment.mixup", 0.8)
    scenes = ScenesData(train=4, val=2, look=ScenesConfig(height=64, width=64, radius=(0.15, 0.3), empty_rate=0.0))
    return replace(recipe, data=replace(recipe.data, scenes=scenes))


def test_the_device_has_no_float64() -> None:
    with Machine(), pytest.raises(TypeError, match="float64"):
        torch.zeros((), dtype=torch.float64, device="meta")


@pytest.mark.parametrize("name", TASKS)
def test_a_training_step_and_an_evaluation(name: str) -> None:
    torch.manual_seed(0)
    task = create_task(tiny(name))
    model = task.build_model()
    dataset = task.train_dataset()
    batch = put(task.collate([dataset[i] for i in range(4)]))
    assert any(isinstance(leaf, OnDevice) for leaf in tree_leaves(batch))
    alone = {"process_index": 0, "num_processes": 1, "reduce": lambda tensor, how: tensor}  # of accelerate
    here, there = (SimpleNamespace(device=torch.device(kind), **alone) for kind in ("cpu", "meta"))
    spare = copy.deepcopy(model).eval()
    expected = task.evaluate(spare, here)
    model = put_model(model)
    with Machine():
        losses = task.loss(model.train(), batch)
        sum(loss for key, loss in losses.items() if not key.startswith("metric/")).backward()
        assert all(p.grad is not None for p in model.parameters())
    spare = put_model(spare)
    with Machine(), torch.no_grad():
        found = task.evaluate(spare, there)
    assert found == pytest.approx(expected, rel=1e-3, nan_ok=True)


def test_token_labelling() -> None:
    recipe = get_recipe("quickstart")
    recipe = replace(recipe, model=ModelConfig(name="lvt"), data=replace(recipe.data, image_size=64))
    task = TokenLabelTask(override(override(recipe, "data.augment.mixup", 0.0), "data.augment.cutmix", 0.0))
    model = put_model(stirred("lvt").train())
    with Machine():
        losses = task.loss(model, put((torch.randn(2, 3, 64, 64), torch.tensor([1, 2]))))
        assert isinstance(losses["loss_tokens"], OnDevice)
        (losses["loss_cls"] + losses["loss_tokens"]).backward()


def test_where_merging_looks() -> None:
    model = put_model(stirred("litv2_s").eval().backbone)
    with Machine(), torch.no_grad():
        offsets = merging_offsets(model, put(torch.randn(1, 3, 64, 64)))
        assert sampling_chain(offsets, row=1, column=1).shape[1] == 2
