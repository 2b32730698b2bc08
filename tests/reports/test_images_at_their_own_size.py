"""A detector fine-tuned on small pictures was measured at COCO's size alone: both figures are there now."""

import json

import pytest
import torch

from annotated_sets import masks, official
from litevit import create_model
from litevit.engine.config import override
from litevit.jobs import dense_tasks
from litevit.jobs.dense_models import load_dense
from litevit.jobs.measure_dense import Measured
from litevit.jobs.train import train
from litevit.recipes import get_recipe

pytest.importorskip("faster_coco_eval", reason="COCO evaluation needs faster-coco-eval (the extra 'coco')")
pytest.importorskip("accelerate", reason="training needs accelerate (the extra 'train')")

TINY = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}


def run_of(name: str, data, folder, **fields):
    recipe = get_recipe(name)
    values = {"data.path": str(data), "model.weights": None, "run.max_steps": 1, "run.workers": 0, "run.device": "cpu"}
    for path, value in (values | {"run.dir": str(folder)} | fields).items():
        recipe = override(recipe, path, value)
    train(recipe)
    return json.loads((folder / "result.json").read_text())


def test_a_detector_at_both_sizes(tmp_path, monkeypatch) -> None:
    """Pictures of 48 x 64 that the model sees at 96 x 128 and as they are; the best weights are chosen by the first."""
    seen = []

    def measure(model, batches, *_, **__):
        sizes = []
        hook = model.backbone.register_forward_pre_hook(lambda _, images: sizes.append(tuple(images[0].shape[-2:])))
        with torch.inference_mode():
            for images, _targets in batches:
                model(list(images))
        hook.remove()
        seen.append(sizes[0])
        return Measured({"bbox/AP": 0.25 if max(sizes[0]) > 64 else 0.75}, {})

    monkeypatch.setattr(dense_tasks, "measure_detection", measure)
    options = {**TINY, "channels": 16, "min_size": 96, "max_size": 160}
    fields = {"model.overrides": options, "data.short_side": [96, 96], "data.long_side": 160, "run.eval_every": 1}
    result = run_of("finetune-detection", official(tmp_path / "data"), tmp_path / "run", **fields)
    assert result == {"step": 1, "bbox/AP": 0.25, "own_size/bbox/AP": 0.75}
    assert seen == [(96, 128), (64, 64)]  # padded to multiples of 32
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["bbox/AP"] for row in rows if row["kind"] == "eval"] == [0.25]
    seen.clear()
    off = run_of("finetune-detection", tmp_path / "data", tmp_path / "off", **fields, **{"data.eval_own_size": False})
    assert (off, len(seen)) == ({"step": 1, "bbox/AP": 0.25}, 1)
    seen.clear()
    fields["model.overrides"] = {**options, "resize": False}  # then both are the same
    run_of("finetune-detection", tmp_path / "data", tmp_path / "same", **fields, **{"data.resize": False})
    assert seen == [(64, 64)]


def test_a_segmenter_at_both_sizes_as_eval_finds_them(tmp_path, litevit) -> None:
    options = {**TINY, "fpn_channels": 16, "head_channels": 16, "test": {"scale": [400, 200]}}
    fields = {"model.overrides": options, "data.crop": 64, "data.short_side": 64, "optim.lr": 1e-8}
    folder = tmp_path / "run"
    result = run_of("finetune-segmentation", masks(tmp_path / "data"), folder, **fields)
    assert result["own_size/pixel_accuracy"] != result["pixel_accuracy"]
    for words, prefix, how in (((), "", "fit 400 x 200"), (("--size", "own"), "own_size/", "whole images")):
        code, out, error = litevit("eval", "--run", folder, "--json", "--workers", 0, "--device", "cpu", *words)
        assert code == 0, error
        found = json.loads(out)
        assert how in found["protocol"]
        for name, value in found["metrics"].items():
            assert value == pytest.approx(result[prefix + name], abs=1e-6)


@pytest.mark.parametrize("verb", ["predict", "eval"])
def test_a_classifier_has_one_side(verb, photos, litevit) -> None:
    place = ("predict", photos, "--model", "lvt") if verb == "predict" else ("eval", "lvt", "--data", photos)
    weights = ("--weights", "none") if verb == "predict" else ()
    code, _, error = litevit(*place, *weights, "--size", "own")
    assert code == 2
    assert "--size" in error
    assert "classifier" in error


def test_predict_takes_images_as_they_are(tmp_path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(create_model("segformer_lvt", num_classes=2).state_dict(), file)
    assert load_dense("segformer_lvt", file, size="own").model.config.test.scale is None
    assert load_dense("segformer_lvt", file).model.config.test.scale == (2048, 512)
    assert load_dense("segformer_lvt", file, size=64).model.config.test.scale == (256, 64)
