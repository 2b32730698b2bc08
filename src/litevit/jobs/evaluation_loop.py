"""Evaluation loops, exact over any number of processes: every image is counted once."""

import os
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from litevit.data.sampling import shard
from litevit.data.streaming import StreamedImages
from litevit.jobs.inference import filled, fixed_batch
from litevit.metrics.classification import ClassificationMetric


def evaluation_loader(
    dataset: Dataset, *, batch_size: int, workers: int = 0, accelerator: Any = None, collate: Callable | None = None
) -> DataLoader:
    """This process's share of a data set in a fixed order, nothing padded or repeated."""
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    sampler = None
    if isinstance(dataset, StreamedImages):
        dataset = dataset.share(rank, world)
    else:
        sampler = shard(len(dataset), rank=rank, world=world)  # type: ignore[arg-type]
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,  # type: ignore[arg-type]
        num_workers=min(workers, os.cpu_count() or 1),
        collate_fn=collate,
        pin_memory=accelerator is not None and accelerator.device.type == "cuda",
    )


@torch.no_grad()
def evaluate_classifier(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    metric: ClassificationMetric,
    *,
    accelerator: Any = None,
) -> ClassificationMetric:
    """Fills a metric with a model's results, summed over processes.

    Args:
        model: in evaluation mode, or an exported file, images (B, 3, H, W) -> logits (B, K).
        batches: images and what the metric takes as targets.
    """
    device, fixed = metric.images.device, fixed_batch(model)
    for images, targets in batches:
        logits = model(filled(images, fixed).to(device, non_blocking=True))[: len(images)]
        metric.update(logits, targets.to(device))
    if accelerator is not None:
        metric.reduce(accelerator)
    return metric
