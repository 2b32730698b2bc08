"""Streamed shards: every image once, the same for any number of workers, and the rest after an interruption."""

import functools
import http.server
import io
import json
import random
import tarfile
import threading
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch.utils.data import DataLoader

from litevit.data.classification import Augment, ClassificationData, count_classes, create_dataset, resolve_classes
from litevit.data.sampling import Unreadable
from litevit.data.streaming import HuggingFaceShards, StreamedBatches, StreamedImages, TarShards
from litevit.engine.config import override
from litevit.jobs.evaluate import evaluate_run
from litevit.jobs.evaluation_loop import evaluation_loader
from litevit.jobs.train import train
from litevit.recipes import get_recipe

SHARDS, IN_EACH = 4, 6


def png(seed: int) -> bytes:
    pixels = np.random.RandomState(seed).randint(0, 256, (16, 20, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def shards(tmp_path) -> Path:
    """24 images with labels 0, 1, 0, 1, ...; the label comes before the image in every second shard."""
    root = tmp_path / "shards"
    root.mkdir()
    for split in ("train", "validation"):
        for number in range(SHARDS):
            with tarfile.open(root / f"{split}-{number:02d}.tar", "w") as archive:
                for i in range(IN_EACH):
                    key = number * IN_EACH + i
                    members = [(f"{key:03d}.png", png(key)), (f"{key:03d}.cls", str(key % 2).encode())]
                    for name, content in members if number % 2 else reversed(members):
                        add(archive, name, content)
    return root


def settings(path, **changes) -> ClassificationData:
    values = {"path": str(path), "reader": "wds", "stream": True, "num_classes": 2, "image_size": 16}
    return ClassificationData(**values | changes)


def named(images: StreamedImages) -> StreamedImages:
    """Samples become (member, lap, a random number), so that order and augmentation can be compared."""
    images.decode = lambda sample: (sample.name.rpartition(":")[2], sample.lap, random.random())  # type: ignore[method-assign]
    return images


def stream(shards, **options) -> StreamedBatches:
    images = named(create_dataset(settings(shards, **options.pop("data", {})), "train"))
    return StreamedBatches(images, **{"batch_size": 6, "seed": 3, **options})


def batches(stream: StreamedBatches, *, steps: int, start: int = 0, workers: int = 0) -> list:
    stream.start, stream.steps = start, steps
    return list(DataLoader(stream, batch_size=None, num_workers=workers, collate_fn=list))


def test_an_epoch_has_every_image_once(shards):
    found = batches(stream(shards), steps=12)
    for epoch in range(3):
        part = [sample for batch in found[4 * epoch : 4 * epoch + 4] for sample in batch]
        assert sorted(name for name, _, _ in part) == [f"{i:03d}.png" for i in range(24)]
        assert {lap for _, lap, _ in part} == {0}
    assert found[:4] != found[4:8]
    order = [name for batch in found[:4] for name, _, _ in batch]
    assert order != sorted(order)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_whatever_the_number_of_workers(shards, workers):
    options = {"accumulate": 2, "data": {"shuffle_buffer": 12}}
    expected = batches(stream(shards, **options), steps=10)
    assert batches(stream(shards, **options), steps=10, workers=workers) == expected


@pytest.mark.parametrize(("start", "workers"), [(1, 0), (5, 2), (7, 0), (9, 4)])
def test_resuming_gives_the_rest(shards, start, workers):
    """Six steps an epoch, which the four lanes do not divide."""
    whole = batches(stream(shards, batch_size=4), steps=11)
    assert batches(stream(shards, batch_size=4), steps=11, start=start, workers=workers) == whole[start:]


def test_processes_read_different_shards(shards):
    parts = [batches(stream(shards, rank=rank, world=2), steps=4) for rank in range(2)]
    for epoch in range(1):
        names = [{n for batch in part[4 * epoch : 4 * epoch + 4] for n, _, _ in batch} for part in parts]
        assert not names[0] & names[1]
        assert len(names[0] | names[1]) == 24
    assert all(len(batch) == 3 for part in parts for batch in part)


def test_a_lane_begins_again_with_other_augmentation(shards):
    """An epoch said to be twice as long as the shards."""
    found = [s for batch in batches(stream(shards, data={"num_samples": 48}), steps=8) for s in batch]
    laps = {lap: sorted(name for name, of, _ in found if of == lap) for lap in (0, 1)}
    assert laps[0] == laps[1] == [f"{i:03d}.png" for i in range(24)]
    draws = {(name, lap): draw for name, lap, draw in found}
    assert all(draws[name, 0] != draws[name, 1] for name in laps[0])


def test_workers_divide_the_lanes(shards):
    found = stream(shards)
    assert found.lanes == 4
    assert [found.usable_workers(n) for n in (0, 1, 2, 3, 14)] == [0, 1, 2, 2, 4]


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (1, 2), (3, 0), (2, 2)])
def test_evaluation_counts_every_image_once(shards, world, workers):
    class Process:
        num_processes, device = world, torch.device("cpu")

    names = []
    for rank in range(world):
        Process.process_index = rank
        images = named(create_dataset(settings(shards), "eval"))
        loader = evaluation_loader(images, batch_size=5, workers=workers, accelerator=Process, collate=list)
        names += [name for batch in loader for name, _, _ in batch]
    assert sorted(names) == [f"{i:03d}.png" for i in range(24)]


def test_the_images_are_those_read_by_index(shards):
    by_index = create_dataset(settings(shards, stream=False), "eval")
    for i, (image, label) in enumerate(create_dataset(settings(shards), "eval")):
        assert torch.equal(image, by_index[i][0])
        assert label == by_index[i][1]


def test_what_the_shards_know_is_filled_in(shards):
    found = resolve_classes(settings(shards, num_classes=0))
    assert (found.num_classes, found.num_samples) == (2, 24)


def test_shards_that_a_command_writes(shards):
    pattern = f"pipe:cat {shards}/train-{{00..03}}.tar"
    elsewhere = f"{shards}/validation-*.tar"
    images = create_dataset(settings(pattern, eval_path=elsewhere, num_samples=24), "train")
    assert isinstance(images.source, TarShards)
    assert [label for _, _, label in images.source.read(1)] == [0, 1, 0, 1, 0, 1]
    next(iter(images.source.read(1)))  # and the rest is not read
    with pytest.raises(ValueError, match=r"not known before it is read.*--data.num_samples"):
        StreamedBatches(create_dataset(settings(pattern, eval_path=elsewhere), "train"), batch_size=4)
    broken = create_dataset(settings(f"pipe:cat {shards}/train-00.tar; exit 3", eval_path=elsewhere), "train")
    with pytest.raises(OSError, match=r"cat .*ended with exit status 3"):
        list(broken.source.read(0))


def test_shards_at_an_address(shards, monkeypatch):
    pytest.importorskip("aiohttp", reason="aiohttp is not installed")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(shards))
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        shards_there = settings(
            f"{address}/train-{{00..03}}.tar", eval_path=f"{shards}/validation-*.tar", num_samples=24
        )
        images = create_dataset(shards_there, "train")
        assert [label for _, _, label in images.source.read(1)] == [0, 1, 0, 1, 0, 1]
        monkeypatch.setattr(fsspec, "open", _without_its_library)
        with pytest.raises(ImportError, match=r"needs aiohttp.*litevit\[data\]"):
            next(images.source.read(0))
        server.shutdown()


def _without_its_library(*_):
    raise ImportError("HTTPFileSystem needs aiohttp")


@pytest.fixture
def hub(tmp_path) -> Path:
    datasets = pytest.importorskip("datasets", reason="the datasets package is not installed")
    rows = {"image": [Image.open(io.BytesIO(png(i))) for i in range(8)], "label": [i % 2 for i in range(8)]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["bee", "cow"])})
    table = datasets.Dataset.from_dict(rows, features=features)
    for i in range(2):
        table.shard(2, i, contiguous=True).to_parquet(tmp_path / "hub" / f"train-{i}.parquet")
    return tmp_path / "hub"


def test_hugging_face_streams_are_what_is_read_by_index(hub, tmp_path):
    data = settings(tmp_path / "cache", reader=f"hfds/{hub}", eval_split="train", num_samples=8)
    images = create_dataset(data, "eval")
    assert isinstance(images.source, HuggingFaceShards)
    assert images.classes == ("bee", "cow")
    assert count_classes(data) == 2
    by_index = create_dataset(replace(data, stream=False), "eval")
    streamed = list(images)
    assert len(streamed) == len(by_index) == 8
    for i, (image, label) in enumerate(streamed):
        assert torch.equal(image, by_index[i][0])
        assert label == by_index[i][1]
    expected = batches(StreamedBatches(named(create_dataset(data, "train")), batch_size=2), steps=6)
    again = batches(StreamedBatches(named(create_dataset(data, "train")), batch_size=2), steps=6, start=3, workers=2)
    assert again == expected[3:]
    with pytest.raises(ValueError, match="has 2 classes but the head has 5"):
        create_dataset(settings("", reader=f"hfds/{hub}", num_classes=5), "train")


def test_unreadable_images_and_labels(shards):
    with tarfile.open(shards / "train-00.tar", "w") as archive:
        add(archive, "000.png", b"no image")
        add(archive, "000.cls", b"1")
    found = list(create_dataset(settings(shards, eval_split="train"), "eval").source.read(0))
    assert [(name[-7:], label) for name, _, label in found] == [("000.png", 1)]
    images = create_dataset(settings(shards), "train")
    assert isinstance(next(iter(images)), Unreadable)
    with pytest.raises(ValueError, match=r"Cannot read .*train-00\.tar:000\.png"):
        next(iter(create_dataset(settings(shards, eval_split="train"), "eval")))
    with pytest.raises(ValueError, match=r"0..0 for a head of 1 classes, got 1 \(.*000\.png\)"):
        list(create_dataset(settings(shards, num_classes=1), "train"))


def test_wrong_shards_and_settings(shards, tmp_path):
    with pytest.raises(ValueError, match=r"4, there are 5 processes.*--data.stream False"):
        stream(shards, world=5, batch_size=10)
    with pytest.raises(ValueError, match="must not exceed"):
        stream(shards, batch_size=25)
    with pytest.raises(FileNotFoundError, match="No data at"):
        create_dataset(settings(tmp_path / "gone"), "train")
    with pytest.raises(ValueError, match="--data PATH"):
        create_dataset(settings(""), "train")
    for change, words in [
        ({"path": f"{shards}/train-*.tar", "hold_out": 0.1}, "hold_out needs data read by index"),
        ({"path": f"{shards}/train-*.tar"}, "evaluated on its training images.*--data.eval_path"),
        ({"augment": Augment(repeats=3)}, "augment.repeats needs"),
        ({"token_labels": "maps"}, "token_labels needs"),
        ({"reader": ""}, "reads shards: set data.reader"),
    ]:
        with pytest.raises(ValueError, match=words):
            create_dataset(replace(settings(shards), **change), "train")
    (shards / "train-00.tar").write_bytes((shards / "train-01.tar").read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"train-00\.tar is not a readable tar"):
        list(TarShards(str(shards), "train").read(0))
    with tarfile.open(shards / "train-00.tar", "w") as archive:
        add(archive, "0.png", png(0))
        add(archive, "1.png", png(1))
    with pytest.raises(ValueError, match=r"train-00\.tar: 0 has no label \(\.cls or \.json\) beside it"):
        list(TarShards(str(shards), "train").read(0))


def test_a_run_on_streamed_shards_continues_exactly(shards, tmp_path):
    recipe = get_recipe("quickstart")
    for path, value in {
        "model.overrides.embed_dim": 8,
        "model.overrides.depths": (1, 1, 1, 1),
        "model.overrides.num_heads": (1, 2, 2, 4),
        "data.path": str(shards),
        "data.reader": "wds",
        "data.stream": True,
        "data.num_classes": 0,
        "run.batch_size": 6,
        "run.log_every": 1,
        "run.checkpoint_every": 3,
        "run.eval_every": 2,
        "run.device": "cpu",
        "run.max_steps": 10,
    }.items():
        recipe = override(recipe, path, value)
    quiet = Console(quiet=True)
    whole = override(recipe, "run.dir", str(tmp_path / "whole"))
    train(whole, console=quiet)
    for steps, workers in ((3, 0), (6, 2), (10, 1)):  # the schedule is longer, so these are interruptions
        part = override(override(recipe, "run.dir", str(tmp_path / "parts")), "run.max_steps", steps)
        train(override(part, "run.workers", workers), console=quiet)
    rows = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "parts")
    ]
    losses = [[row["loss"] for row in each if row["kind"] == "train"] for each in rows]
    assert len(losses[0]) == 10
    assert losses[0] == losses[1]
    found = evaluate_run(tmp_path / "whole", workers=0)
    assert found.images == 24
    assert found.top1 == json.loads((tmp_path / "whole" / "result.json").read_text())["top1"]
