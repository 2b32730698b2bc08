"""Batches of images of like shape: landscape with landscape, portrait with portrait, so that padding wastes little."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler

from litevit.data.sampling import ORDER, SampleKey


class GroupedBatchStream(Sampler[list[SampleKey]]):
    """`BatchStream` for images of two aspect-ratio groups (wider than high, or not).

    An epoch shuffles each group, cuts it into chunks of `chunk` images (the last one filled up from the group's start,
    as published) and shuffles the chunks; a total batch is a run of chunks. A process takes whole chunks, so what it
    pads together is of one group as long as its share of a batch is one chunk (published: 2 images per GPU), and the
    union over processes does not depend on their number.

    Args:
        aspect_ratios: width / height of every image.
        batch_size: the total batch of an optimizer step: over all processes and accumulated micro-batches.
        chunk: images of one group that stay together; it must divide a process's share of a batch.
        steps: optimizer steps of the run; None: one epoch.
        start: the first step to give.
    """

    def __init__(
        self,
        aspect_ratios: Sequence[float],
        *,
        batch_size: int,
        chunk: int = 2,
        steps: int | None = None,
        start: int = 0,
        accumulate: int = 1,
        rank: int = 0,
        world: int = 1,
        seed: int = 0,
    ):
        if chunk < 1 or batch_size < 1 or batch_size % (world * accumulate * chunk):
            raise ValueError(
                f"run.batch_size is the total batch, so it must be a multiple of processes x run.accumulate x images "
                f"grouped by shape = {world} x {accumulate} x {chunk}, got {batch_size}"
            )
        self.groups = [
            [i for i, ratio in enumerate(aspect_ratios) if ratio > 1],
            [i for i, ratio in enumerate(aspect_ratios) if not ratio > 1],
        ]
        self.steps_per_epoch = sum(-(-len(group) // chunk) for group in self.groups) * chunk // batch_size
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"run.batch_size must not exceed the training set, got a batch of {batch_size} for "
                f"{len(aspect_ratios)} images. Set --run.batch_size to {len(aspect_ratios) // chunk * chunk} or less."
            )
        self.batch_size, self.chunk, self.accumulate = batch_size, chunk, accumulate
        self.rank, self.world, self.seed = rank, world, seed
        self.start = start
        self.steps = self.steps_per_epoch if steps is None else steps

    def _epoch_order(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(
            int(np.random.SeedSequence((self.seed, ORDER, epoch)).generate_state(1)[0])
        )
        chunks = []
        for group in self.groups:
            order = [group[i] for i in torch.randperm(len(group), generator=generator).tolist()]
            if missing := -len(order) % self.chunk:
                order += (order * self.chunk)[:missing]
            chunks += [order[i : i + self.chunk] for i in range(0, len(order), self.chunk)]
        return [index for i in torch.randperm(len(chunks), generator=generator).tolist() for index in chunks[i]]

    def __len__(self) -> int:
        return (self.steps - self.start) * self.accumulate

    def __iter__(self) -> Iterator[list[SampleKey]]:
        order: list[int] = []
        current_epoch = -1
        micro = self.batch_size // self.accumulate
        share = micro // self.world
        for step in range(self.start, self.steps):
            epoch, position = divmod(step, self.steps_per_epoch)
            if epoch != current_epoch:
                order, current_epoch = self._epoch_order(epoch), epoch
            for part in range(self.accumulate):
                begin = position * self.batch_size + part * micro + self.rank * share
                yield [SampleKey(epoch, index) for index in order[begin : begin + share]]
