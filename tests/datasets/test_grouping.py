"""Batches grouped by shape: one group per chunk, a function of (seed, epoch), the same for any number of processes."""

import pytest
import torch

from litevit.data.grouping import GroupedBatchStream
from litevit.data.sampling import SampleKey

RATIOS = [1.5, 0.7, 1.0, 1.3, 0.5, 1.2, 1.9, 2.0, 0.9, 1.1, 1.4, 0.8, 1.6]  # 8 wide, 5 not


def stream(**options) -> GroupedBatchStream:
    return GroupedBatchStream(RATIOS, **({"batch_size": 4, "steps": 9} | options))


def indices(batches: list[list[SampleKey]]) -> list[list[int]]:
    return [[key.index for key in batch] for batch in batches]


def test_chunks_are_of_one_group() -> None:
    for batch in stream():
        assert len(batch) == 4
        for chunk in (batch[:2], batch[2:]):
            assert len({RATIOS[key.index] > 1 for key in chunk}) == 1


def test_an_epoch_sees_every_image_and_fills_up_a_group_from_its_start() -> None:
    one = GroupedBatchStream(RATIOS, batch_size=2)
    seen = [key.index for batch in one for key in batch]
    assert len(one) == one.steps_per_epoch == 7, "4 chunks of wide images, 3 of the others"
    assert sorted(set(seen)) == list(range(len(RATIOS)))
    assert len(seen) == 14


def test_order_is_a_function_of_seed_and_epoch() -> None:
    assert indices(stream(seed=3)) == indices(stream(seed=3))
    assert indices(stream(seed=3)) != indices(stream(seed=4))
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    epochs = {}
    for batch in stream():
        epochs.setdefault(batch[0].epoch, []).append([key.index for key in batch])
    assert list(epochs) == [0, 1, 2]
    assert epochs[0] != epochs[1]
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator is not touched"


def test_processes_and_accumulation_divide_the_same_batches() -> None:
    whole = indices(stream())
    for world, accumulate in ((2, 1), (1, 2)):
        parts = [indices(stream(rank=rank, world=world, accumulate=accumulate)) for rank in range(world)]
        assert all(len(part) == 9 * accumulate for part in parts)
        for step, batch in enumerate(whole):
            joined = [
                index
                for micro in range(accumulate)
                for rank in range(world)
                for index in parts[rank][step * accumulate + micro]
            ]
            assert joined == batch


def test_a_resumed_run_goes_on_where_it_stopped() -> None:
    assert list(stream(start=5)) == list(stream())[5:]
    assert len(stream(start=5)) == 4


def test_wrong_sizes() -> None:
    with pytest.raises(ValueError, match=r"processes x run\.accumulate x images grouped by shape = 2 x 1 x 2, got 6"):
        stream(batch_size=6, world=2)
    with pytest.raises(ValueError, match="got a batch of 40 for 13 images"):
        stream(batch_size=40)
