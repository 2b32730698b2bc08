"""The judge of exported files: what it lets pass, what it does not, and what is never left out in silence."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from families import backbone, classifier
from small import dense
from torch import Tensor, nn

import litevit
from litevit.deploy.exporter import _prove
from litevit.deploy.formats import Format, Opened, find
from litevit.deploy.graph import Difference, Graph, build_graph, compare_floats
from litevit.deploy.plan import plan
from litevit.deploy.report import ExportReport, share_of_tolerance
from litevit.deploy.shapes import InputShape
from litevit.deploy.source import open_source
from litevit.deploy.verify import Check, images_of, judge


def judged(graph: Graph, change: Callable[[dict[str, Tensor]], None], size: tuple[int, int]) -> list[Check]:
    """Of a file that computes what the model computes, but for a change."""

    def run(images: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            found = dict(zip(graph.names, graph(images), strict=True))
        change(found)
        return found

    return list(judge(graph, run, InputShape(batch=1, size=size)))


def test_unknown_kinds_of_images() -> None:
    with pytest.raises(ValueError, match=r"Unknown kind of images 'photos'. Known: noise, images, extreme"):
        images_of("photos", 1, (64, 64), uint8=False, photos=())


def test_what_is_zero_or_not_finite() -> None:
    zero, one = torch.zeros(2, 3), torch.ones(2, 3)
    assert compare_floats("x", zero, zero, zero.double()).share == 0
    assert compare_floats("x", one, zero, zero.double()).share == float("inf")
    broken = torch.tensor([1.0, torch.inf, torch.nan])
    assert compare_floats("x", broken, broken, broken.double()).share == 0
    # Where float32 overflows and float64 does not, the rest is still compared.
    ours, exact = torch.tensor([1.0, torch.inf]), torch.tensor([1.0, 1e39], dtype=torch.float64)
    assert compare_floats("x", torch.tensor([1.1, torch.inf]), ours, exact).share > 1
    assert compare_floats("x", torch.tensor([1.0, 1e38]), ours, exact).share == float("inf")
    assert share_of_tolerance(Check(1, (2, 2), "other images", "", 0.0, 0.0, True)) == 0
    assert share_of_tolerance(Check(1, (2, 2), "other images", "x", 0.0, 1.0, False)) == float("inf")


def test_a_backbone_with_one_map_that_is_wrong() -> None:
    torch.manual_seed(0)
    graph = build_graph(backbone("litv2", "segmentation").eval())

    def cut(found: dict[str, Tensor]) -> None:
        for name in graph.names:
            found[name] = found[name][..., :-1]

    def freeze(found: dict[str, Tensor]) -> None:
        found["C5"] = kept.setdefault("C5", found["C5"])

    kept: dict[str, Tensor] = {}
    assert all(check.ok for check in judged(graph, lambda found: None, (96, 128)))
    assert [check.kind for check in judged(graph, cut, (96, 128)) if not check.ok] == ["noise", "images", "extreme"]
    assert [check.output for check in judged(graph, freeze, (96, 128)) if not check.ok] == ["C5", "C5"]


def test_an_answer_that_never_changes() -> None:
    """Also of whole numbers, which no tolerance of rounding would show."""

    class Best(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1).argmax(1)

    kept: dict[str, Tensor] = {}
    wrong = [
        check.kind
        for check in judged(
            build_graph(Best()), lambda found: found.update(kept.setdefault("x", dict(found))), (64, 64)
        )
        if not check.ok
    ]
    assert wrong == ["images", "extreme", "other images"]


def test_modules_that_return_something_else() -> None:
    class Two(nn.Module):
        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return {"a": images, "b": images}

    with pytest.raises(ValueError, match="a module that is exported must return one tensor, got dict of 2"):
        litevit.export(Two(), "x.pt2", format="pt2", image_size=64)


@torch.no_grad()
def test_a_panoptic_map_is_judged_by_what_it_was_fused_from() -> None:
    graph = build_graph(dense("panoptic_fpn"))
    images = images_of("images", 2, (96, 128), uint8=False, photos=())
    ours = graph.reference(images)
    exact = copy.deepcopy(graph).double().reference(images.double())
    right = dict(zip(graph.names, graph(images), strict=True))
    assert int(right["count"].min()) > 1

    def wrong(**changes: Tensor) -> set[str]:
        return {d.output for d in graph.compare(right | changes, ours, exact) if d.share > 1}

    assert wrong() == set()
    # An instance at the edge of the suppression is gone, and its segment with it: nothing is wrong with the fusion.
    rest = {"boxes": 0, "scores": 0, "labels": -1, "masks": 0, "mask_probabilities": 0}
    fewer = {key: torch.cat([right[key][:, 1:], torch.full_like(right[key][:, :1], x)], 1) for key, x in rest.items()}
    fewer["count"] = right["count"] - 1
    stuff = graph._stuff_scores(right["semantic_logits"], 96, 128)
    fused = graph.fuse(fewer["scores"], fewer["labels"], fewer["masks"], right["semantic"], stuff)
    names = ("panoptic", "segment_ids", "segment_classes", "segment_scores")
    assert wrong(**fewer, **dict(zip(names, fused, strict=True))) <= {"detections"}
    assert {"panoptic", "segment_ids"} <= wrong(**fewer)
    # What is fused wrongly, drawn wrongly or counted wrongly is seen.
    flipped = right["panoptic"].clone()
    flipped[1, 5, 5] += 1
    assert wrong(panoptic=flipped) == {"panoptic"}
    assert wrong(segment_scores=right["segment_scores"] * 1.001) == {"segment_scores"}
    assert wrong(semantic_logits=right["semantic_logits"] + 1e-3) >= {"semantic_logits"}
    assert wrong(mask_probabilities=1 - right["mask_probabilities"]) == {"mask_probabilities"}


def test_a_detector_that_finds_nothing_proves_nothing(tmp_path: Path) -> None:
    class Eager:
        def __init__(self, graph: Graph):
            self.graph = graph

        @torch.no_grad()
        def run(self, images: Tensor) -> list[Tensor]:
            return list(self.graph(images))

    for threshold, empty in ((0.05, False), (0.999, True)):
        source = open_source(dense("retinanet", score_threshold=threshold))
        job, _ = plan(source, find("onnx"), image_size=(64, 64), batch_size=1)
        opened = Opened(Eager(job.graph), job.metadata)
        kind = Format("eager", ".x", "PyTorch", (), write=lambda *_: None, load=lambda *_, opened=opened: opened)
        checks, _, found_nothing = _prove(job, source, kind, tmp_path / "x", (), lambda text: None)
        assert all(check.ok for check in checks)
        assert found_nothing == empty


def test_options_that_would_do_nothing(tmp_path: Path) -> None:
    model = classifier("litv2")
    names = tmp_path / "names.txt"
    names.write_text("a\nb\nc\n")
    for options, message in [
        ({"opset": 18}, "opset is of ONNX, not of pt2, got 18"),
        ({"images": tmp_path, "verify": False}, r"images take part in the proof, which is left out \(verify\)"),
        ({"weights": None}, "weights is for a model's name; a module has its own, got weights=None"),
        ({"num_classes": 5}, "num_classes is for a model's name; a module has its own, got num_classes=5"),
        ({"names": names}, "names.txt has 3 class names, the model 5 classes"),
        ({"names": names, "model": backbone("litv2", "segmentation")}, "names are of classes, and LITv2 has none"),
        ({"names": names, "model": dense("segformer")}, "names.txt has 3 class names, the model 4 classes"),
    ]:
        with pytest.raises(ValueError, match=message):
            litevit.export(**({"model": model} | options), path=tmp_path / "x.pt2", format="pt2")
    assert [x.name for x in tmp_path.iterdir()] == ["names.txt"]
    names.write_text("a\nb\nc\nd\n")
    assert open_source(dense("segformer"), names=names).classes.names == ("a", "b", "c", "d")


def test_shares_are_numbers() -> None:
    assert Difference("x", 0.0, 0.0).share == 0
    assert Difference("x", 1.0, 0.0).share == float("inf")


def test_the_worst_check_is_a_deviation() -> None:
    """Of a file that deviates nowhere, how much other images change its answer is nothing bad."""
    same = Check(1, (64, 64), "noise", "logits", 0.0, 1e-5, True)
    changed = Check(1, (64, 64), "other images", "logits", 0.9, 1e-5, True)
    report = ExportReport(path=Path("x.pt2"), format="pt2", model="m", task="classification", checks=(same, changed))
    assert report.worst is same
    deaf = replace(changed, worst=0.0, ok=False)
    report.checks = (same, deaf)
    assert report.worst is deaf
