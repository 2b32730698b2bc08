"""A run's folder opened once: litevit.run, litevit.preprocessing, create_model(weights=RUN)."""

import json

import pytest
import torch
from PIL import Image

import litevit
from litevit.checkpoints.files import write_state_dict
from litevit.engine.config import to_dict
from litevit.recipes import get_recipe

SMALL = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}


@pytest.fixture
def folder(tmp_path):
    saved = to_dict(get_recipe("quickstart")) | {"model": {"name": "litv2_s", "weights": None, "overrides": SMALL}}
    saved["data"] |= {"num_classes": 3, "image_size": 64, "crop_pct": 1.0}
    torch.manual_seed(0)
    model = litevit.create_model("litv2_s", num_classes=3, **SMALL)
    header = {"recipe": json.dumps(saved), "classes": '["cat", "dog", "fox"]', "step": "7", "metrics": '{"top1": 50.0}'}
    write_state_dict(model.state_dict(), tmp_path / "best.safetensors", metadata=header)
    return tmp_path


def test_a_run(folder):
    for path in (folder, folder / "best.safetensors"):
        run = litevit.run(path)
        assert (run.model_name, run.task, run.classes) == ("litv2_s", "classification", ("cat", "dog", "fox"))
        assert run.metrics == {"step": 7, "top1": 50.0}
        assert run.recipe.data.image_size == 64
        images = torch.randn(1, 3, 64, 64)
        made = litevit.create_model("litv2_s", weights=path).eval()  # with the run's classes and options
        assert torch.equal(run.model()(images), made(images))


def test_the_backbone_of_a_run_may_be_said_again(tmp_path):
    """It was an error: "multiple values for keyword argument 'backbone'"."""
    saved = to_dict(get_recipe("quickstart-detection"))
    saved["model"]["overrides"] = {"backbone": "litv2_s", **SMALL, "channels": 16, "box_hidden": 16}
    torch.manual_seed(0)
    model = litevit.create_model("mask_rcnn", **saved["model"]["overrides"], num_classes=2)
    write_state_dict(model.state_dict(), tmp_path / "best.safetensors", metadata={"recipe": json.dumps(saved)})
    again = litevit.create_model("mask_rcnn", weights=tmp_path, backbone="litv2_s")
    assert again.config.num_classes == 2
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values()))


def test_preprocessing_is_callable(folder, tmp_path):
    image = Image.new("RGB", (90, 70), "red")
    image.save(tmp_path / "a.png")
    for source, size in ((folder, 64), (litevit.run(folder), 64), ("litv2_s", 224), ("litv2_b_384", 384)):
        how = litevit.preprocessing(source)
        assert how(image).shape == (3, size, size)
        assert torch.equal(how(image), how(tmp_path / "a.png"))
    dense = litevit.preprocessing("mask_rcnn_litv2_s")(image)
    assert dense.shape == (3, 70, 90)
    assert dense.max() == 1


def test_wrong_runs(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no best\.safetensors"):
        litevit.run(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        litevit.run(tmp_path / "gone")
    write_state_dict({"a": torch.ones(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(ValueError, match="was not written by a training run"):
        litevit.run(tmp_path / "plain.safetensors")
    with pytest.raises(ValueError, match="Did you mean 'litv2_s'"):
        litevit.preprocessing("litv2_sx")


def test_what_a_notebook_shows_is_a_line(folder):
    assert repr(litevit.run(folder)) == f"Run({str(folder)!r}: litv2_s, classification)"
    model = litevit.create_model("litv2_s", num_classes=3, **SMALL)
    report = litevit.load_weights(model, folder / "best.safetensors")
    assert repr(report) == f"LoadReport(starting from {folder / 'best.safetensors'}: {len(report.used)} tensors loaded)"
