"""Boxes without masks taught Mask R-CNN that every object is empty."""

import pytest

import annotated_sets as sets
import litevit as litevit_package

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


def test_a_divided_set_is_measured_on_its_held_out_part(tmp_path, litevit, monkeypatch) -> None:
    """Of the run's own data the held-out images count; of somebody else's, all."""
    import json

    monkeypatch.chdir(tmp_path)
    sets.label_studio(tmp_path / "set", masks=False)
    sets.label_studio(tmp_path / "other", masks=False)
    code, out, said = litevit(
        "train", "quickstart-detection", "--data", "set", "--model.name", "retinanet", "--data.masks", "False",
        "--data.hold_out", "0.25", "--run.dir", "run", *TINY,
    )  # fmt: skip
    assert code == 0, said
    assert "25% held out" in out + said
    own = json.loads((tmp_path / "run" / "result.json").read_text())
    code, out, said = litevit("eval", "--run", "run", "--json")
    assert code == 0, said
    result = json.loads(out)
    assert result["images"] == 2
    assert result["metrics"] == pytest.approx({name: own[name] for name in result["metrics"]})
    code, out, said = litevit("eval", "--run", "run", "--data", "other", "--json")
    assert code == 0, said
    assert json.loads(out)["images"] == 8
    code, out, said = litevit(
        "eval", "--run", "run", "--data", "set/images", "--annotations", "set/result.json", "--json"
    )
    assert code == 0, said
    assert json.loads(out)["images"] == 8


def test_a_mask_model_on_boxes_alone_is_measured_by_its_boxes(tmp_path) -> None:
    from litevit.data.class_names import ClassList
    from litevit.jobs.dense_models import INSTANCES, DenseModel
    from litevit.jobs.evaluate_dense import evaluate

    sets.roboflow(tmp_path, masks=False)
    small = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "channels": 8, "min_size": 64}
    model = litevit_package.create_model("mask_rcnn", backbone="litv2_s", num_classes=2, **small)
    dense = DenseModel(model.eval(), "mask_rcnn", INSTANCES, ClassList(sets.CLASSES, (1, 2)))
    result = evaluate(dense, tmp_path)
    assert "boxes alone: the data have no masks" in result.protocol
    assert set(result.metrics) == {f"bbox/{name}" for name in (name.split("/")[1] for name in result.metrics)}
