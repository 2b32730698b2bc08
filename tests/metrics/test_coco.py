"""COCO average precision: held to pycocotools, to results worked out by hand, and to itself over several processes."""

import contextlib
import copy
import io
import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch

from litevit.metrics.coco import NAMES, COCOAveragePrecision

pytest.importorskip("faster_coco_eval", reason="COCO evaluation needs faster-coco-eval (the extra 'coco')")

CLASSES, IDS = ("a", "b", "c"), (7, 3, 90)  # neither contiguous nor ascending


def _ellipses(rng: np.random.Generator, count: int, height: int, width: int, scale: float) -> torch.Tensor:
    y, x = np.mgrid[0:height, 0:width]
    masks = []
    for _ in range(count):
        cx, cy = rng.uniform(0, width), rng.uniform(0, height)
        rx, ry = np.exp(rng.uniform(1, np.log(scale), size=2))
        masks.append(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1)
    return torch.from_numpy(np.array(masks).reshape(count, height, width))


def _boxes(masks: torch.Tensor) -> torch.Tensor:
    boxes = []
    for mask in masks:
        ys, xs = mask.any(1).nonzero(), mask.any(0).nonzero()
        empty = len(ys) == 0
        boxes.append([0, 0, 1, 1] if empty else [xs[0].item(), ys[0].item(), xs[-1].item() + 1, ys[-1].item() + 1])
    return torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)


def _random_images(seed: int, images: int) -> tuple[list[dict], list[dict]]:
    """Truth of all sizes, crowds, empty images; predictions are the truth moved and false ones, with tied scores."""
    rng = np.random.default_rng(seed)
    predictions, targets = [], []
    for image_id in range(images):
        height, width = (int(v) for v in rng.integers(120, 320, size=2))
        masks = _ellipses(rng, int(rng.integers(0, 8)), height, width, 100)
        labels = torch.from_numpy(rng.integers(0, 3, size=len(masks)))
        targets.append(
            {
                "image_id": 1000 - 7 * image_id,
                "boxes": _boxes(masks),
                "labels": labels,
                "masks": masks,
                "iscrowd": torch.from_numpy(rng.random(len(masks)) < 0.15),
                # Annotations state areas of their own (polygons), which need not be the mask's.
                "area": masks.flatten(1).sum(1).double() * 0.97 + 0.25,
            }
        )
        moved = [
            torch.roll(mask, tuple(rng.integers(-6, 7, size=2).tolist()), (0, 1)) for mask in masks for _ in range(2)
        ]
        false = _ellipses(rng, int(rng.integers(0, 5)), height, width, 80)
        found = torch.cat([torch.stack(moved) if moved else false[:0], false])
        found_labels = torch.cat([labels.repeat_interleave(2), torch.from_numpy(rng.integers(0, 3, size=len(false)))])
        predictions.append(
            {
                "boxes": _boxes(found) + torch.from_numpy(rng.uniform(-2, 2, (len(found), 4)).astype(np.float32)),
                "scores": torch.from_numpy(np.round(rng.random(len(found)), 1).astype(np.float32)),
                "labels": found_labels,
                "masks": found,
            }
        )
    return predictions, targets


def _pycocotools(predictions: list[dict], targets: list[dict], kind: str) -> list[float]:
    from pycocotools import mask as codec
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def rle(mask: torch.Tensor) -> dict:
        return codec.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))

    def xywh(box: torch.Tensor) -> list[float]:
        x0, y0, x1, y1 = box.double().tolist()
        return [x0, y0, x1 - x0, y1 - y0]

    annotations, results = [], []
    for prediction, target in zip(predictions, targets):
        for k in range(len(target["labels"])):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": target["image_id"],
                    "category_id": IDS[int(target["labels"][k])],
                    "bbox": xywh(target["boxes"][k]),
                    "segmentation": rle(target["masks"][k]),
                    "area": float(target["area"][k]),
                    "iscrowd": int(target["iscrowd"][k]),
                }
            )
        for k in range(len(prediction["labels"])):
            entry = {
                "image_id": target["image_id"],
                "category_id": IDS[int(prediction["labels"][k])],
                "score": float(prediction["scores"][k]),
            }
            if kind == "bbox":
                entry["bbox"] = xywh(prediction["boxes"][k])
            else:
                entry["segmentation"] = rle(prediction["masks"][k])
            results.append(entry)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": [
                {"id": t["image_id"], "height": t["masks"].shape[1], "width": t["masks"].shape[2]} for t in targets
            ],
            "annotations": annotations,
            "categories": [{"id": i, "name": n} for i, n in zip(IDS, CLASSES)],
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_all_twelve_numbers_equal_pycocotools(seed: int) -> None:
    pytest.importorskip("pycocotools", reason="pycocotools is the reference here (the extra 'dev')")
    predictions, targets = _random_images(seed, 20)
    metric = COCOAveragePrecision(CLASSES, IDS)
    metric.update(predictions[:11], targets[:11])
    metric.update(predictions[11:], targets[11:])
    ours = metric.compute()
    for kind in ("bbox", "segm"):
        theirs = _pycocotools(predictions, targets, kind)
        assert 0.05 < theirs[0] < 0.95, "the case must be neither hopeless nor perfect"
        for name, value in zip(NAMES, theirs):
            assert ours[f"{kind}/{name}"] == pytest.approx(value, abs=1e-6), (kind, name)


def _one_image(**truth: object) -> dict:
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 4:24, 4:24] = masks[1, 30:60, 30:60] = True
    target = {"image_id": 5, "boxes": _boxes(masks), "labels": torch.tensor([0, 2]), "masks": masks}
    return target | truth


def test_truth_as_prediction_is_perfect_and_sizes_without_truth_are_minus_one() -> None:
    target = _one_image()
    metric = COCOAveragePrecision(CLASSES)
    metric.update([target | {"scores": torch.tensor([0.9, 0.8])}], [target])
    numbers = metric.compute()
    assert numbers["bbox/AP"] == numbers["segm/AP"] == numbers["segm/AP_small"] == pytest.approx(1)
    assert numbers["bbox/AP_large"] == -1, "no object is large"
    rows = metric.per_class()
    assert rows["a"] == {"objects": 1, "bbox/AP": 1, "bbox/AP50": 1, "segm/AP": 1, "segm/AP50": 1}
    assert rows["b"]["objects"] == 0
    assert rows["b"]["segm/AP"] == -1


def test_per_class_rows_follow_labels_not_ids() -> None:
    target = _one_image()
    metric = COCOAveragePrecision(CLASSES, IDS)
    prediction = target | {"scores": torch.tensor([0.9, 0.8])}
    metric.update([{key: value[:1] for key, value in prediction.items() if key != "image_id"}], [target])
    metric.compute()
    rows = metric.per_class()
    assert (rows["a"]["bbox/AP"], rows["b"]["bbox/AP"], rows["c"]["bbox/AP"]) == (1, -1, 0)


def test_a_detection_inside_a_crowd_is_no_mistake() -> None:
    target = _one_image(labels=torch.tensor([0, 0]), iscrowd=torch.tensor([False, True]))
    inside = torch.zeros(64, 64, dtype=torch.bool)
    inside[40:50, 40:50] = True
    masks = torch.stack([inside, target["masks"][0]])
    prediction = {
        "boxes": _boxes(masks), "scores": torch.tensor([0.9, 0.8]), "labels": torch.tensor([0, 0]), "masks": masks,
    }  # fmt: skip
    as_crowd, as_object = COCOAveragePrecision(CLASSES), COCOAveragePrecision(CLASSES)
    as_crowd.update([prediction], [target])
    as_object.update([prediction], [target | {"iscrowd": torch.tensor([False, False])}])
    assert as_crowd.compute()["segm/AP"] == pytest.approx(1)
    assert as_object.compute()["segm/AP"] < 0.6


def test_nothing_found_scores_zero_and_nothing_true_scores_minus_one() -> None:
    target = _one_image()
    nothing = {
        "boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64),
        "masks": torch.zeros(0, 64, 64, dtype=torch.bool),
    }  # fmt: skip
    metric = COCOAveragePrecision(CLASSES)
    metric.update([nothing], [target])
    assert metric.compute()["bbox/AP"] == metric.compute()["segm/AP"] == 0
    empty = COCOAveragePrecision(CLASSES)
    empty.update([nothing], [nothing | {"image_id": 1}])
    assert empty.compute()["bbox/AP"] == -1


def test_results_are_coco_json(tmp_path) -> None:
    target = _one_image()
    metric = COCOAveragePrecision(CLASSES, IDS)
    metric.update([target | {"scores": torch.tensor([0.9, 0.8])}], [target])
    metric.save_results(tmp_path / "out" / "results.json")
    first = json.loads((tmp_path / "out" / "results.json").read_text())[0]
    assert first["image_id"] == 5
    assert first["category_id"] == 7
    assert first["bbox"] == [4, 4, 20, 20]
    assert first["segmentation"]["size"] == [64, 64]
    assert isinstance(first["segmentation"]["counts"], str)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["results.json"]


def test_boxes_alone_need_no_masks() -> None:
    target = _one_image()
    del target["masks"]
    metric = COCOAveragePrecision(CLASSES, kinds=("bbox",))
    metric.update([target | {"scores": torch.tensor([0.9, 0.8])}], [target])
    assert set(metric.compute()) == {f"bbox/{name}" for name in NAMES}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.tensor([0, 3])}, r"labels must be in 0..2, got 3"),
        ({"masks": torch.zeros(1, 64, 64, dtype=torch.bool)}, "one mask per box, got 1 masks for 2"),
    ],
)
def test_wrong_predictions_are_named(change: dict, message: str) -> None:
    target = _one_image()
    with pytest.raises(ValueError, match=message):
        COCOAveragePrecision(CLASSES).update([target | {"scores": torch.tensor([0.9, 0.8])} | change], [target])


def test_wrong_use_is_named() -> None:
    with pytest.raises(ValueError, match="3 different ids"):
        COCOAveragePrecision(CLASSES, (1, 2, 2))
    with pytest.raises(ValueError, match="no images"):
        COCOAveragePrecision(CLASSES).compute()
    target = _one_image()
    del target["masks"]
    with pytest.raises(ValueError, match="'masks'"):
        COCOAveragePrecision(CLASSES).update([target | {"scores": torch.tensor([0.9, 0.8])}], [target])


def _worker(rank: int, world: int, port: str, out: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
    predictions, targets = _random_images(3, 13)
    metric = COCOAveragePrecision(CLASSES, IDS)
    # A distributed sampler fills up to 14 images: image 0 comes twice.
    mine = [i % 13 for i in range(rank, 14, world)]
    metric.update([predictions[i] for i in mine], [targets[i] for i in mine])
    numbers = metric.compute()
    with open(f"{out}/{rank}.json", "w") as file:
        json.dump({"numbers": numbers, "results": metric.results()}, file)
    torch.distributed.destroy_process_group()


def test_shares_of_processes_are_joined_and_repeated_images_count_once(monkeypatch) -> None:
    predictions, targets = _random_images(4, 9)
    alone = COCOAveragePrecision(CLASSES, IDS)
    alone.update(predictions, targets)
    shares = []
    for rank in range(2):
        metric = COCOAveragePrecision(CLASSES, IDS)
        mine = [i % 9 for i in range(rank, 10, 2)]  # the sampler fills up: image 0 comes twice
        metric.update([predictions[i] for i in mine], [targets[i] for i in mine])
        shares.append(metric)
    everything = [metric._images for metric in shares]
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(
        torch.distributed, "all_gather_object", lambda out, mine: out.__setitem__(slice(None), everything)
    )
    assert shares[0].compute() == shares[1].compute()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: False)
    assert shares[1].compute() == alone.compute()
    assert shares[1].results() == alone.results()


@pytest.mark.slow
def test_two_processes_give_exactly_the_numbers_of_one(tmp_path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = [subprocess.Popen([sys.executable, __file__, str(rank), "2", port, str(tmp_path)]) for rank in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    predictions, targets = _random_images(3, 13)
    alone = COCOAveragePrecision(CLASSES, IDS)
    alone.update(copy.deepcopy(predictions), targets)
    expected = alone.compute()
    for rank in range(2):
        got = json.loads((tmp_path / f"{rank}.json").read_text())
        assert got["numbers"] == expected
        assert got["results"] == json.loads(json.dumps(alone.results()))


if __name__ == "__main__":  # a process of the test above
    _worker(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
