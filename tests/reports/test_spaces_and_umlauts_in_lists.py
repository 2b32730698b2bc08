"""A name with a space in VOC's lists was cut at it: the boxes were refused, and the doctor looked at no mask."""

import json

import numpy as np
import pytest

from annotated_sets import cvat_masks, voc
from litevit.data import voc as reader
from litevit.data.layouts import find_layout


def rename(root, *folders, lists):
    """1.png -> `my photo ä 1.png`, and so in every list."""
    for folder in folders:
        for file in list((root / folder).iterdir()):
            file.rename(file.with_name(f"my photo ä {file.name}"))
    for file in (root / lists).glob("*.txt"):
        file.write_text("".join(f"my photo ä {line}\n" for line in file.read_text().splitlines()), encoding="utf-8")


@pytest.mark.parametrize("number", ["", " 1", "  -1"])
def test_boxes(tmp_path, litevit, number) -> None:
    """Lists of one class have a number behind the name."""
    root = voc(tmp_path / "voc")
    rename(root, "JPEGImages", "Annotations", lists="ImageSets/Main")
    for file in (root / "ImageSets/Main").glob("*.txt"):
        file.write_text("".join(f"{line}{number}\n" for line in file.read_text().splitlines()))
    code, out, error = litevit("doctor", root, "--json")
    assert code == 0, out + error
    assert json.loads(out)["counts"]["images"] == 8
    part = find_layout(root, "instances").parts["train"]
    names = [file.stem for file in reader.xml_files(part)]
    assert names == [f"my photo ä {n}" for n in range(6)]


def test_masks(tmp_path, litevit) -> None:
    root = cvat_masks(tmp_path / "cvat")
    before = json.loads(litevit("doctor", root, "--json")[1])
    rename(root, "JPEGImages", "SegmentationClass", lists="ImageSets/Segmentation")
    code, out, error = litevit("doctor", root, "--json")
    assert code == 0, out + error
    after = json.loads(out)
    assert (after["counts"], after["classes"]) == (before["counts"], before["classes"])
    assert np.sum(list(after["counts"].values())) > 0
