"""Measures detectors, segmenters and panoptic models: while they train and for `litevit eval` alike.

Every process sees its share of the images; the figures are of all. NaN marks what has no truth and was not found.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed
from torch import Tensor, nn

from litevit.metrics.coco import COCOAveragePrecision
from litevit.metrics.panoptic import TP, PanopticQuality, PanopticWriter
from litevit.metrics.segmentation import MeanIoU, write_index_png

Batches = Iterable[tuple[Sequence[Tensor], Sequence[dict[str, Any]]]]
"""Images (3, H, W) in [0, 1], on the model's device or not, and what is true of each."""


class Measured(NamedTuple):
    """Figures of all images, and of each class by its name."""

    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]]


def measure_detection(
    model: nn.Module,
    batches: Batches,
    metric: COCOAveragePrecision,
    *,
    folder: Path | None = None,
    accelerator: Any = None,
) -> Measured:
    """COCO's numbers.

    Args:
        model: in evaluation mode.
        metric: empty; it keeps what was found.
        folder: gets `results.json`.
        accelerator: of accelerate, when several processes share the work.
    """
    device = _device(model, accelerator)
    for images, targets in batches:
        found = model([image.to(device, non_blocking=True) for image in images])
        metric.update([{key: value.cpu() for key, value in one.items()} for one in found], targets)
    metrics = metric.compute()
    if folder is not None and _is_main(accelerator):
        metric.save_results(folder / "results.json")
    return Measured(metrics, metric.per_class())


def measure_panoptic(
    model: nn.Module,
    batches: Batches,
    *,
    classes: Sequence[str],
    category_ids: Sequence[int],
    num_things: int,
    folder: Path | None = None,
    accelerator: Any = None,
) -> Measured:
    """PQ, SQ and RQ of all classes, things and stuff.

    Args:
        classes, category_ids: things first.
        folder: gets `panoptic.json` and the PNGs in `panoptic/`.
        model, accelerator: as of `measure_detection`.
    """
    device = _device(model, accelerator)
    metric = PanopticQuality([{"id": i, "isthing": i < num_things} for i in range(len(classes))])
    writer = None if folder is None else PanopticWriter(folder / "panoptic", category_ids=category_ids)
    for images, targets in batches:
        found = model([image.to(device, non_blocking=True) for image in images])
        for one, target in zip(found, targets):
            ids, segments = one["panoptic"].cpu(), one["segments_info"]
            if writer is not None:
                writer.add(target["image_id"], ids, segments)
            name = f"image {target['image_id']}"
            metric.update(ids, segments, target["panoptic"], target["segments_info"], name=name)
    if accelerator is not None:
        metric.reduce(accelerator)
    if writer is not None and folder is not None:
        annotations = _gathered(writer.annotations, accelerator)
        if _is_main(accelerator):
            writer.save(folder / "panoptic.json", annotations=sorted(annotations, key=lambda a: str(a["file_name"])))
    result = metric.compute()
    groups = {"": result["All"], "_things": result["Things"], "_stuff": result["Stuff"]}
    metrics = {f"{name}{suffix}": values[name] for suffix, values in groups.items() for name in ("pq", "sq", "rq")}
    occurs = (metric.counts[:, TP:].sum(1) > 0).tolist()
    absent = dict.fromkeys(("pq", "sq", "rq"), math.nan)
    rows = {name: result["per_class"][label] if occurs[label] else absent for label, name in enumerate(classes)}
    return Measured(metrics, rows)


def measure_semantic(
    model: nn.Module,
    batches: Batches,
    *,
    classes: Sequence[str],
    to_values: Callable[[Tensor], Tensor],
    test: Any = None,
    folder: Path | None = None,
    accelerator: Any = None,
) -> Measured:
    """Mean intersection over union, mean accuracy and pixel accuracy at the masks' own size.

    Args:
        to_values: from labels to the values of the data's own masks.
        test: how images are looked at; None: as the model was made to.
        folder: gets `index/`: PNGs with those values.
        model, accelerator: as of `measure_detection`.
    """
    device = _device(model, accelerator)
    segment: Callable[..., Tensor] = model.segment  # type: ignore[assignment]
    looks = {} if test is None else {"test": test}
    metric = MeanIoU(len(classes), class_names=tuple(classes))
    for images, targets in batches:
        for image, target in zip(images, targets):
            labels = segment(image.to(device, non_blocking=True), **looks)
            metric.update(labels, target["semantic"].to(labels.device), name=f"mask of {target['image_id']}")
            if folder is not None:
                path = folder / "index" / f"{target['image_id']}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_index_png(path, to_values(labels))
    if accelerator is not None:
        metric.reduce(accelerator)
    result = metric.compute()
    per_class = result.pop("per_class")
    return Measured(result, {str(name): row for name, row in per_class.items()})


def _device(model: nn.Module, accelerator: Any) -> torch.device:
    return next(model.parameters()).device if accelerator is None else accelerator.device


def _is_main(accelerator: Any) -> bool:
    return accelerator is None or accelerator.process_index == 0


def _gathered(items: list[Any], accelerator: Any) -> list[Any]:
    """The lists of all processes, joined."""
    if accelerator is None or accelerator.num_processes == 1:
        return items
    shares: list[Any] = [None] * accelerator.num_processes
    torch.distributed.all_gather_object(shares, items)
    return [item for share in shares for item in share]
