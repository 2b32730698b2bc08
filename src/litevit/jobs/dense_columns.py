"""What a dense model says of an image as plain values, under the same names in JSON and in Parquet.

    detection               `height`, `width`, `boxes` (xyxy, pixels of the upright picture), `scores`, `labels`,
                            `names`
    instance segmentation   the same, and `masks` (COCO's compressed run lengths: size, counts)
    semantic segmentation   `height`, `width`, `segments`: label, name, area, mask; one for each class, largest first
    panoptic segmentation   the same with isthing and score; things first

Labels count from 0 in the order of the model's classes; an area is a number of pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from litevit.data.coco_masks import encode_masks, mask_codec
from litevit.jobs.dense_models import DETECTION, INSTANCES, PANOPTIC, SEMANTIC, DenseModel

Columns = dict[str, Any]


def check_codec(dense: DenseModel) -> None:
    """Raises ImportError where a task has masks and the package that encodes them is missing: before hours of work."""
    if dense.task != DETECTION:
        mask_codec()


def names_of(dense: DenseModel) -> tuple[str, ...]:
    """Of the columns that a model gives."""
    objects = ("boxes", "scores", "labels", "names", *(["masks"] if dense.task == INSTANCES else []))
    return ("height", "width", *(("segments",) if dense.task in (SEMANTIC, PANOPTIC) else objects))


def columns_of(dense: DenseModel, found: Mapping[str, Any], *, height: int, width: int) -> Columns:
    """Args: found: what `litevit.jobs.predict_dense.answer` gives for an image of this size."""
    size = {"height": height, "width": width}
    if dense.task == SEMANTIC:
        return {**size, "segments": _classes(dense, found["semantic"])}
    if dense.task == PANOPTIC:
        return {**size, "segments": _segments(dense, found["panoptic"], found["segments_info"])}
    labels = found["labels"].tolist()
    names = [dense.classes.names[label] for label in labels]
    objects = {"boxes": found["boxes"].tolist(), "scores": found["scores"].tolist(), "labels": labels}
    masks = {"masks": encode_masks(found["masks"])} if dense.task == INSTANCES else {}
    return {**size, **objects, "names": names, **masks}


def _classes(dense: DenseModel, labels: Tensor) -> list[Columns]:
    present, areas = labels.unique(return_counts=True)
    order = areas.argsort(descending=True, stable=True)
    masks = encode_masks(labels == present[order, None, None])
    return [
        {"label": k, "name": dense.classes.names[k], "area": area, "mask": mask}
        for k, area, mask in zip(present[order].tolist(), areas[order].tolist(), masks)
    ]


def _segments(dense: DenseModel, ids: Tensor, listed: Sequence[Mapping[str, Any]]) -> list[Columns]:
    ordered = sorted(listed, key=lambda s: (not s["isthing"], -s["score"]))
    of_segment = ids == torch.tensor([s["id"] for s in ordered], dtype=ids.dtype)[:, None, None]
    return [
        {
            "label": int(s["category_id"]),
            "name": dense.classes.names[s["category_id"]],
            "isthing": bool(s["isthing"]),
            "score": float(s["score"]),
            "area": area,
            "mask": mask,
        }
        for s, area, mask in zip(ordered, of_segment.sum((1, 2)).tolist(), encode_masks(of_segment))
    ]
