"""Data that are read front to back: WebDataset shards, wherever they are, and streamed Hugging Face data sets.

What a run sees is a function of (seed, epoch, shards, processes, batch), not of the number of loader workers, and a
run continues exactly:

* an epoch begins with a fresh order of the shards, from (seed, epoch), dealt out to `lanes` per process;
* a lane reads its shards one after the other through a shuffling buffer of undecoded images, drawn from
  (seed, epoch, lane), and begins again (with other augmentation) where it has to last longer than its shards do;
* batch i of a process is lane i's (modulo lanes), and loader worker w of W takes lanes w, w + W, ...: W divides lanes;
* an image's augmentation comes from (seed, epoch, shard, position in it, pass of the lane).

A run that is continued reads from the start of its epoch to where it stood, without decoding. Several processes read
different shards, so, unlike with data by index, two processes do not see the batches of one.
"""

import contextlib
import io
import itertools
import os
import random
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch.utils.data import IterableDataset, get_worker_info

from litevit.data import hugging_face
from litevit.data.class_folders import Part
from litevit.data.labelled_images import Policy, load_image
from litevit.data.sampling import SAMPLE, check_batch, seed_cpu
from litevit.data.shards import Pairs, count_images, expand_shards, first_dot, is_remote, member_kind, parse_label
from litevit.data.tars import MOST_LABEL, MOST_MEMBER, streamed

LANES = 8  # per process, as far as there are shards; so many loader workers at most
SHARDS, LANE = 4, 5  # streams of random numbers; the others are in litevit.data.sampling and litevit.engine.train


class Sample(NamedTuple):
    """An undecoded image on its way through a lane."""

    shard: int
    position: int
    lap: int  # how often the lane has been through its shards in this epoch
    name: str
    content: bytes
    label: int


class Source(Protocol):
    """Shards that can be read front to back, any number of times."""

    classes: tuple[str, ...]
    num_shards: int
    where: str
    part: Part

    def read(self, shard: int) -> Iterator[tuple[str, bytes, int]]:
        """Names, image files and labels in stored order."""
        ...

    def count(self) -> int | None:
        """Samples in all shards, where that is known without reading them."""
        ...


class TarShards:
    """WebDataset shards: files, or addresses that fsspec opens (`https://...`, `s3://...`), or `pipe:COMMAND`."""

    classes: tuple[str, ...] = ()

    def __init__(self, path: str, split: str):
        self.files = expand_shards(path, split)
        self.num_shards = len(self.files)
        self.where = path
        self.part = Part("", path, 0)

    def read(self, shard: int) -> Iterator[tuple[str, bytes, int]]:
        file = self.files[shard]
        pairs = Pairs(file, self.part)
        sample, room = "", MOST_MEMBER
        with _open(file) as stream:
            for member, content in streamed(stream, file):
                key, kind = member_kind(member.name)
                if not kind:
                    continue
                if first_dot(key) != sample:
                    yield from self._labelled(pairs.finish(), file)
                    sample, room = first_dot(key), MOST_MEMBER
                pairs.add(member.name, (member.name, content(min(room, MOST_LABEL if kind == "label" else room))))
                room -= member.size
                yield from self._labelled(pairs.take(), file)
        yield from self._labelled(pairs.finish(), file)

    def _labelled(self, pairs: Iterable[Any], file: str) -> Iterator[tuple[str, bytes, int]]:
        for (name, content), (label_name, label) in pairs:
            yield f"{file}:{name}", content, parse_label(label, label_name, file)

    def count(self) -> int | None:
        return None if any(map(is_remote, self.files)) else sum(map(count_images, self.files))


def _open(file: str) -> Any:
    if not is_remote(file):
        return open(file, "rb")
    if command := file.partition("pipe:")[2]:
        return _output_of(command)
    import fsspec  # comes with torch

    try:
        return fsspec.open(file, "rb").open()
    except ImportError as error:  # names what this kind of address needs beside fsspec
        raise ImportError(f"{file} cannot be opened: {error} (https: pip install 'litevit[data]')") from error


@contextlib.contextmanager
def _output_of(command: str) -> Iterator[IO[bytes]]:
    """What a shell command writes; that it failed is said once all was read."""
    with subprocess.Popen(command, shell=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.stdout
        while process.stdout.read(io.DEFAULT_BUFFER_SIZE):
            pass  # what lies behind the archive's end, so that the command can end well
    if process.returncode:
        raise OSError(f"`{command}` ended with exit status {process.returncode}")


class HuggingFaceShards:
    """A data set of the Hub, or of its layout on a disk; see `litevit.data.hugging_face` for its columns."""

    def __init__(self, name: str, split: str, cache: str | None, image: str | None = None, label: str | None = None):
        datasets = hugging_face.library()
        found = hugging_face.find_split(name, split)
        dataset = hugging_face.ask(
            name, lambda: datasets.load_dataset(name, split=found, streaming=True, cache_dir=cache)
        )
        self.columns = hugging_face.find_columns(name, dataset.features, image, label)
        if self.columns.words:
            raise ValueError(
                f"The labels of {name} are words, whose numbers are not known before all are read: "
                "set --data.stream False."
            )
        self.classes = self.columns.names
        self.dataset = dataset.cast_column(self.columns.image, datasets.Image(decode=False))
        self.num_shards = self.dataset.num_shards
        self.where = f"{name}, {found}"
        splits = dataset.info.splits or {}
        self.samples = splits[found].num_examples if found in splits else None
        self.part = Part("", self.where, self.samples or 0)

    def read(self, shard: int) -> Iterator[tuple[str, bytes, int]]:
        # Not `for row in ...`: in a loader's worker that would give this worker's share of the shards alone.
        for number, rows in enumerate(self.dataset.shard(self.num_shards, shard).iter(batch_size=1)):
            image, label = rows[self.columns.image][0], rows[self.columns.label][0]
            content = hugging_face.cell_content(image)
            if not isinstance(content, bytes):
                with open(content, "rb") as file:
                    content = file.read()
            yield f"{self.where}: row {number} of shard {shard}", content, int(label)

    def count(self) -> int | None:
        return self.samples


class StreamedImages(IterableDataset):
    """Iterating gives the evaluation order: as stored, the share of one process (`share`) and loader worker.

    Args:
        classes: names of the labels; None: the source's.
        labels: the label of each of the source's classes, where it is not the same number.
        buffer: undecoded images that training draws from.
        samples: what counts as an epoch; None: what the source knows.
    """

    def __init__(
        self,
        source: Source,
        *,
        num_classes: int,
        classes: Sequence[str] | None = None,
        labels: Sequence[int] | None = None,
        transform: Callable[[Image.Image], Any] | None = None,
        unreadable: Policy = "raise",
        buffer: int = 4096,
        samples: int | None = None,
    ):
        self.source = source
        self.samples = samples
        self.num_classes = num_classes
        self.transform = transform
        self.unreadable: Policy = unreadable
        self.buffer = buffer
        self.classes = source.classes if classes is None else tuple(classes)
        self.labels = None if labels is None else list(labels)
        self.rank, self.world = 0, 1

    def decode(self, sample: Sample) -> Any:
        return self._load(sample, self.transform, self.unreadable)

    def check(self, sample: Sample) -> None:
        """Raises what reading the image would raise, at the cost of decoding it alone."""
        self._load(sample, None, "raise")

    def _load(self, sample: Sample, transform: Any, policy: Policy) -> Any:
        known = self.labels is not None and 0 <= sample.label < len(self.labels)
        label = self.labels[sample.label] if known else sample.label  # type: ignore[index]
        return load_image(
            lambda: (sample.content, label),
            lambda: sample.name,
            num_classes=self.num_classes,
            transform=transform,
            policy=policy,
        )

    def share(self, rank: int, world: int) -> "StreamedImages":
        """Process `rank` of `world` gives each `world`-th image; nothing padded or repeated."""
        self.rank, self.world = rank, world
        return self

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        mine, turns = self.rank + number * self.world, self.world * workers
        count = 0
        for shard in range(self.source.num_shards):
            for position, (name, content, label) in enumerate(self.source.read(shard)):
                if count % turns == mine:
                    yield self.decode(Sample(shard, position, 0, name, content, label))
                count += 1


class StreamedBatches(IterableDataset):
    """The batches of one process for a whole run; the counterpart of `BatchStream`, given to a loader as its data set.

    Args:
        batch_size: the total batch of an optimizer step: over all processes and accumulated micro-batches.
    """

    def __init__(
        self,
        images: StreamedImages,
        *,
        batch_size: int,
        accumulate: int = 1,
        rank: int = 0,
        world: int = 1,
        seed: int = 0,
    ):
        shards = images.source.num_shards
        if shards < world:
            raise ValueError(
                f"Every process reads shards of its own, so there must be at least as many: {images.source.where} has "
                f"{shards}, there are {world} processes. Make smaller shards, or set --data.stream False."
            )
        samples = epoch_samples(images)
        self.steps_per_epoch = check_batch(samples, batch_size=batch_size, accumulate=accumulate, world=world)
        self.images, self.seed = images, seed
        self.rank, self.world, self.accumulate = rank, world, accumulate
        self.size = batch_size // world // accumulate
        self.lanes = min(LANES, shards // world)
        self.start, self.steps = 0, self.steps_per_epoch

    def usable_workers(self, wanted: int) -> int:
        """The most loader workers, up to `wanted`, that divide the lanes among them."""
        return max((n for n in range(1, wanted + 1) if self.lanes % n == 0), default=0)

    def __iter__(self) -> Iterator[list[Any]]:
        worker = get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        assert self.lanes % workers == 0
        per_epoch = self.steps_per_epoch * self.accumulate
        lanes: dict[int, Iterator[Sample]] = {}
        current = -1
        for batch in range(self.start * self.accumulate + number, self.steps * self.accumulate, workers):
            epoch = batch // per_epoch
            if epoch != current:
                lanes, current = {}, epoch
            lane = batch % self.lanes
            if lane not in lanes:
                lanes[lane] = self._lane(epoch, lane)
                first = epoch * per_epoch
                first += (lane - first) % self.lanes  # the lane's first batch of the epoch
                for _ in range((batch - first) // self.lanes * self.size):
                    next(lanes[lane])
            yield [self._augmented(epoch, next(lanes[lane])) for _ in range(self.size)]

    def _augmented(self, epoch: int, sample: Sample) -> Any:
        seed_cpu(self.seed, SAMPLE, epoch, sample.shard, sample.position, sample.lap)
        return self.images.decode(sample)

    def _lane(self, epoch: int, lane: int) -> Iterator[Sample]:
        """An endless stream of samples, every one of them once per lap."""
        reader = lane * self.world + self.rank
        generator = torch.Generator().manual_seed(_number(self.seed, SHARDS, epoch))
        order = torch.randperm(self.images.source.num_shards, generator=generator).tolist()
        shards = order[reader :: self.lanes * self.world]
        draw = random.Random(_number(self.seed, LANE, epoch, reader))
        room = max(self.images.buffer // self.lanes, 1)
        for lap in itertools.count():
            buffer: list[Sample] = []
            for sample in self._lap(shards, lap):
                if len(buffer) < room:
                    buffer.append(sample)
                    continue
                place = draw.randrange(room)
                yield buffer[place]
                buffer[place] = sample
            if not buffer:
                raise ValueError(f"No images in shard {', '.join(map(str, shards))} of {self.images.source.where}.")
            draw.shuffle(buffer)
            yield from buffer

    def _lap(self, shards: list[int], lap: int) -> Iterator[Sample]:
        for shard in shards:
            for position, (name, content, label) in enumerate(self.images.source.read(shard)):
                yield Sample(shard, position, lap, name, content, label)


def create_source(
    path: str, reader: str, split: str, *, image_column: str | None = None, label_column: str | None = None
) -> Source:
    if reader.lower().startswith("hfds/"):
        return HuggingFaceShards(reader[len("hfds/") :], split, path or None, image_column, label_column)
    if reader.lower() == "wds":
        if not is_remote(path) and not os.path.exists(path) and not any(sign in path for sign in "*{"):
            raise FileNotFoundError(f"No data at {path}: the path does not exist.")
        return TarShards(path, split)
    raise ValueError(f"data.stream reads shards: set data.reader to 'wds' or 'hfds/NAME', got {reader!r}.")


def epoch_samples(images: StreamedImages) -> int:
    samples = images.source.count() if images.samples is None else images.samples
    if samples is None:
        raise ValueError(
            f"The number of images in {images.source.where} is not known before it is read, and the schedule counts in "
            "epochs: give it with --data.num_samples."
        )
    return samples


def _number(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
