"""Which samples a run sees, in which order, with which randomness.

Everything here is a pure function of numbers written in the recipe. The order of an epoch depends on (seed, epoch); the
augmentation of a sample on (seed, epoch, index) and, under repeated augmentation, on the number of the repetition. How
many processes or loader workers there are, and whether the run was killed on the way, changes none of it.
"""

import random
from collections.abc import Iterator, Sized
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

# Separate streams, so that no two uses of the same numbers draw the same values.
ORDER, SAMPLE, STEP = 0, 1, 2


class SampleKey(NamedTuple):
    """Names one augmented sample of a run."""

    epoch: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    repeat: int = 0


class Unreadable(NamedTuple):
    """Stands in a batch for a sample that could not be read, so that it is counted and named instead of replaced."""

    name: str
    reason: str


def seed_everything(*numbers: int) -> None:
    """Seeds Python's, NumPy's and PyTorch's generators from a tuple of non-negative numbers."""
    torch.manual_seed(seed_cpu(*numbers))


def seed_cpu(*numbers: int) -> int:
    """As `seed_everything`, of PyTorch's generators only the CPU's: 15 us where asking all devices takes 160."""
    a, b, c = np.random.SeedSequence(numbers).generate_state(3, np.uint32).tolist()
    random.seed(a)
    np.random.seed(b)
    torch.default_generator.manual_seed(c)
    return c


class SeededDataset(Dataset):
    """A map-style data set whose random augmentation is a function of (seed, epoch, index) alone.

    Indexed with a `SampleKey`. It leaves the CPU's global generators seeded; the training loop seeds them again
    before every step, so loading in the main process (no workers) gives the same run.
    """

    def __init__(self, dataset: Dataset, seed: int):
        self.dataset = dataset
        self.seed = seed

    def __len__(self) -> int:
        assert isinstance(self.dataset, Sized)
        return len(self.dataset)

    def __getitem__(self, key: SampleKey) -> Any:
        seed_cpu(self.seed, SAMPLE, *key)
        return self.dataset[key.index]


def epoch_order(size: int, *, seed: int, epoch: int, repeats: int = 1) -> list[SampleKey]:
    """The samples of one epoch in order.

    Args:
        size: number of samples in the data set.
        repeats: of repeated augmentation. Every sample then comes `repeats` times in a row (neighbours go to different
            processes) and the epoch is cut to `epoch_size`, so it sees about 1/repeats of the set (DeiT, LIT-Ti).
    """
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence((seed, ORDER, epoch)).generate_state(1)[0]))
    order = torch.randperm(size, generator=generator).tolist()
    keys = [SampleKey(epoch, index, repeat) for index in order for repeat in range(repeats)]
    return keys[: epoch_size(size, repeats=repeats)]


def epoch_size(size: int, *, repeats: int = 1) -> int:
    """Samples in an epoch: the set's size, rounded down to a multiple of 256 under repeated augmentation (as DeiT)."""
    return size // 256 * 256 if repeats > 1 and size >= 256 else size


class BatchStream(Sampler[list[SampleKey]]):
    """The batches of one process for a whole run, as lists of keys; a resumed run starts it at a later step.

    One stream over all epochs keeps the loader's workers busy across epoch ends. Of every total batch, process `rank`
    takes each `world`-th sample, so the union over processes does not depend on their number.

    Args:
        size: samples in the data set.
        batch_size: the total batch of an optimizer step: over all processes and accumulated micro-batches.
        steps: optimizer steps of the run.
        start: the first step to give.
    """

    def __init__(
        self,
        size: int,
        *,
        batch_size: int,
        steps: int | None = None,
        start: int = 0,
        accumulate: int = 1,
        rank: int = 0,
        world: int = 1,
        seed: int = 0,
        repeats: int = 1,
    ):
        samples = epoch_size(size, repeats=repeats)
        self.steps_per_epoch = check_batch(samples, batch_size=batch_size, accumulate=accumulate, world=world)
        self.size, self.batch_size, self.accumulate = size, batch_size, accumulate
        self.rank, self.world, self.seed, self.repeats = rank, world, seed, repeats
        self.start = start
        self.steps = self.steps_per_epoch if steps is None else steps

    def __len__(self) -> int:
        return (self.steps - self.start) * self.accumulate

    def __iter__(self) -> Iterator[list[SampleKey]]:
        order: list[SampleKey] = []
        current_epoch = -1
        micro = self.batch_size // self.accumulate
        for step in range(self.start, self.steps):
            epoch, position = divmod(step, self.steps_per_epoch)
            if epoch != current_epoch:
                order = epoch_order(self.size, seed=self.seed, epoch=epoch, repeats=self.repeats)
                current_epoch = epoch
            first = position * self.batch_size
            for begin in range(first, first + self.batch_size, micro):
                yield order[begin + self.rank : begin + micro : self.world]


def check_batch(samples: int, *, batch_size: int, accumulate: int, world: int) -> int:
    """Optimizer steps in an epoch of so many samples; the rest of a batch is dropped."""
    if batch_size % (world * accumulate):
        raise ValueError(
            f"run.batch_size is the total batch, so it must be a multiple of processes x run.accumulate = "
            f"{world} x {accumulate}, got {batch_size}. Choose {_nearest(batch_size, world * accumulate)}."
        )
    if batch_size > samples:
        raise ValueError(
            f"run.batch_size must not exceed the training set, got a batch of {batch_size} for {samples} samples. "
            f"Set --run.batch_size to {samples} or less."
        )
    return samples // batch_size


def shard(size: int, *, rank: int, world: int) -> range:
    """The indices process `rank` evaluates: disjoint, nothing padded, so sums over processes are exact."""
    return range(rank, size, world)


def _nearest(value: int, multiple: int) -> int:
    return max(multiple, round(value / multiple) * multiple)
