"""COCO's average precision and recall of boxes and masks: all 12 numbers of each, by faster-coco-eval.

Held to pycocotools by a test. -1 marks, as there, what has no truth to be measured on (no small objects, ...).
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from litevit.data.coco_masks import encode_masks
from litevit.files import write_json

NAMES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
         "AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large")  # fmt: skip
KINDS = ("bbox", "segm")


class COCOAveragePrecision:
    """Average precision over a data set, whose images may come in any order and from any number of processes.

    The truth comes with the predictions, so any data set will do. Images are told apart by `image_id`: one that comes
    twice (a sampler filled up the last batch) counts once.

    Args:
        classes: names of the labels 0..K-1.
        category_ids: the file's category ids of the labels, for the results' JSON; the default is 0..K-1.
        kinds: "bbox", "segm" or both; "segm" needs masks in predictions and truth.
    """

    def __init__(
        self, classes: Sequence[str], category_ids: Sequence[int] | None = None, *, kinds: Sequence[str] = KINDS
    ):
        self.classes = tuple(classes)
        self.category_ids = tuple(range(len(classes))) if category_ids is None else tuple(category_ids)
        self.kinds = tuple(kinds)
        if len(self.category_ids) != len(self.classes) or len(set(self.category_ids)) != len(self.category_ids):
            raise ValueError(f"category_ids needs {len(self.classes)} different ids, one per class, got {category_ids}")
        if not self.kinds or not set(self.kinds) <= set(KINDS):
            raise ValueError(f"kinds must be out of {', '.join(KINDS)}, got {self.kinds}")
        self._images: dict[Any, dict[str, Any]] = {}
        self._precision: dict[str, np.ndarray] = {}

    def update(self, predictions: Sequence[Mapping[str, Tensor]], targets: Sequence[Mapping[str, Any]]) -> None:
        """Adds images.

        Args:
            predictions: per image `boxes` (N, 4) xyxy, `scores` (N,), `labels` (N,), and for "segm" `masks` (N, H, W).
            targets: per image `image_id`, `boxes`, `labels`, and where given `masks`, `iscrowd` (default: none) and
                `area` (default: the mask's or the box's), in the pixels the predictions are in.
        """
        if len(predictions) != len(targets):
            raise ValueError(f"one target per prediction is needed, got {len(predictions)} and {len(targets)}")
        for prediction, target in zip(predictions, targets):
            image_id = target["image_id"]
            image_id = image_id.item() if isinstance(image_id, Tensor) else image_id
            size = tuple(target["masks"].shape[-2:]) if "segm" in self.kinds and "masks" in target else (1, 1)
            self._images[image_id] = {"truth": self._truth(target), "found": self._found(prediction), "size": size}

    def _found(self, prediction: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        boxes, scores = _xywh(prediction["boxes"]), prediction["scores"].cpu().double().tolist()
        found = [
            {"category_id": self._category(label), "bbox": box, "score": score}
            for label, box, score in zip(prediction["labels"].tolist(), boxes, scores, strict=True)
        ]
        self._add_masks(found, prediction, "predictions")
        return found

    def _truth(self, target: Mapping[str, Any]) -> list[dict[str, Any]]:
        boxes = _xywh(target["boxes"])
        crowds = target["iscrowd"].tolist() if "iscrowd" in target else [0] * len(boxes)
        truth = [
            {"category_id": self._category(label), "bbox": box, "iscrowd": int(crowd)}
            for label, box, crowd in zip(target["labels"].tolist(), boxes, crowds, strict=True)
        ]
        self._add_masks(truth, target, "targets")
        if "area" in target:
            areas = target["area"].cpu().double().tolist()
        elif "segm" in self.kinds:
            areas = target["masks"].flatten(1).sum(dim=1).tolist()
        else:
            areas = [box[2] * box[3] for box in boxes]
        for entry, area in zip(truth, areas, strict=True):
            entry["area"] = area
        return truth

    def _add_masks(self, entries: list[dict[str, Any]], source: Mapping[str, Any], name: str) -> None:
        if "segm" not in self.kinds:
            return
        if "masks" not in source:
            raise ValueError(f"the {name} have no 'masks'; leave 'segm' out of kinds to evaluate boxes alone")
        masks = source["masks"]
        if len(masks) != len(entries):
            raise ValueError(f"the {name} need one mask per box, got {len(masks)} masks for {len(entries)} boxes")
        for entry, rle in zip(entries, encode_masks(masks)):
            entry["segmentation"] = rle

    def _category(self, label: int) -> int:
        if not 0 <= label < len(self.classes):
            raise ValueError(f"labels must be in 0..{len(self.classes) - 1}, got {label}")
        return self.category_ids[label]

    def gather(self) -> None:
        """Makes every process know the images of all. A single process has them already."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return
        shares: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(shares, self._images)
        # The first process that saw an image wins, on every process: all compute the same.
        self._images = {image_id: entry for share in reversed(shares) for image_id, entry in share.items()}

    def compute(self) -> dict[str, float]:
        """Gathers from all processes, then gives the 12 numbers of each kind: `bbox/AP`, ..., `segm/AR_large`."""
        self.gather()
        if not self._images:
            raise ValueError("no images were evaluated: call update first")
        return {f"{kind}/{name}": v for kind in self.kinds for name, v in zip(NAMES, self._evaluate(kind))}

    def _evaluate(self, kind: str) -> list[float]:
        try:
            from faster_coco_eval import COCO, COCOeval_faster
        except ImportError as error:
            raise ImportError("COCO evaluation needs faster-coco-eval: pip install 'litevit[coco]'") from error
        numbers = {image_id: n for n, image_id in enumerate(self._ids(), start=1)}
        categories = [{"id": i, "name": name} for i, name in zip(self.category_ids, self.classes)]
        truth = [{**entry, "image_id": numbers[i]} for i in numbers for entry in self._images[i]["truth"]]
        found = [{**entry, "image_id": numbers[i]} for i in numbers for entry in self._images[i]["found"]]
        if kind == "segm":
            # A result with a box is put among small, medium or large by its box's area; masks go by their own.
            found = [{key: value for key, value in entry.items() if key != "bbox"} for entry in found]
        images = [
            {"id": n, "height": self._images[i]["size"][0], "width": self._images[i]["size"][1]}
            for i, n in numbers.items()
        ]
        with contextlib.redirect_stdout(io.StringIO()):
            reference = COCO(
                {
                    "images": images,
                    "annotations": [{"id": n, **entry} for n, entry in enumerate(truth, start=1)],
                    "categories": categories,
                }
            )
            evaluation = COCOeval_faster(reference, reference.loadRes(found), kind, print_function=lambda *_: None)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        # thresholds 0.5..0.95, 101 recalls, K classes in the order of their ids, 4 areas, 3 limits of detections
        self._precision[kind] = np.asarray(evaluation.eval["precision"])
        return [float(v) for v in evaluation.stats[: len(NAMES)]]

    def _ids(self) -> list[Any]:
        return sorted(self._images, key=lambda i: (isinstance(i, str), i))

    def per_class(self) -> dict[str, dict[str, float]]:
        """After `compute`: class name -> objects (crowds left out), AP and AP50 of each kind (-1 without truth)."""
        if not self._precision:
            raise ValueError("call compute before per_class")
        counts = dict.fromkeys(self.category_ids, 0)
        for image in self._images.values():
            for entry in image["truth"]:
                counts[entry["category_id"]] += not entry["iscrowd"]
        order = sorted(self.category_ids)
        table: dict[str, dict[str, float]] = {}
        for name, category_id in zip(self.classes, self.category_ids):
            row: dict[str, float] = {"objects": counts[category_id]}
            for kind, precision in self._precision.items():
                of_class = precision[:, :, order.index(category_id), 0, -1]
                for column, values in (("AP", of_class), ("AP50", of_class[0])):
                    known = values[values > -1]
                    row[f"{kind}/{column}"] = float(known.mean()) if known.size else -1.0
            table[name] = row
        return table

    def results(self) -> list[dict[str, Any]]:
        """The predictions as COCO's results format: image_id, category_id, bbox (xywh), score, segmentation (RLE)."""
        return [{"image_id": i, **entry} for i in self._ids() for entry in self._images[i]["found"]]

    def save_results(self, path: str | Path) -> None:
        """Writes `results()` as JSON, which pycocotools and COCO's server read.

        Take "bbox" out of the entries before masks are evaluated by pycocotools: it would put them among small, medium
        and large by their boxes' area. The other nine numbers do not depend on it.
        """
        write_json(path, self.results())


def _xywh(boxes: Tensor) -> list[list[float]]:
    boxes = boxes.cpu().double().reshape(-1, 4)  # in this order: MPS has no float64
    return torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1).tolist()
