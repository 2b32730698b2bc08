"""Weights whose classes or system are not the model's: the advice names options of the verb, and the right number."""

from pathlib import Path

import pytest
import torch

from annotated_sets import official
from litevit import create_model, load_weights
from litevit.checkpoints.load import MisfitError
from litevit.cli.misfits import advice
from litevit.cli.train import read_options
from litevit.recipes import get_recipe

pytest.importorskip("accelerate", reason="training needs accelerate")

TINY = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}
REGIONS = {"channels": 16, "box_hidden": 32}
DENSE: dict[str, dict] = {
    "retinanet_litv2_s": {**TINY, "channels": 16},
    "mask_rcnn_litv2_s": {**TINY, **REGIONS},
    "semantic_fpn_litv2_s": {**TINY, "fpn_channels": 16, "head_channels": 16},
}


def misfit(name: str, state: dict) -> MisfitError:
    with pytest.raises(MisfitError) as error:
        load_weights(create_model(name, **DENSE[name], num_classes=3), state)
    return error.value


@pytest.fixture(scope="module")
def lvt(tmp_path_factory) -> Path:
    """A classifier of seven classes, as a file that says nothing else."""
    file = tmp_path_factory.mktemp("weights") / "seven.pth"
    torch.save(create_model("lvt", num_classes=7).state_dict(), file)
    return file


@pytest.mark.parametrize(
    "command",
    [
        ("predict", "PHOTO", "--model", "lvt", "--weights", "FILE"),
        ("eval", "lvt", "--data", "PHOTOS", "--weights", "FILE"),
        ("export", "lvt", "--weights", "FILE", "--format", "onnx", "--out", "OUT.onnx"),
        ("pack", "lvt", "OUT", "--weights", "FILE"),
        ("explain", "features", "PHOTO", "--model", "lvt", "--weights", "FILE", "--out", "OUT"),
        ("token-labels", "lvt", "PHOTOS", "OUT", "--weights", "FILE"),
    ],
    ids=lambda command: command[0],
)
def test_a_file_of_other_classes(command, lvt, photos, litevit, tmp_path) -> None:
    if command[0] == "export":
        pytest.importorskip("onnx", reason="the format needs the extra 'export'")
    places = {
        "FILE": lvt,
        "PHOTOS": photos,
        "PHOTO": photos / "val/bee/val0.png",
        "OUT": tmp_path / "out",
        "OUT.onnx": tmp_path / "out.onnx",
    }
    code, _, error = litevit(*(places.get(word, word) for word in command))
    assert code == 2
    assert error.count("\n") == 1
    assert "another number of classes (head.weight is (7, 256)" in error or "head.bias is (7,)" in error
    assert error.endswith("Give --num-classes 7.\n")
    assert "drop_head" not in error
    assert not list(tmp_path.glob("out*"))


def test_the_number_of_classes_makes_it_work(lvt, photos, litevit, tmp_path) -> None:
    out = tmp_path / "maps"
    options = ("--size", 64, "--grid", 2, "--k", 3, "--workers", 0, "--device", "cpu")
    code, said, _ = litevit("token-labels", "lvt", photos, out, "--weights", lvt, "--num-classes", 7, *options)
    assert (code, said) == (0, f"Wrote 12 label maps to {out}\n")


@pytest.mark.parametrize(("name", "classes"), [(name, 80) for name in DENSE])
def test_eighty_classes_are_eighty(name, classes) -> None:
    """Mask R-CNN's box head has 81 rows, of which one is the background; RetinaNet's has 9 rows for each class."""
    error = misfit(name, create_model(name, **DENSE[name], num_classes=classes).state_dict())
    assert error.options == {"num_classes": classes}
    assert f"num_classes={classes}," in str(error)
    assert advice(error, "predict") == [f"Give --num-classes {classes}."]
    assert advice(error, "train") == ["Give --model.drop_head True: what depends on the classes then starts anew."]
    assert advice(error, "app") == [
        f"The file has num_classes {classes}: give the folder of its training run, which knows its model."
    ]


def test_a_training_run_names_its_option(litevit, tmp_path) -> None:
    file, data = tmp_path / "seven.pth", official(tmp_path / "data")
    options = {key: list(value) if isinstance(value, tuple) else value for key, value in TINY.items()}
    torch.save(create_model("retinanet_litv2_s", **DENSE["retinanet_litv2_s"], num_classes=7).state_dict(), file)
    command = ["train", "retinanet_litv2_s", "--data", data, "--model.weights", file, "--run.dir", tmp_path / "run"]
    command += [word for key, value in (options | {"channels": 16}).items() for word in _words(key, value)]
    code, _, error = litevit(*command, "--run.batch_size", 2, "--run.device", "cpu", "--run.workers", 0)
    assert code == 2
    assert error.splitlines()[0] == "retinanet_litv2_s: detection, retinanet_litv2_s"
    assert len(error.splitlines()) == 2
    assert "head.cls_logits" in error
    assert "Give --model.drop_head True" in error
    assert not (tmp_path / "run").exists()


def _words(key: str, value: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [f"--model.overrides.{key}", *map(str, values)]


def test_another_system_gives_its_backbone() -> None:
    """A RetinaNet is no Mask R-CNN, but its backbone is what training starts from."""
    state = create_model("retinanet_litv2_s", **DENSE["retinanet_litv2_s"], num_classes=7).state_dict()
    error = misfit("mask_rcnn_litv2_s", state)
    assert "To take its backbone alone: load_weights(model.backbone" in str(error)
    assert "To start from its backbone alone: --model.drop_head True." in advice(error, "train")
    model = create_model("mask_rcnn_litv2_s", **DENSE["mask_rcnn_litv2_s"], num_classes=3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = load_weights(model, state, drop_head=True)
    assert {key.partition(".")[0] for key in report.used} == {"backbone"}
    assert {key.partition(".")[0] for key in report.dropped} == {"fpn", "head"}
    after = model.state_dict()
    assert all(torch.equal(after[key], state[key]) for key in report.used)
    assert all(torch.equal(after[key], before[key]) for key in report.missing)


def test_a_backbone_that_does_not_fit_is_named(lvt, photos, litevit) -> None:
    code, _, error = litevit("predict", photos / "val/bee/val0.png", "--model", "litv2_s", "--weights", lvt)
    assert code == 2
    assert error.endswith("Its backbone is that of lvt (--model).\n")


def test_a_classifier_is_no_detector_yet(lvt, photos, litevit) -> None:
    code, _, error = litevit("predict", photos / "val/bee/val0.png", "--model", "segformer_lvt", "--weights", lvt)
    assert code == 2
    assert f"litevit train RECIPE --model.name segformer_lvt --model.weights {lvt}" in error


# ------------------------------------------------------------ a model that takes any backbone


def read(*words: object):
    return read_options(get_recipe("finetune-instances"), [str(word) for word in words], prog="litevit train")[0]


def test_the_backbone_is_that_of_the_run(photos, recipe, tmp_path, capsys) -> None:
    from litevit.jobs.train import resolve, train

    train(recipe(photos))
    capsys.readouterr()
    made = resolve(read("--model.name", "mask_rcnn", "--model.weights", tmp_path / "run", "--data", tmp_path))
    assert made.model.overrides["backbone"] == "litv2_s"
    assert made.model.overrides["embed_dim"] == 8  # the run's model has it
    assert f"mask_rcnn takes the backbone of {tmp_path / 'run'}: litv2_s" in capsys.readouterr().err
    other = read("--model.name", "mask_rcnn", "--model.weights", tmp_path / "run", "--model.overrides.backbone", "lvt")
    assert resolve(other).model.overrides == {"backbone": "lvt", "drop_path_rate": 0.1}
    assert capsys.readouterr().err == ""


def test_the_backbone_is_that_of_the_file(lvt, capsys) -> None:
    assert read("--model.name", "mask_rcnn", "--model.weights", lvt).model.overrides["backbone"] == "lvt"
    assert f"mask_rcnn takes the backbone of {lvt}: lvt" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"takes any backbone: say which, as --model\.overrides\.backbone litv2_s"):
        read("--model.name", "mask_rcnn")
