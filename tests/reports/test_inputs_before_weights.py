"""`litevit predict README.md --model litv2_s` downloaded 110 MB before it said that a README is no picture."""

import json
import socket

import pytest

CASES = {
    "predict": ("predict README.md --model litv2_s", "README.md is not an image that can be read"),
    "predict, detector": ("predict README.md --model mask_rcnn_litv2_s", "README.md is not an image"),
    "predict, segmenter": ("predict README.md x.jpg --model segformer_lvt --out o", "README.md is not an image"),
    "predict, two": ("predict x.jpg README.md", "x.jpg is not an image that can be read (5 bytes)"),
    "predict, folder": ("predict empty", "No images in the folder empty"),
    "predict, names": ("predict photo.png --model retinanet_litv2_s --names gone.txt", "gone.txt does not exist"),
    "predict, parquet": ("predict README.md --format parquet --out o", "README.md is not an image"),
    "predict, tar": ("predict broken.tar --format parquet --out o", "broken.tar"),
    "explain": ("explain cam README.md", "README.md is not an image"),
    "explain, two": ("explain features x.jpg README.md", "x.jpg is not an image"),
    "eval": ("eval litv2_s --data gone", "No data at gone"),
    "eval, no data set": ("eval litv2_s --data empty", "empty"),
    "eval, detector": ("eval mask_rcnn_litv2_s --data gone --out o", "gone does not exist"),
    "eval, layout": ("eval semantic_fpn_litv2_s --data photos", "photos has no masks of classes"),
    "eval, annotations": ("eval retinanet_litv2_s --data photos --annotations gone.json", "gone.json does not exist"),
    "export, int8": ("export litv2_s --format onnx --int8 bad", "bad/1.jpg is not an image"),
    "export, proof": ("export litv2_s --format onnx --images bad", "bad/1.jpg is not an image"),
    "export, both": ("export lit_s --format onnx --int8 photos --preprocessing", "leave --preprocessing out"),
    "export, names": ("export mask_rcnn_litv2_s --format onnx --names gone.txt", "gone.txt does not exist"),
    "pack": ("pack litv2_s o --image README.md", "README.md is not an image"),
    "pack, names": ("pack litv2_s o --names gone.txt", "gone.txt"),
    "token-labels": ("token-labels litv2_s gone o", "No data at gone"),
    "train": ("train finetune --data gone", "No data at gone"),
    "train, objects": ("train finetune-instances --data gone", "gone does not exist"),
    "train, masks": ("train finetune-segmentation --data photos", "photos has no masks of classes"),
}


@pytest.fixture
def here(photos, tmp_path, monkeypatch):
    """A working folder with no weights in its cache, and a network that ends the test."""
    (tmp_path / "README.md").write_text("# Photos\n")
    (tmp_path / "x.jpg").write_bytes(b"no jpg"[:5])
    (tmp_path / "broken.tar").write_bytes(b"no tar")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "1.jpg").write_text("no picture")
    (photos / "train" / "bee" / "train0.png").rename(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITEVIT_CACHE", str(tmp_path / "cache"))

    def asked(*_, **__):
        raise AssertionError("asked the network before the inputs were looked at")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, asked)
    return tmp_path


@pytest.mark.parametrize("case", CASES)
def test_inputs_are_looked_at_first(case, here, litevit):
    command, message = CASES[case]
    if command.startswith("train"):
        pytest.importorskip("accelerate", reason="training needs accelerate")
    before = set(here.rglob("*"))
    code, _, said = litevit(*command.split())
    assert code == 2
    line = said.splitlines()[-1]
    assert line.startswith("litevit: ")
    assert message in line
    assert set(here.rglob("*")) == before


@pytest.mark.parametrize("model", ["litv2_s", "retinanet_litv2_s"])
def test_json_has_the_reasons(model, here, litevit):
    code, out, said = litevit("predict", "README.md", "x.jpg", "--model", model, "--json")
    assert code == 2
    assert [(row["path"], "is not an image" in row["error"]) for row in json.loads(out)] == [
        ("README.md", True),
        ("x.jpg", True),
    ]
    assert "(2 of 2 files failed)" in said


def test_data_of_other_classes_are_refused_in_the_words_of_eval(here, litevit):
    code, _, said = litevit("eval", "litv2_s", "--data", "photos/val")
    assert code == 2
    assert "has 3 classes but the head has 1000" in said
    assert "--num-classes 3" in said
    assert "--data.num_classes" not in said
