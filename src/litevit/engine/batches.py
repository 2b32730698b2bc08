"""Batches of a run: the same ones for any number of loader workers, from any step on."""

import os
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset

from litevit.data.sampling import STEP, BatchStream, SeededDataset, Unreadable, seed_everything
from litevit.data.streaming import StreamedBatches, StreamedImages
from litevit.engine.stopping import leave_signals_to_the_main_process
from litevit.engine.task import Task


def batch_stream(task: Task, dataset: Dataset, **options: Any) -> Any:
    if hasattr(task, "batch_stream"):
        return task.batch_stream(dataset, **options)
    if isinstance(dataset, StreamedImages):
        return StreamedBatches(dataset, **options)
    return BatchStream(len(dataset), repeats=getattr(task, "repeats", 1), **options)  # type: ignore[arg-type]


def batches_of(dataset: Dataset, stream: Any, task: Task, workers: int, accelerator: Any) -> Iterator[Any]:
    from accelerate.utils import send_to_device

    workers = min(workers, os.cpu_count() or 1)
    seed_everything(stream.seed, STEP)  # the loader draws its base seed from the global generator
    if isinstance(stream, StreamedBatches):
        workers = stream.usable_workers(workers)
        source: dict[str, Any] = {"dataset": stream, "batch_size": None}  # it gives whole batches
    else:
        source = {"dataset": SeededDataset(dataset, stream.seed), "batch_sampler": stream}
    loader: DataLoader = DataLoader(
        **source,
        collate_fn=_Collate(task.collate),
        num_workers=workers,
        pin_memory=accelerator.device.type == "cuda",
        worker_init_fn=leave_signals_to_the_main_process if workers else None,
        prefetch_factor=4 if workers else None,
    )
    for batch, unreadable in loader:
        yield send_to_device(batch, accelerator.device, non_blocking=True), unreadable


class _Collate:
    """Parts readable from unreadable samples before the task's own collate; a class, so that it can be pickled."""

    def __init__(self, collate: Any):
        self.collate = collate

    def __call__(self, samples: list[Any]) -> tuple[Any, list[Unreadable]]:
        unreadable = [sample for sample in samples if isinstance(sample, Unreadable)]
        readable = [sample for sample in samples if not isinstance(sample, Unreadable)]
        if not readable:
            names = ", ".join(item.name for item in unreadable[:3])
            raise ValueError(f"No image of a batch of {len(samples)} could be read: {names}, ...")
        return self.collate(readable), unreadable
