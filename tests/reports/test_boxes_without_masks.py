"""Boxes without masks taught Mask R-CNN that every object is empty."""

import pytest

import annotated_sets as sets

pytest.importorskip("faster_coco_eval", reason="COCO masks need faster-coco-eval (the extra 'coco')")
pytest.importorskip("accelerate", reason="training needs accelerate")

TINY = ("--model.overrides.embed_dim", "8", "--model.overrides.depths", "1", "1", "1", "1",
        "--model.overrides.num_heads", "1", "1", "2", "2", "--model.overrides.channels", "8",
        "--run.max_steps", "1", "--run.batch_size", "2", "--run.device", "cpu")  # fmt: skip


def test_a_mask_model_refuses_boxes(tmp_path, litevit, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    sets.roboflow(tmp_path / "set", masks=False)
    code, _, said = litevit("train", "quickstart-detection", "--data", tmp_path / "set")
    assert code == 2
    assert "9 of 9 objects have a box and no mask" in said
    assert "--model.name retinanet --data.masks False" in said
    assert not (tmp_path / "runs").exists()


def test_a_detector_of_boxes_takes_them(tmp_path, litevit, monkeypatch) -> None:
    """The very command that the refusal advises."""
    monkeypatch.chdir(tmp_path)
    sets.roboflow(tmp_path / "set", masks=False)
    code, out, said = litevit(
        "train", "quickstart-detection", "--data", tmp_path / "set", "--model.name", "retinanet", "--data.masks",
        "False", *TINY,
    )  # fmt: skip
    assert code == 0, said
    assert "Roboflow's COCO export" in out + said
    assert "bbox/AP" in (tmp_path / "runs" / "quickstart-detection" / "result.json").read_text()


def test_a_mask_model_with_masks_off_is_refused(tmp_path, litevit) -> None:
    sets.official(tmp_path)
    code, _, said = litevit("train", "quickstart-detection", "--data", tmp_path, "--data.masks", "False")
    assert code == 2
    assert "mask_rcnn learns masks: with --data.masks False take --model.name retinanet" in said


def test_a_few_objects_without_a_mask_are_refused_too(tmp_path, litevit) -> None:
    import json

    sets.official(tmp_path)
    file = tmp_path / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    content["annotations"][2]["segmentation"] = [[1, 1, 5, 5]]
    file.write_text(json.dumps(content))
    code, _, said = litevit("train", "quickstart-detection", "--data", tmp_path)
    assert code == 2
    assert "1 of 9 objects have a box and no mask (the first is annotation 3)" in said
