"""Panoptic quality (PQ, arXiv:1801.00868, eq. 1), by the rules of COCO's evaluator, with crowds and void.

A predicted and a true segment of one category match when their IoU is above 1/2 (void does not count against the
prediction). PQ = sum of IoU over matches / (TP + FP/2 + FN/2) = SQ * RQ, averaged over the categories that occur.
Crowds are never missed; an unmatched prediction lying mostly in void or in a crowd of its category is no mistake.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from litevit.data.coco_masks import read_panoptic_png, write_panoptic_png
from litevit.files import write_json
from litevit.ops.panoptic_ids import MAX_ID

Segment = Mapping
"""`id` and `category_id`; of the truth also `iscrowd` (default 0) and `area` (default: counted in the map)."""

IOU, TP, FP, FN = range(4)  # columns of PanopticQuality.counts


class PanopticQuality:
    """Accumulates panoptic quality image by image.

    `counts` is its whole state: `reduce` adds those of all processes, `merge` those of another object.

    Args:
        categories: COCO's list of categories, `id` and `isthing` (0 or 1) each.
    """

    def __init__(self, categories: Iterable[Mapping]):
        self.isthing: dict[int, bool] = {int(c["id"]): bool(c["isthing"]) for c in categories}
        if not self.isthing:
            raise ValueError("PanopticQuality needs a list of categories with id and isthing, got an empty one")
        self._row = {category: row for row, category in enumerate(self.isthing)}
        self.counts = torch.zeros(len(self.isthing), 4, dtype=torch.float64)

    def update(
        self,
        prediction: np.ndarray | Tensor,
        prediction_segments: Sequence[Segment],
        truth: np.ndarray | Tensor,
        truth_segments: Sequence[Segment],
        *,
        name: str = "image",
    ) -> None:
        """Counts one image.

        Args:
            prediction, truth: (H, W) integer segment ids, 0 = void.
            prediction_segments, truth_segments: what each id of the map is.
            name: says which image an error is about.

        Raises:
            ValueError: maps of two sizes, ids without a segment or without a pixel, an unknown category.
        """
        pred_map, true_map = _as_array(prediction), _as_array(truth)
        if pred_map.shape != true_map.shape:
            raise ValueError(
                f"{name}: prediction and truth must have one size, got {pred_map.shape} and {true_map.shape}"
            )
        pred_ids, pred_category = self._describe(prediction_segments, f"{name}: prediction")
        true_ids, true_category = self._describe(truth_segments, f"{name}: truth")
        # Neighbouring pixels mostly agree, so counting runs instead of pixels is several times faster.
        pairs = (true_map.reshape(-1) << 24) | pred_map.reshape(-1)
        starts = np.flatnonzero(np.concatenate(([True], pairs[1:] != pairs[:-1])))
        pairs, lengths = pairs[starts], np.diff(np.append(starts, pairs.size))
        true_index = _index(pairs >> 24, true_ids, f"{name}: truth")
        pred_index = _index(pairs & MAX_ID, pred_ids, f"{name}: prediction")
        shape = (len(true_ids), len(pred_ids))
        overlap = np.bincount(true_index * shape[1] + pred_index, lengths, shape[0] * shape[1]).reshape(shape)
        _require_pixels(overlap.sum(1), true_ids, f"{name}: truth")
        _require_pixels(overlap.sum(0), pred_ids, f"{name}: prediction")

        by_id = {int(s["id"]): s for s in truth_segments}
        crowd = np.array([bool(by_id[i].get("iscrowd", 0)) if i else False for i in true_ids.tolist()])
        pred_area = overlap.sum(0)
        true_area = overlap.sum(1)
        for row, segment_id in enumerate(true_ids.tolist()):  # COCO's evaluator believes the file's area
            if segment_id:
                stated = by_id[segment_id].get("area")
                true_area[row] = true_area[row] if stated is None else stated

        same = (true_category[:, None] == pred_category[None, :]) & ~crowd[:, None]
        same[0], same[:, 0] = False, False  # row and column 0 are void
        union = true_area[:, None] + pred_area[None, :] - overlap - overlap[0][None, :]
        iou = np.where(same, overlap / np.maximum(union, 1), 0.0)
        true_match, pred_match = np.nonzero(iou > 0.5)  # above 1/2 a match is unique
        for t, p in zip(true_match, pred_match):
            self._add(true_category[t], IOU, iou[t, p])
            self._add(true_category[t], TP)
        missed = ~crowd
        missed[0] = False
        missed[true_match] = False
        for t in np.flatnonzero(missed):
            self._add(true_category[t], FN)
        # Differs from a sum over all crowds: COCO's evaluator remembers the last crowd of a category.
        crowd_of = {int(true_category[by_row]): by_row for by_row in self._file_order(truth_segments, true_ids, crowd)}
        for p in np.setdiff1d(np.arange(1, shape[1]), pred_match):
            ignored = overlap[0, p]
            crowd_row = crowd_of.get(int(pred_category[p]))
            if crowd_row is not None:
                ignored += overlap[crowd_row, p]
            if ignored / pred_area[p] <= 0.5:
                self._add(pred_category[p], FP)

    def merge(self, other: "PanopticQuality") -> None:
        """Adds what another process or worker counted.

        Args:
            other: made with the same categories.

        Raises:
            ValueError: it was made with others.
        """
        if self.isthing != other.isthing:
            raise ValueError("PanopticQuality.merge: both must have been made with the same categories")
        self.counts += other.counts

    def reduce(self, accelerator: Any) -> None:
        """Sums over processes; every one has to call it.

        Args:
            accelerator: a Hugging Face `Accelerator`.
        """
        if accelerator.num_processes > 1:
            self.counts = accelerator.reduce(self.counts.to(accelerator.device), "sum").cpu()

    def compute(self) -> dict:
        """Returns: `{"All" | "Things" | "Stuff": {"pq", "sq", "rq", "n"}, "per_class": {id: {"pq", "sq", "rq"}}}`.

        Fractions; n is the number of categories that occurred, the others stay out of the mean.
        """
        per_class: dict[int, dict[str, float]] = {}
        seen: list[int] = []
        for category, (iou, tp, fp, fn) in zip(self.isthing, self.counts.tolist()):
            if tp + fp + fn == 0:
                per_class[category] = {"pq": 0.0, "sq": 0.0, "rq": 0.0}
                continue
            seen.append(category)
            found = tp + 0.5 * fp + 0.5 * fn
            per_class[category] = {"pq": iou / found, "sq": iou / tp if tp else 0.0, "rq": tp / found}
        result: dict = {}
        for group, wanted in (("All", None), ("Things", True), ("Stuff", False)):
            members = [per_class[c] for c in seen if wanted is None or self.isthing[c] == wanted]
            result[group] = {
                k: sum(m[k] for m in members) / len(members) if members else 0.0 for k in ("pq", "sq", "rq")
            }
            result[group]["n"] = len(members)
        return result | {"per_class": per_class}

    def _add(self, category: int, column: int, value: float = 1.0) -> None:
        self.counts[self._row[int(category)], column] += value

    def _describe(self, segments: Sequence[Segment], what: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns: ids sorted, void first; the category of each (void: -1)."""
        table = {0: -1}
        for segment in segments:
            segment_id, category = int(segment["id"]), int(segment["category_id"])
            if not 0 < segment_id <= MAX_ID:
                raise ValueError(f"{what}: segment ids must be in [1, {MAX_ID}], got {segment_id}")
            if segment_id in table:
                raise ValueError(f"{what}: segment id {segment_id} is listed twice")
            if category not in self._row:
                raise ValueError(f"{what}: segment {segment_id} has category_id {category}, not one of the categories")
            table[segment_id] = category
        ids = np.array(sorted(table), dtype=np.int64)
        return ids, np.array([table[i] for i in ids.tolist()], dtype=np.int64)

    @staticmethod
    def _file_order(segments: Sequence[Segment], ids: np.ndarray, crowd: np.ndarray) -> list[int]:
        rows = [int(np.searchsorted(ids, int(s["id"]))) for s in segments]
        return [row for row in rows if crowd[row]]


def panoptic_quality(gt: Mapping, gt_folder: str | os.PathLike, pred: Mapping, pred_folder: str | os.PathLike) -> dict:
    """Panoptic quality of a whole COCO panoptic result.

    Args:
        gt: contents of the truth's JSON: `annotations` (`image_id`, `file_name`, `segments_info`) and `categories`.
        gt_folder: its PNGs.
        pred: contents of the prediction's JSON: `annotations`. Every image of `gt` must have one.
        pred_folder: its PNGs.

    Returns:
        See `PanopticQuality.compute`.

    Raises:
        ValueError: JSON of another form, an image without a prediction, or what `PanopticQuality.update` refuses.
        FileNotFoundError: a PNG is missing.
    """
    _check(gt, "the truth", categories=True)
    _check(pred, "the prediction")
    metric = PanopticQuality(gt["categories"])
    predicted = {annotation["image_id"]: annotation for annotation in pred["annotations"]}
    absent = [a["image_id"] for a in gt["annotations"] if a["image_id"] not in predicted]
    if absent:
        raise ValueError(
            f"Every image of the truth needs a prediction; {len(absent)} of {len(gt['annotations'])} have none, "
            f"the first is image_id {absent[0]!r:.60}. To score a subset, filter the truth's annotations"
        )
    for truth in gt["annotations"]:
        prediction = predicted[truth["image_id"]]
        metric.update(
            _read_map(pred_folder, prediction),
            prediction["segments_info"],
            _read_map(gt_folder, truth),
            truth["segments_info"],
            name=f"image_id {truth['image_id']}",
        )
    return metric.compute()


def _check(content: Mapping, what: str, *, categories: bool = False) -> None:
    """Raises ValueError unless a result has the entries that `panoptic_quality` reads, each of its type."""

    def number(value: Any) -> bool:
        return isinstance(value, int) or (isinstance(value, str) and value.isdecimal() and len(value) < 20)

    def need(entry: Any, name: str, good: bool) -> None:
        if not good:
            value = entry.get(name, "nothing") if isinstance(entry, Mapping) else entry
            raise ValueError(f"{what} is not in COCO's panoptic format: an entry has {value!r:.60} for {name!r}")

    for category in content["categories"] if categories else ():
        need(category, "id", isinstance(category, Mapping) and number(category.get("id")) and "isthing" in category)
    for entry in content["annotations"]:
        need(entry, "image_id", isinstance(entry, Mapping) and isinstance(entry.get("image_id"), int | str))
        need(entry, "file_name", isinstance(entry.get("file_name"), str))
        need(entry, "segments_info", isinstance(entry.get("segments_info"), list | tuple))
        for segment in entry["segments_info"]:
            for name in ("id", "category_id"):
                need(segment, name, isinstance(segment, Mapping) and number(segment.get(name)))
            area = segment.get("area")
            need(segment, "area", area is None or (isinstance(area, int | float) and 0 <= area < 2**62))


def _read_map(folder: str | os.PathLike, annotation: Mapping) -> np.ndarray:
    listed = {int(segment["id"]) for segment in annotation["segments_info"]}
    return read_panoptic_png(Path(folder) / annotation["file_name"], listed=listed)


class PanopticWriter:
    """Writes predictions as COCO panoptic results: one PNG per image, then one JSON.

    Args:
        folder: where the PNGs go; made if absent.
        category_ids: the data set's category id of each contiguous class; None keeps the classes as they are.
    """

    def __init__(self, folder: str | os.PathLike, *, category_ids: Sequence[int] | None = None):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.category_ids = category_ids
        self.annotations: list[dict] = []

    def add(self, image_id: int | str, panoptic: np.ndarray | Tensor, segments_info: Sequence[Segment]) -> None:
        """Args: panoptic: (H, W) segment ids, 0 = void; segments_info: as a panoptic model returns it."""
        stem = f"{image_id:012d}" if isinstance(image_id, int) else str(image_id)
        target = self.folder / f"{stem}.png"
        write_panoptic_png(target, _as_array(panoptic))
        ids = self.category_ids
        segments = [
            {
                "id": int(s["id"]),
                "category_id": int(s["category_id"] if ids is None else ids[s["category_id"]]),
            }
            for s in segments_info
        ]
        self.annotations.append({"image_id": image_id, "file_name": target.name, "segments_info": segments})

    def save(self, path: str | os.PathLike, *, annotations: Sequence[Mapping] | None = None) -> None:
        """Writes the JSON; `annotations` replaces this writer's own (those gathered from all processes)."""
        write_json(path, {"annotations": list(annotations or self.annotations)})


def _as_array(ids: np.ndarray | Tensor) -> np.ndarray:
    array = ids.detach().cpu().numpy() if isinstance(ids, Tensor) else np.asarray(ids)
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"A panoptic map must be (H, W) integers, got {array.shape} {array.dtype}")
    return array.astype(np.int64)


def _index(values: np.ndarray, ids: np.ndarray, what: str) -> np.ndarray:
    """Position of every value in `ids` (sorted)."""
    index = np.minimum(np.searchsorted(ids, values), len(ids) - 1)
    strangers = np.unique(values[ids[index] != values])
    if len(strangers):
        raise ValueError(f"{what}: the map holds segment ids without an entry in segments_info: {_few(strangers)}")
    return index


def _require_pixels(area: np.ndarray, ids: np.ndarray, what: str) -> None:
    empty = ids[1:][area[1:] == 0]
    if len(empty):
        raise ValueError(f"{what}: segments_info lists segment ids that the map does not hold: {_few(empty)}")


def _few(ids: np.ndarray) -> str:
    return ", ".join(map(str, ids[:5].tolist())) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
