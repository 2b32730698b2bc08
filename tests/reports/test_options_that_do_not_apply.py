"""Options that meant nothing to what they were given with were ignored: every verb refuses them, in one line."""

import json

import pytest
import torch

from annotated_sets import masks, official
from litevit import create_model


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file without a moving average."""
    file = tmp_path_factory.mktemp("weights") / "plain.pth"
    torch.save(create_model("litv2_s", embed_dim=8, num_heads=(1, 1, 2, 2), depths=(1, 1, 1, 1)).state_dict(), file)
    return file


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """As far as these commands look: they stop before they read it."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "best.safetensors").write_bytes(b"")
    return folder


CASES = {
    "convert": (["convert", "WEIGHTS", "OUT", "--ema"], "holds no moving average: leave out --ema"),
    "bench scaling": (
        ["bench", "scaling", "--over", "size", "--batches", 1, 2],
        "--over size takes --sizes, not --batches",
    ),
    "bench models": (
        ["bench", "models", "--engines", "torch", "--no-compile"],
        "--engines lists what is measured: leave out --no-compile",
    ),
    "doctor, zero": (
        ["doctor", "PHOTOS", "--reduce-zero-label", "False"],
        "--reduce-zero-label is for masks of classes",
    ),
    "doctor, void": (["doctor", "OBJECTS", "--ignore-index", 3], "--ignore-index is for masks of classes"),
    "export, opset": (["export", "lvt", "--format", "pt2", "--opset", 18], "--opset is for --format onnx, not pt2"),
    "export, images": (
        ["export", "lvt", "--format", "pt2", "--no-verify", "--images", "PHOTOS"],
        "--images is for the proof, which --no-verify leaves out",
    ),
    "export, run": (
        ["export", "RUN", "--format", "pt2", "--weights", "none"],
        "--weights is for the name of a model",
    ),
    "pack, run": (["pack", "RUN", "OUT", "--num-classes", 4], "--num-classes is for the name of a model"),
    "token-labels, timm": (
        ["token-labels", "timm/resnet18", "PHOTOS", "OUT", "--num-classes", 4],
        "--num-classes is for our models",
    ),
    "token-labels, k": (["token-labels", "lvt", "PHOTOS", "OUT", "--k", 0], "--k must be at least 1, got 0"),
    "token-labels, detector": (
        ["token-labels", "retinanet_litv2_s", "PHOTOS", "OUT", "--weights", "WEIGHTS"],
        "retinanet_litv2_s does detection: token labels are made by a classifier",
    ),
    "explain": (["explain", "offsets", "PHOTOS", "--rollout"], "offsets does not take --rollout"),
    "list, task": (["list", "--compare", "--task", "detection"], "--task is for the list"),
    "list, json": (["list", "--names", "--json"], "--json is for the table"),
    "list, compare": (["list", "--compare", "--json"], "--compare is for Markdown"),
    "list, size": (["list", "--names", "--size", 224], "--size is for the table"),
    "info": (["info", "lvt", "--size", 10], "--size takes one side or H W, each at least 32"),
    "app": (["app", "--port", 70000], "--port must be 0 to 65535"),
}


@pytest.mark.parametrize("case", CASES)
def test_refused_in_one_line(case, weights, run, photos, litevit, tmp_path, monkeypatch) -> None:
    command, message = CASES[case]
    monkeypatch.chdir(tmp_path)
    places = {"WEIGHTS": weights, "RUN": run, "PHOTOS": photos, "OUT": tmp_path / "out.safetensors"}
    if "OBJECTS" in command:
        places["OBJECTS"] = official(tmp_path / "objects")
    before = set(tmp_path.iterdir())
    code, out, error = litevit(*(places.get(word, word) for word in command))
    assert (code, out) == (2, "")
    assert error.startswith("litevit: ")
    assert error.count("\n") == 1
    assert message in error
    assert set(tmp_path.iterdir()) == before


def test_where_they_apply_they_act(litevit, tmp_path) -> None:
    root = masks(tmp_path / "masks")
    assert json.loads(litevit("doctor", root, "--json")[1])["findings"] == []
    _, out, _ = litevit("doctor", root, "--json", "--reduce-zero-label", "True")
    assert json.loads(out)["findings"]
    code, out, _ = litevit("doctor", root, "--ignore-index", 1)
    assert code == 1
    assert "ignore_index 1 would ignore the class 'ant', whose value it is" in out
