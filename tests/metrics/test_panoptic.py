"""Panoptic quality: figures worked out by hand, a plain reference, wrong input, the published evaluator's result."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import litevit.metrics
from litevit.data.coco_masks import read_panoptic_png
from litevit.metrics.panoptic import PanopticQuality, PanopticWriter, panoptic_quality
from litevit.ops.panoptic_ids import ids_to_rgb, rgb_to_ids

CATEGORIES = [{"id": 1, "isthing": 1}, {"id": 7, "isthing": 1}, {"id": 100, "isthing": 0}, {"id": 200, "isthing": 0}]


def segment(segment_id: int, category: int, **more) -> dict:
    return {"id": segment_id, "category_id": category, **more}


def row(*runs: tuple[int, int]) -> np.ndarray:
    """One row of pixels from (id, length)."""
    return np.concatenate([np.full(length, i) for i, length in runs])[None]


def score(pred, pred_segments, true, true_segments) -> dict:
    metric = PanopticQuality(CATEGORIES)
    metric.update(pred, pred_segments, true, true_segments)
    return metric.compute()


def test_hand_computed_counts():
    true = row((5, 10), (6, 10), (9, 20))
    pred = row((1, 8), (2, 2), (3, 12), (4, 18))
    result = score(
        pred,
        [segment(1, 1), segment(2, 1), segment(3, 7), segment(4, 100)],
        true,
        [segment(5, 1), segment(6, 7), segment(9, 100)],
    )
    # class 1: IoU 8/10, one true positive, one false positive; class 7: 10/12; class 100: 18/20
    assert result["per_class"][1] == pytest.approx({"pq": 0.8 / 1.5, "sq": 0.8, "rq": 1 / 1.5}, abs=1e-12)
    assert result["per_class"][7] == pytest.approx({"pq": 10 / 12, "sq": 10 / 12, "rq": 1}, abs=1e-12)
    assert result["per_class"][100]["pq"] == pytest.approx(0.9, abs=1e-12)
    assert result["per_class"][200] == {"pq": 0, "sq": 0, "rq": 0}
    assert result["All"]["pq"] == pytest.approx((0.8 / 1.5 + 10 / 12 + 0.9) / 3, abs=1e-12)
    assert result["Things"]["pq"] == pytest.approx((0.8 / 1.5 + 10 / 12) / 2, abs=1e-12)
    assert (result["All"]["n"], result["Things"]["n"], result["Stuff"]["n"]) == (3, 2, 1)


def test_iou_of_one_half_is_no_match():
    result = score(row((1, 10), (2, 10)), [segment(1, 1), segment(2, 7)], row((5, 20)), [segment(5, 1)])
    assert result["per_class"][1] == {"pq": 0, "sq": 0, "rq": 0}
    assert result["All"]["n"] == 2


def test_categories_must_agree():
    result = score(row((1, 10)), [segment(1, 1)], row((5, 10)), [segment(5, 7)])
    assert result["All"] == {"pq": 0, "sq": 0, "rq": 0, "n": 2}


def test_void_in_the_truth_does_not_count_against_a_match():
    result = score(row((1, 10), (0, 2)), [segment(1, 1)], row((5, 6), (0, 4), (5, 2)), [segment(5, 1)])
    assert result["per_class"][1]["pq"] == pytest.approx(6 / 8)  # union 10 + 8 - 6 - 4


@pytest.mark.parametrize(("in_void", "mistakes"), [(6, 0), (5, 1)])
def test_prediction_mostly_in_void_is_no_mistake(in_void, mistakes):
    metric = PanopticQuality(CATEGORIES)
    metric.update(
        row((1, 10), (2, 10)),
        [segment(1, 1), segment(2, 7)],
        row((0, in_void), (6, 20 - in_void)),
        [segment(6, 7)],
    )
    assert metric.counts[0].tolist() == [0, 0, mistakes, 0]


def test_crowds_are_not_missed_and_excuse_their_category_only():
    true, crowd = row((5, 20), (6, 4)), [segment(5, 1, iscrowd=1), segment(6, 200)]
    nothing = score(row((0, 24)), [], true, crowd)
    assert nothing["per_class"][1] == {"pq": 0, "sq": 0, "rq": 0}
    assert nothing["All"]["n"] == 1  # the missed stuff; the crowd is not
    inside = PanopticQuality(CATEGORIES)
    inside.update(row((1, 10), (2, 10), (3, 4)), [segment(1, 1), segment(2, 7), segment(3, 200)], true, crowd)
    assert inside.counts.tolist() == [[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [1, 1, 0, 0]]


def test_crowds_do_not_match():
    metric = PanopticQuality(CATEGORIES)
    metric.update(row((1, 10)), [segment(1, 1)], row((5, 10)), [segment(5, 1, iscrowd=1)])
    assert metric.counts.sum() == 0


def plain_counts(pred, pred_segments, true, true_segments) -> dict[int, list[float]]:
    """The definition, pixel sets and loops."""
    counts = {c["id"]: [0.0, 0, 0, 0] for c in CATEGORIES}
    pixels = {("t", s["id"]): true == s["id"] for s in true_segments} | {
        ("p", s["id"]): pred == s["id"] for s in pred_segments
    }
    matched = set()
    for t in true_segments:
        for p in pred_segments:
            if t["iscrowd"] or t["category_id"] != p["category_id"]:
                continue
            a, b = pixels["t", t["id"]], pixels["p", p["id"]]
            iou = (a & b).sum() / (a | (b & (true != 0))).sum()
            if iou > 0.5:
                matched |= {("t", t["id"]), ("p", p["id"])}
                counts[t["category_id"]][0] += iou
                counts[t["category_id"]][1] += 1
    for p in pred_segments:
        if ("p", p["id"]) not in matched:
            mine = pixels["p", p["id"]]
            ignored = (mine & (true == 0)).sum()
            for t in true_segments:
                if t["iscrowd"] and t["category_id"] == p["category_id"]:
                    ignored += (mine & pixels["t", t["id"]]).sum()
            counts[p["category_id"]][2] += ignored / mine.sum() <= 0.5
    for t in true_segments:
        counts[t["category_id"]][3] += ("t", t["id"]) not in matched and not t["iscrowd"]
    return counts


def random_map(rng: np.random.RandomState, *, crowds: bool) -> tuple[np.ndarray, list[dict]]:
    ids = np.kron(rng.randint(0, 9, (4, 5)), np.ones((4, 4), dtype=np.int64)) * 1000
    crowd_categories = set()
    segments = []
    for i in np.unique(ids[ids > 0]).tolist():
        category = int(rng.choice([c["id"] for c in CATEGORIES]))
        crowd = crowds and category not in crowd_categories and rng.rand() < 0.2  # one crowd per category, as COCO has
        crowd_categories |= {category} if crowd else set()
        segments.append(segment(i, category, iscrowd=int(crowd)))
    return ids, segments


def test_equals_the_plain_definition_on_random_maps():
    rng = np.random.RandomState(0)
    matches = 0
    for _ in range(60):
        true, true_segments = random_map(rng, crowds=True)
        pred, pred_segments = random_map(rng, crowds=False)
        keep = np.kron(rng.rand(4, 5) < 0.7, np.ones((4, 4), dtype=bool))  # else nothing would match
        pred = np.where(keep, true + 1, np.where(pred > 0, pred + 500, 0))
        pred[true == 0] = 0
        known = {s["id"] + 500: s["category_id"] for s in pred_segments}
        known |= {s["id"] + 1: s["category_id"] for s in true_segments}
        pred_segments = [segment(i, known[i]) for i in np.unique(pred[pred > 0]).tolist()]
        metric = PanopticQuality(CATEGORIES)
        metric.update(torch.from_numpy(pred), pred_segments, true, true_segments)
        expected = plain_counts(pred, pred_segments, true, true_segments)
        assert np.allclose(metric.counts.numpy(), list(expected.values()), rtol=0, atol=1e-12)
        matches += int(metric.counts[:, 1].sum())
    assert matches > 50


def test_processes_add_up():
    rng = np.random.RandomState(1)
    whole, parts = PanopticQuality(CATEGORIES), [PanopticQuality(CATEGORIES) for _ in range(3)]
    for i in range(9):
        true, true_segments = random_map(rng, crowds=False)
        for metric in (whole, parts[i % 3]):
            metric.update(true, true_segments, true, true_segments)
    parts[0].merge(parts[1])
    parts[0].merge(parts[2])
    assert torch.equal(parts[0].counts, whole.counts)
    assert whole.compute()["All"]["pq"] == 1
    with pytest.raises(ValueError, match="same categories"):
        whole.merge(PanopticQuality(CATEGORIES[:1]))


def test_an_area_of_null_is_counted():
    true = [segment(5, 1, area=None)]
    assert score(row((1, 4)), [segment(1, 1)], row((5, 4)), true)["All"]["pq"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((row((1, 4)), [segment(1, 1)], row((5, 5)), [segment(5, 1)]), "one size"),
        ((row((1, 4)), [segment(1, 1)], row((5, 2), (6, 2)), [segment(5, 1)]), "without an entry.*: 6"),
        ((row((1, 2), (9, 2)), [segment(1, 1)], row((5, 4)), [segment(5, 1)]), "without an entry.*: 9"),
        ((row((1, 4)), [segment(1, 1)], row((5, 4)), [segment(5, 1), segment(6, 1)]), "does not hold: 6"),
        ((row((1, 4)), [segment(1, 1), segment(2, 7)], row((5, 4)), [segment(5, 1)]), "does not hold: 2"),
        ((row((1, 4)), [segment(1, 3)], row((5, 4)), [segment(5, 1)]), "category_id 3"),
        ((row((1, 4)), [segment(1, 1), segment(1, 7)], row((5, 4)), [segment(5, 1)]), "listed twice"),
        ((row((1, 4)), [segment(0, 1)], row((5, 4)), [segment(5, 1)]), "segment ids must be in"),
        ((row((1, 4)) * 1.0, [segment(1, 1)], row((5, 4)), [segment(5, 1)]), "integers"),
    ],
)
def test_wrong_input(arguments, message):
    metric = PanopticQuality(CATEGORIES)
    with pytest.raises(ValueError, match=message):
        metric.update(*arguments, name="street.png")
    assert metric.counts.sum() == 0


def test_no_categories():
    with pytest.raises(ValueError, match="categories"):
        PanopticQuality([])


def write_png(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(ids_to_rgb(ids)).save(path)


def files(tmp_path: Path) -> tuple[dict, Path, dict, Path]:
    true, true_segments = random_map(np.random.RandomState(3), crowds=False)
    write_png(tmp_path / "gt" / "3.png", true)
    gt = {"annotations": [{"image_id": 3, "file_name": "3.png", "segments_info": true_segments}]}
    writer = PanopticWriter(tmp_path / "pred", category_ids=[c["id"] for c in CATEGORIES])
    order = {c["id"]: i for i, c in enumerate(CATEGORIES)}
    contiguous = [{**s, "category_id": order[s["category_id"]], "score": 0.5} for s in true_segments]
    writer.add(3, torch.from_numpy(true), contiguous)
    writer.save(tmp_path / "pred.json")
    pred = json.loads((tmp_path / "pred.json").read_text())
    return {**gt, "categories": CATEGORIES}, tmp_path / "gt", pred, tmp_path / "pred"


def test_written_results_score_one(tmp_path):
    gt, gt_folder, pred, pred_folder = files(tmp_path)
    assert litevit.metrics.panoptic_quality is panoptic_quality
    assert panoptic_quality(gt, gt_folder, pred, pred_folder)["All"]["pq"] == 1
    assert sorted(path.name for path in pred_folder.iterdir()) == ["000000000003.png"]
    assert set(pred["annotations"][0]) == {"image_id", "file_name", "segments_info"}


def test_every_image_needs_a_prediction(tmp_path):
    gt, gt_folder, pred, pred_folder = files(tmp_path)
    with pytest.raises(ValueError, match="the first is image_id 3"):
        panoptic_quality(gt, gt_folder, {"annotations": []}, pred_folder)
    (pred_folder / "000000000003.png").unlink()
    with pytest.raises(FileNotFoundError):
        panoptic_quality(gt, gt_folder, pred, pred_folder)


def test_ids_and_colours():
    ids = np.array([[0, 255, 256], [65536, 16777215, 70000]])
    assert np.array_equal(rgb_to_ids(ids_to_rgb(ids)), ids)
    assert ids_to_rgb(ids)[0, 2].tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match="16777215"):
        ids_to_rgb(ids + 1)


def test_a_grey_png_holds_ids_as_values_or_as_colours(tmp_path):
    """A tool that makes PNGs small stores equal red, green and blue as grey; others write the ids themselves."""
    ids = np.zeros((4, 6), dtype=np.uint8)
    ids[1:, 2:] = 7
    Image.fromarray(ids).save(tmp_path / "map.png")
    as_colour = 7 * (1 + 256 + 65536)
    assert np.array_equal(read_panoptic_png(tmp_path / "map.png", listed={7}), ids)
    assert set(np.unique(read_panoptic_png(tmp_path / "map.png", listed={as_colour})).tolist()) == {0, as_colour}
    truth = {"categories": [{"id": 1, "isthing": 1}]}
    truth["annotations"] = [{"image_id": 1, "file_name": "map.png", "segments_info": [{"id": 7, "category_id": 1}]}]
    assert panoptic_quality(truth, tmp_path, truth, tmp_path)["All"]["pq"] == 1


def test_a_palette_png_holds_ids_as_indices_or_as_colours(tmp_path):
    ids = np.zeros((4, 6), dtype=np.uint8)
    ids[1:, 2:] = 1
    image = Image.fromarray(ids, mode="P")
    image.putpalette([0, 0, 0, 44, 1, 0] + [9] * 762)
    image.save(tmp_path / "map.png")
    assert np.array_equal(read_panoptic_png(tmp_path / "map.png", listed={1}), ids)
    assert np.array_equal(read_panoptic_png(tmp_path / "map.png", listed={300}), ids * np.int64(300))


def test_published_evaluator():
    """LITEVIT_PQ_REFERENCE: a folder with expected.json, pred.json, pred/, and gt.json, gt/ (COCO val2017 images)."""
    folder = os.environ.get("LITEVIT_PQ_REFERENCE")
    if not folder:
        pytest.skip("set LITEVIT_PQ_REFERENCE to a folder with COCO maps and the published evaluator's result")
    root = Path(folder)
    expected = json.loads((root / "expected.json").read_text())
    gt = json.loads((root / "gt.json").read_text())
    wanted = set(expected["image_ids"])
    gt["annotations"] = [a for a in gt["annotations"] if a["image_id"] in wanted]
    result = panoptic_quality(gt, root / "gt", json.loads((root / "pred.json").read_text()), root / "pred")
    for group, figures in expected["result"].items():
        assert result[group] == pytest.approx(figures, abs=1e-9)
    for category, figures in expected["per_class"].items():
        assert result["per_class"][int(category)] == pytest.approx(figures, abs=1e-9)
