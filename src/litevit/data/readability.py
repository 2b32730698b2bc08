"""Opens the images of an evaluation set before training, so that a broken one is found now and not after an epoch."""

import itertools
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from torch.utils.data import Dataset

from litevit.data.dense import Selected
from litevit.data.labelled_images import ClassificationImages
from litevit.data.streaming import Sample, StreamedImages

THREADS = 4  # images are decoded outside Python's lock
WHOLE_S = 60.0  # what reading all of a set may cost
SAMPLE_S = 5.0  # what reading a part of a larger set, or of a stream, may cost
PROBE = 32  # images whose time says what all will cost
NAMED = 3


def check_readable(dataset: Dataset, *, rank: int = 0, world: int = 1, whole_s: float = WHOLE_S) -> str:
    """Decodes every image of a set, or of one that would take more than a minute an even sample.

    Args:
        rank: of several processes, each looks at its share.
        whole_s: what reading all may cost.

    Returns:
        What was done, in a line.

    Raises:
        ValueError: some cannot be read; the first are named.
    """
    if isinstance(dataset, StreamedImages):
        return _check_stream(dataset)
    if not isinstance(dataset, ClassificationImages | Selected):
        return ""  # embedded: arrays, not files
    images = dataset
    mine = range(rank, len(images), world)
    started = time.perf_counter()

    def problem(index: int) -> str | None:
        try:
            images.check(index)
        except (ValueError, OSError) as error:
            return str(error)
        return None

    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        probe = _spread(mine, PROBE)
        found = _run(pool.map, problem, probe)
        each = (time.perf_counter() - started) / max(len(probe), 1)
        chosen: Sequence[int] = mine
        if each * len(mine) > whole_s:
            chosen = _spread(mine, max(PROBE, int(min(SAMPLE_S, whole_s) / each)))
        rest = sorted(set(chosen) - set(probe))
        found += _run(pool.map, problem, rest)
    looked = len(probe) + len(rest)
    _refuse(found, looked)
    seconds = time.perf_counter() - started
    if looked == len(mine):
        return f"all {len(images):,} evaluation images can be read ({seconds:.1f} s)"
    return f"{looked * world:,} of {len(images):,} evaluation images were opened and can be read ({seconds:.1f} s)"


def _spread(indices: Sequence[int], count: int) -> list[int]:
    """So many of them, evenly."""
    if count >= len(indices):
        return list(indices)
    return [indices[i * len(indices) // count] for i in range(count)]


def _run(run: Callable, problem: Callable[[int], str | None], indices: Iterable[int]) -> list[str]:
    return [text for text in run(problem, indices) if text is not None]


def _check_stream(images: StreamedImages) -> str:
    """The first images: what comes later costs a download."""
    started, found, count = time.perf_counter(), [], 0
    first = itertools.islice(images.source.read(0), PROBE)
    for position, (name, content, label) in enumerate(first):
        count += 1
        try:
            images.check(Sample(0, position, 0, name, content, label))
        except ValueError as error:
            found.append(str(error))
        if time.perf_counter() - started > SAMPLE_S:
            break
    _refuse(found, count)
    return f"the first {count} images of the evaluation stream can be read"


def _refuse(found: list[str], looked: int) -> None:
    if not found:
        return
    if len(found) == 1:
        raise ValueError(f"An evaluation image is broken, and evaluation leaves nothing out. {found[0]}")
    more = f" And {len(found) - NAMED} more; `litevit doctor` names all." if len(found) > NAMED else ""
    raise ValueError(
        f"{len(found)} of {looked:,} evaluation images are broken, and evaluation leaves nothing out. "
        f"{' '.join(found[:NAMED])}{more}"
    )
