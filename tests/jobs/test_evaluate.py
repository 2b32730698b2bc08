"""`litevit eval`'s library function: protocol, label sets, runs, processes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from families import classifier
from PIL import Image
from rich.console import Console
from torch import nn

import litevit
from litevit.cli import main
from litevit.data.classification import ClassificationData, create_dataset
from litevit.engine.config import override
from litevit.jobs import evaluate as evaluation
from litevit.jobs.evaluate import evaluate, evaluate_run
from litevit.jobs.predict import predict
from litevit.jobs.train import train
from litevit.recipes import get_recipe


class Brightness(nn.Module):
    """Guesses a class from the mean of the image; its logits are easy to say."""

    def __init__(self, classes: int):
        super().__init__()
        self.classes = classes

    def forward(self, images):
        level = (images.mean((1, 2, 3)) * 0.225 + 0.45).clamp(0, 1) * (self.classes - 1)
        return -(torch.arange(self.classes, device=images.device) - level[:, None]).abs()


def grey(path: Path, level: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((30, 40, 3), round(255 * level), dtype=np.uint8)).save(path)


@pytest.fixture
def greys(tmp_path) -> Path:
    """Four classes at levels 0, 1/3, 2/3, 1; one image of the last class is dark, so wrong."""
    for label in range(4):
        for i in range(3):
            grey(tmp_path / "val" / f"c{label}" / f"{i}.png", 0.0 if (label, i) == (3, 2) else label / 3)
    return tmp_path


def test_top1_top5_loss_and_table(greys):
    found = evaluate(Brightness(4), str(greys), num_classes=4, image_size=32, workers=0, batch_size=5)
    dataset = create_dataset(ClassificationData(path=str(greys), num_classes=4, image_size=32), "eval")
    images, targets = (torch.stack([torch.as_tensor(item[i]) for item in dataset_items(dataset)]) for i in (0, 1))
    expected = nn.functional.cross_entropy(Brightness(4)(images), targets).item()
    assert (found.images, found.top5) == (12, 100.0)
    assert found.top1 == pytest.approx(100 * 11 / 12)
    assert found.loss == pytest.approx(expected, rel=1e-6)
    assert [row.top1 for row in found.per_class] == pytest.approx([100, 100, 100, 200 / 3])
    assert found.class_names == ("c0", "c1", "c2", "c3")
    assert json.loads(found.to_json())["top1"] == found.top1


def dataset_items(dataset):
    return [dataset[i] for i in range(len(dataset))]


@pytest.mark.parametrize("world", [2, 5])
def test_processes_together_count_every_image_once(greys, world, monkeypatch):
    class Process:
        num_processes, device = world, torch.device("cpu")

        def __init__(self, rank):
            self.process_index = rank
            self.sums = []

        def reduce(self, tensor, how):
            self.sums.append(tensor.clone())
            return tensor

    processes = [Process(rank) for rank in range(world)]
    options = {"num_classes": 4, "image_size": 32, "workers": 0}
    shares = []
    for process in processes:
        monkeypatch.setattr(evaluation.ClassificationMetric, "compute", lambda self: _counts(self, shares))
        evaluate(Brightness(4), str(greys), accelerator=process, **options)
    assert sum(images for images, _ in shares) == 12
    assert sum(right for _, right in shares) == 11


def _counts(metric, shares):
    shares.append((int(metric.images.sum()), int(metric.right1.sum())))
    return {"top1": 0.0, "top5": 0.0, "loss": 0.0, "images": shares[-1][0]}


def test_a_file_with_a_fixed_batch_takes_it(greys, tmp_path, capsys):
    """Twelve images, five at a time: the last batch is filled up, and nobody is counted twice."""
    torch.manual_seed(0)
    model, path = classifier("litv2", num_classes=4).eval(), tmp_path / "five.pt2"
    litevit.export(model, path, format="pt2", image_size=64, batch_size=5, verify=False)
    file = litevit.load_exported(path)
    found = evaluate(file, str(greys), workers=0)
    crop = file.preprocessing.crop_pct
    expected = evaluate(model, str(greys), num_classes=4, image_size=64, crop_pct=crop, workers=0)
    assert (found.images, found.top1) == (12, expected.top1)
    assert found.loss == pytest.approx(expected.loss, rel=1e-4)
    assert main(["eval", "--weights", str(path), "--data", str(greys), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["images"], told["model"]) == (12, str(path))
    assert main(["eval", "--weights", str(path), "--data", str(greys), "--batch-size", "4"]) == 2
    assert "five.pt2 takes normalised float32 images (B, 3, H, W), exactly 5 images" in capsys.readouterr().err
    paths = sorted((greys / "val").rglob("*.png"))
    guessed = [prediction.guesses[0].index for prediction in predict(file, paths, file.preprocessing)]
    assert guessed == [prediction.guesses[0].index for prediction in predict(model, paths, file.preprocessing)]
    assert len(guessed) == 12


def test_the_protocol_of_each_published_model():
    for name, words in {
        "litv2_s": "shorter side 256, centre crop 224",
        "lvt": "shorter side 233, centre crop 224",
        "litv2_b_384": "resized to 384 x 384",
    }.items():
        settings = evaluation._settings(name, 1000, None, None)
        assert evaluation._protocol(settings, "fp32").startswith(words), name


def test_imagenet_real_labels(tmp_path, monkeypatch):
    names = [f"ILSVRC2012_val_{i:08d}" for i in (1, 2, 3)]
    for i, name in enumerate(names):
        grey(tmp_path / "val" / f"n{i}" / f"{name}.png", i / 2)
    sets = {names[0]: [2, 0], names[1]: [], names[2]: [0]}
    monkeypatch.setattr(evaluation, "real_label_sets", lambda files: [sets[Path(file).stem] for file in files])
    found = evaluate(Brightness(3), str(tmp_path), labels="real", num_classes=3, image_size=32, workers=0)
    assert (found.images, found.top1, found.loss) == (2, 50.0, None)


def test_imagenet_v2_folders_are_read_as_numbers(tmp_path):
    for number in (0, 2, 10):
        grey(tmp_path / str(number) / "a.png", number / 10)
    found = evaluate(Brightness(11), str(tmp_path), labels="v2", num_classes=11, image_size=32, workers=0)
    assert (found.images, found.top1) == (3, 100.0)


def test_a_run_is_evaluated_with_its_own_settings(tmp_path):
    recipe = get_recipe("quickstart")
    for path, value in {
        "model.overrides.embed_dim": 8,
        "model.overrides.num_heads": (1, 2, 2, 4),
        "run.max_steps": 2,
        "run.device": "cpu",
        "run.dir": str(tmp_path / "run"),
    }.items():
        recipe = override(recipe, path, value)
    result = train(recipe, console=Console(quiet=True))
    found = evaluate_run(tmp_path / "run", workers=0)
    assert (found.top1, found.images) == (result.best["top1"], 360)
    assert found.loss == pytest.approx(result.best["loss"], rel=1e-6)
    expected = {"recipe.json", "metrics.jsonl", "result.json", "best.safetensors", "curves.png", "confusion.png"}
    assert expected | {"predictions.png", "checkpoints"} <= {path.name for path in (tmp_path / "run").iterdir()}


def test_wrong_input(tmp_path, greys):
    with pytest.raises(ValueError, match="without weights"):
        evaluate("litv2_s", str(greys), num_classes=4)
    with pytest.raises(FileNotFoundError, match=r"no best\.safetensors"):
        evaluate_run(tmp_path)
    with pytest.raises(ValueError, match="4 classes but the head has 1000"):
        evaluate(Brightness(1000), str(greys), image_size=32)
    with pytest.raises(ValueError, match="needs the validation images under their names"):
        evaluate(Brightness(4), str(greys), labels="real", num_classes=4, image_size=32)
    with pytest.raises(ValueError, match=r"0\.\.999"):
        evaluate(Brightness(4), str(greys), labels="v2", num_classes=4, image_size=32)
