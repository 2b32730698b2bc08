"""What the fuzz has found, by name."""

import json

import pytest
import torch

from litevit.checkpoints.files import read_state_dict
from litevit.cli import main
from litevit.data.coco_entries import box_problem
from litevit.data.coco_masks import segmentation_to_rle
from litevit.data.layouts import read_yaml
from litevit.data.voc import read_xml
from litevit.data.yolo import read_line
from litevit.engine.logging import read_metrics
from litevit.files import parse_json, write_text
from litevit.jobs.recipe_files import load_recipe
from litevit.metrics import panoptic_quality


def test_a_checkpoint_that_holds_itself(tmp_path):
    state = {"a": torch.ones(1)}
    state["model"] = state
    torch.save(state, tmp_path / "model.pth")
    with pytest.raises(ValueError, match="containers"):
        read_state_dict(tmp_path / "model.pth")


def test_keys_that_are_no_texts_are_no_weights(tmp_path):
    torch.save({1: torch.ones(1), b"b": torch.ones(1), "a": torch.ones(1)}, tmp_path / "model.pth")
    assert list(read_state_dict(tmp_path / "model.pth").tensors) == ["a"]


@pytest.mark.parametrize(
    "tensor", [torch.ones(1).expand(10**10), torch.empty(10**12, device="meta"), torch.eye(3).to_sparse()]
)
def test_a_tensor_larger_than_its_file(tmp_path, tensor):
    torch.save({"a": tensor}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match="plain tensors"):
        read_state_dict(tmp_path / "model.pth")


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 6000, "{", b"\xff\xfe\xff"])
def test_json_is_refused_by_name(tmp_path, text):
    with pytest.raises(ValueError, match="a file is not JSON"):
        parse_json(text, "a file")
    (tmp_path / "recipe.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r"recipe\.json is not JSON"):
        load_recipe(tmp_path / "recipe.json")


def test_halves_of_surrogate_pairs_are_written_as_question_marks(tmp_path):
    write_text(tmp_path / "a", json.loads('"a\\ud800"'))
    assert (tmp_path / "a").read_text() == "a?"


def test_metrics_end_where_they_are_none(tmp_path):
    (tmp_path / "m").write_bytes(b'{"step": 1}\n[1]\n{"step": 2}\n')
    assert read_metrics(tmp_path / "m") == [{"step": 1}]


@pytest.mark.parametrize("value", [10**400, float("nan"), float("-inf"), -(10**400)])
def test_boxes_without_end(value):
    assert box_problem([0, 0, value, 5], 40, 40) == "not finite"


@pytest.mark.parametrize("size", [(-1, 48), (10**6, 10**6), (0, 1)])
def test_masks_of_impossible_sizes(size):
    with pytest.raises(ValueError, match="pixels"):
        segmentation_to_rle([[2, 3, 22, 3, 22, 28]], *size)


@pytest.mark.parametrize("label", ["inf", "nan", "-inf"])
def test_a_yolo_class_without_end(label):
    with pytest.raises(ValueError, match="where"):
        read_line(f"{label} 0.5 0.5 0.1 0.1", 10, 10, 2, "where")


@pytest.mark.parametrize("text", ["names: [x]\ntrain: 2020-99-99\n", "names: " + "[" * 3000])
def test_yaml_that_cannot_be_read_is_no_data_set(tmp_path, text):
    (tmp_path / "data.yaml").write_text(text)
    assert read_yaml(tmp_path / "data.yaml") is None


def test_xml_of_an_encoding_that_is_none(tmp_path):
    (tmp_path / "a.xml").write_text("<?xml version='1.0' encoding='nope'?><a/>")
    with pytest.raises(ValueError, match="is not XML"):
        read_xml(tmp_path / "a.xml")


@pytest.mark.parametrize(
    "change", [{"segments_info": None}, {"segments_info": [{"id": [1], "category_id": 1}]}, {"file_name": 1}]
)
def test_panoptic_results_of_another_shape(tmp_path, change):
    told = {
        "categories": [{"id": 1, "isthing": 1}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": []} | change],
    }
    with pytest.raises(ValueError, match="panoptic format"):
        panoptic_quality(told, tmp_path, told, tmp_path)


@pytest.mark.parametrize("task", ["-", "detection", "token labeling"])
def test_a_task_that_is_not_that_of_the_data(task, capsys):
    assert main(["train", "quickstart", "--task", task]) == 2
    assert "A recipe's task is what its data are for" in capsys.readouterr().err
