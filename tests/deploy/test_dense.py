"""Detectors, segmenters and panoptic models as files: post-processing inside, called like the models."""

import copy
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from small import HEADS, dense, needs
from torch import Tensor

import annotated_sets as sets
import litevit
from litevit.checkpoints.preprocessing import checked_preprocessing
from litevit.cli import main
from litevit.deploy.compare import SetRules, match
from litevit.deploy.graph import build_graph
from litevit.deploy.source import _dense_preprocessing
from litevit.deploy.verify import images_of
from litevit.tasks.segmentation import SegmentationTest

DETECTORS = ("retinanet", "mask_rcnn", "panoptic_fpn")
SUFFIX = {"pt2": ".pt2", "onnx": ".onnx", "openvino": ".xml"}
each = pytest.mark.parametrize("format", [pytest.param(name, marks=needs(name)) for name in SUFFIX])


@pytest.mark.parametrize("size", [(128, 160), (125, 99)])
@pytest.mark.parametrize("task", DETECTORS)
@torch.no_grad()
def test_fixed_shapes_select_what_the_model_selects(task: str, size: tuple[int, int]) -> None:
    model = dense(task)
    graph = build_graph(model)
    for kind in ("noise", "images", "extreme"):
        images = images_of(kind, 3, size, uint8=False, photos=())
        found = dict(zip(graph.names, graph(images), strict=True))
        ours = graph.reference(images)
        assert int(ours["count"].sum()) > 0, "nothing was found: this proves nothing"
        for difference in graph.compare(found, ours, copy.deepcopy(graph).double().reference(images.double())):
            assert difference.worst == 0, difference
        for name in ("panoptic", "masks", "semantic"):
            if name in ours:
                assert torch.equal(found[name], ours[name]), name


@pytest.mark.parametrize("task", HEADS)
def test_files_of_models_that_resize_nothing_are_read_again(task: str) -> None:
    """As the first dense runs of `litevit train` are."""
    own = {"test": SegmentationTest(scale=None)} if task in ("semantic_fpn", "segformer") else {"resize": False}
    how = _dense_preprocessing(dense(task, **own))
    assert how.size == (0, 0)
    assert checked_preprocessing(json.loads(json.dumps(asdict(how))), "a.onnx") == how


@pytest.mark.parametrize("selection", ["pairs", "anchors"])
@torch.no_grad()
def test_both_selections_of_retinanet(selection: str) -> None:
    graph = build_graph(dense("retinanet", selection=selection, remove_empty_boxes=False, pre_nms=40))
    images = images_of("images", 2, (160, 130), uint8=False, photos=())
    found, ours = dict(zip(graph.names, graph(images), strict=True)), graph.reference(images)
    assert ours["count"].min() > 0
    assert all(difference.worst == 0 for difference in graph.compare(found, ours, ours))


@torch.no_grad()
def test_segments_of_a_panoptic_graph() -> None:
    model = dense("panoptic_fpn", resize=False)
    graph = build_graph(model)
    images = images_of("images", 2, (96, 128), uint8=False, photos=())
    found = dict(zip(graph.names, graph(images), strict=True))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    for i, expected in enumerate(model([image * std + mean for image in images])):
        ids = found["segment_ids"][i]
        segments = {int(k): (int(c), float(s)) for k, c, s in
                    zip(ids, found["segment_classes"][i], found["segment_scores"][i]) if k}  # fmt: skip
        assert set(segments) == {s["id"] for s in expected["segments_info"]}
        for s in expected["segments_info"]:
            assert segments[s["id"]][0] == s["category_id"]
            assert segments[s["id"]][1] == pytest.approx(s["score"], abs=1e-4)


def test_sets_excuse_edges_and_nothing_else() -> None:
    rules = SetRules(score_threshold=0.3, nms_threshold=0.5, max_detections=10)

    def side(scores: list[float], shift: float = 0.0, label: int = 0) -> dict[str, Tensor]:
        boxes = torch.tensor([[20.0 * i, 0, 20.0 * i + 10, 10 + shift] for i in range(len(scores))])
        return {"boxes": boxes, "scores": torch.tensor(scores), "labels": torch.full((len(scores),), label)}

    same = side([0.9, 0.8])
    assert match(same, same, rules, 1e-3, 1e-3)[2] == 0
    assert match(same, side([0.9, 0.8], shift=0.5), rules, 1e-3, 1e-3)[2] == 4  # boxes moved
    assert match(same, side([0.9, 0.8], label=1), rules, 1e-3, 1e-3)[2] == 4  # other classes
    assert match(same, side([0.9, 0.7]), rules, 1e-3, 1e-3)[2] == 2  # another score
    assert match(same, side([0.9]), rules, 1e-3, 1e-3)[2] == 1  # one is gone
    assert match(side([0.9, 0.3005]), side([0.9]), rules, 1e-3, 1e-3)[2] == 0  # it was at the threshold
    full = SetRules(score_threshold=0.3, nms_threshold=0.5, max_detections=2)
    other = side([0.9, 0.8, 0.8])
    cut = {key: value[[0, 2]] for key, value in other.items()}
    assert match(side([0.9, 0.8]), cut, full, 1e-3, 1e-3)[2] == 0  # two shared the last place


def test_a_segmenters_file_is_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """It is given as weights, and is no training run."""
    root, path, names = sets.masks(tmp_path / "set"), tmp_path / "x.pt2", tmp_path / "names.txt"
    names.write_text("ground\nant\nbee\n")
    model = dense("semantic_fpn", num_classes=3)
    litevit.export(model, path, format="pt2", names=names, image_size=(64, 96), batch_size=1, verify=False)
    assert main(["eval", "--weights", str(path), "--data", str(root), "--size", "own", "--workers", "0"]) == 2
    assert "knows its model and size" in capsys.readouterr().err
    assert main(["eval", "--weights", str(path), "--data", str(root), "--workers", "0"]) == 0
    assert "miou" in capsys.readouterr().out


@pytest.mark.slow  # three minutes: the exporters take long for so many operators
@each
@torch.no_grad()
def test_a_detector_in_a_file(format: str, tmp_path: Path) -> None:
    model = dense("retinanet", resize=True, min_size=130, max_size=200)
    path = tmp_path / f"x{SUFFIX[format]}"
    report = litevit.export(model, path, format=format, image_size=(130, 175), batch_size=2)
    assert report.verified
    run = litevit.load_exported(path)
    assert run.task == "detection"
    batch = run(torch.randn(2, 3, 130, 175))
    assert {name: tuple(x.shape) for name, x in batch.items()} == {
        "boxes": (2, 20, 4), "scores": (2, 20), "labels": (2, 20), "count": (2,)
    }  # fmt: skip
    image = images_of("images", 1, (260, 350), uint8=True, photos=())[0] / 255
    (expected,), (found,) = model([image]), run([image])
    torch.testing.assert_close(found["boxes"], expected["boxes"], atol=2.0, rtol=0)  # 130 x 175 is padded otherwise
    torch.testing.assert_close(found["scores"], expected["scores"], atol=0.02, rtol=0)
    assert torch.equal(found["labels"], expected["labels"])


@pytest.mark.slow
@pytest.mark.timeout(3000)
@each
@pytest.mark.parametrize("task", HEADS)
@torch.no_grad()
def test_any_batch_and_size(task: str, format: str, tmp_path: Path) -> None:
    options = {} if task in ("semantic_fpn", "segformer") else {"min_size": 140, "max_size": 300}
    model = dense(task, **options)
    path = tmp_path / f"x{SUFFIX[format]}"
    assert litevit.export(model, path, format=format).verified
    run = litevit.load_exported(path)
    image = images_of("images", 1, (150, 211), uint8=True, photos=())[0] / 255
    if task in ("semantic_fpn", "segformer"):
        assert (run.segment(image) == model.segment(image)).double().mean() > 0.999
        return
    (expected,), (found,) = model([image]), run([image])
    assert len(found["scores"]) == len(expected["scores"]) > 0
    torch.testing.assert_close(found["boxes"], expected["boxes"], atol=1e-2, rtol=0)
    if task != "retinanet":
        assert (found["masks"] == expected["masks"]).double().mean() > 0.999
    if task == "panoptic_fpn":
        assert (found["panoptic"] == expected["panoptic"]).double().mean() > 0.999
        assert {s["id"] for s in found["segments_info"]} == {s["id"] for s in expected["segments_info"]}
