"""Runs on a user's own folder: class names, weights of other runs, and data whose classes do not agree."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from litevit import cli
from litevit.data.token_labels import TokenLabelImages
from litevit.engine.config import ModelConfig, override
from litevit.jobs.classification import ClassificationTask, build_classifier
from litevit.jobs.evaluate import evaluate_run
from litevit.jobs.token_labels import make_token_labels
from litevit.jobs.train import resolve, train
from litevit.recipes import get_recipe


@pytest.fixture
def photos(tmp_path) -> Path:
    for split, count in (("train", 4), ("val", 2)):
        for shade, name in ((60, "bee"), (120, "cow"), (180, "dog")):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(np.full((32, 32, 3), shade + i, np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "photos"


def small(path: Path, folder: Path, **changes):
    recipe = get_recipe("finetune")
    values = {
        "model": ModelConfig(
            name="litv2_s", overrides={"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}
        ),
        "data": replace(recipe.data, path=str(path), image_size=32, num_classes=3),
        "run": replace(recipe.run, batch_size=4, max_steps=2, workers=0, device="cpu", dir=str(folder)),
    }
    recipe = replace(recipe, **values)
    for name, value in changes.items():
        recipe = override(recipe, name.replace("__", "."), value)
    return recipe


def quiet() -> Console:
    return Console(quiet=True)


def test_predictions_of_a_run_have_the_names_of_its_folders(photos, tmp_path, capsys):
    train(small(photos, tmp_path / "run"), console=quiet())
    picture = photos / "val" / "bee" / "0.png"
    assert cli.main(["predict", str(picture), "--weights", str(tmp_path / "run"), "--json"]) == 0
    guesses = json.loads(capsys.readouterr().out)[0]["guesses"]
    assert {guess["name"] for guess in guesses} == {"bee", "cow", "dog"}
    assert [row.index for row in evaluate_run(tmp_path / "run", workers=0).per_class] == [0, 1, 2]
    (photos / "val" / "bee").rename(photos / "val" / "eel")
    with pytest.raises(
        ValueError, match=r"val has classes that training does not have: eel\. Training has bee, cow, dog"
    ):
        evaluate_run(tmp_path / "run", workers=0)


def test_classes_that_differ_are_found_before_training(photos, tmp_path):
    (photos / "val" / "bee").rename(photos / "val" / "eel")
    with pytest.raises(
        ValueError, match=r"val has classes that training does not have: eel\. Training has bee, cow, dog"
    ):
        train(small(photos, tmp_path / "run"), console=quiet())
    assert not (tmp_path / "run").exists()


def test_the_held_out_share_is_named(photos, tmp_path):
    recipe = small(photos / "train", tmp_path / "run", data__hold_out=0.25)
    train(recipe, console=quiet())
    found = evaluate_run(tmp_path / "run", workers=0)
    assert found.images == 3
    assert "the held-out 25% of each class" in found.protocol


def test_a_run_starts_from_another_with_other_classes(photos, tmp_path):
    train(small(photos, tmp_path / "run"), console=quiet())
    config = small(photos, tmp_path).model
    for weights in (tmp_path / "run", tmp_path / "run" / "best.safetensors"):
        same = build_classifier(replace(config, weights=str(weights)), 3)
        other = build_classifier(replace(config, weights=str(weights)), 5)
        assert other.head.weight.shape[0] == 5
        for name, value in same.state_dict().items():
            assert name.startswith("head.") or torch.equal(value, other.state_dict()[name])
    with pytest.raises(ValueError, match="is not a checkpoint of this model"):
        build_classifier(ModelConfig(name="lit_s", weights=str(tmp_path / "run")), 3)


def test_weights_of_timm_models_are_used(tmp_path, monkeypatch):
    import timm

    asked = {}
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **options: asked.update(options) or create("test_vit"))
    build_classifier(ModelConfig(name="timm/test_vit", weights="official"), 3)
    assert asked["pretrained"] is True
    monkeypatch.undo()
    torch.save(create("test_vit").state_dict(), tmp_path / "vit.pth")
    model = build_classifier(ModelConfig(name="timm/test_vit", weights=str(tmp_path / "vit.pth")), 3)
    saved = torch.load(tmp_path / "vit.pth", weights_only=True)
    assert torch.equal(model.patch_embed.proj.weight, saved["patch_embed.proj.weight"])
    assert model.num_classes == 3
    with pytest.raises(FileNotFoundError, match=r"gone\.pth does not exist"):
        build_classifier(ModelConfig(name="timm/test_vit", weights=str(tmp_path / "gone.pth")), 3)


def test_what_a_worker_found_is_one_line(photos, tmp_path, capsys):
    train(small(photos, tmp_path / "run"), console=quiet())
    (photos / "val" / "cow" / "1.png").write_bytes(b"no image")
    assert cli.main(["eval", "--run", str(tmp_path / "run"), "--workers", "1"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("litevit: Cannot read ")
    assert "cow/1.png" in message
    assert "Traceback" not in message


def test_label_maps_come_from_a_run_and_fit_its_classes(photos, tmp_path):
    train(small(photos, tmp_path / "run"), console=quiet())
    options = {"weights": str(tmp_path / "run"), "image_size": 64, "grid": 6, "workers": 0}
    assert make_token_labels("litv2_s", str(photos), tmp_path / "maps", **options) == 12
    data = replace(small(photos, tmp_path).data, token_labels=str(tmp_path / "maps"), hold_out=0.0)
    assert TokenLabelImages(data)[0][1].shape == (3, 3, 6, 6)
    wrong = torch.full((2, 3, 6, 6), 7.0)
    torch.save(wrong, tmp_path / "maps" / "bee" / "0.pt")
    with pytest.raises(ValueError, match=r"0\.pt has class 7, the head has 3 classes"):
        TokenLabelImages(data)[0]
    Image.new("RGB", (32, 32)).save(photos / "train" / "cow" / "0.jpg")
    with pytest.raises(ValueError, match=r"1 label maps would be shared by several images, such as .*cow/0\.pt"):
        make_token_labels("litv2_s", str(photos), tmp_path / "maps", **options)


def test_wordnet_ids_are_no_class_names(tmp_path):
    for split in ("train", "val"):
        for name in ("n01440764", "n01443537"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (32, 32)).save(tmp_path / split / name / "0.png")
    task = ClassificationTask(small(tmp_path, tmp_path / "run", data__num_classes=2))
    task.train_dataset()
    assert task.class_names == ()


def test_a_run_starts_from_a_run_with_its_options(photos, tmp_path):
    """The recipe says nothing of the model's size: the run does; what the recipe says holds."""
    train(small(photos, tmp_path / "first"), console=quiet())
    again = small(photos, tmp_path / "again", model__weights=str(tmp_path / "first"))
    train(override(again, "model.overrides", {"drop_path_rate": 0.2}), console=quiet())
    saved = json.loads((tmp_path / "again" / "recipe.json").read_text())["model"]["overrides"]
    assert (saved["embed_dim"], saved["depths"], saved["drop_path_rate"]) == (8, [1, 1, 1, 1], 0.2)
    other = replace(again, model=ModelConfig(name="lit_s", weights=str(tmp_path / "first")))
    assert resolve(other).model.overrides == {}
