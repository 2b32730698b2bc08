"""What a reproduction would need: files to download, data sets, disk and time. Nothing is downloaded or measured."""

import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

import torch

from litevit.checkpoints.published import ADOBE, find
from litevit.devices import hardware
from litevit.files import cache_dir
from litevit.jobs.inference import for_inference
from litevit.jobs.reproduction.found import Found
from litevit.jobs.reproduction.rows import BENCHMARKS, Row
from litevit.jobs.reproduction.run import Looked, Paths, Settings, read_record, weights_there
from litevit.zoo import build_model

TIMEOUT = 5.0  # seconds to ask a server for a size
BYTES = 4  # of a parameter
PROBE = "litv2_s"  # a model whose speed stands for all where nothing was measured yet


class File(NamedTuple):
    """A published file."""

    model: str
    name: str
    size: int
    state: Literal["there", "download", "by hand"]
    exact: bool  # whether the size is the file's own; else what its parameters take
    licence: str
    where: str  # its path, or its address


class Estimate(NamedTuple):
    rate: float  # multiply-adds per second
    by: str  # what it was found with
    seconds: dict[str, float]  # row -> time


class Plan(NamedTuple):
    rows: list[Row]  # that would be measured; the others, by their reason:
    finished: list[Row]
    left_out: dict[str, list[Row]]
    files: list[File]
    data: dict[str, Found | str | None]  # benchmark -> what is there
    free: int | None  # bytes in the cache
    estimate: Estimate | None

    @property
    def to_download(self) -> int:
        return sum(file.size for file in self.files if file.state == "download")

    @property
    def non_commercial(self) -> list[str]:
        return [file.model for file in self.files if file.licence == ADOBE]


def plan(
    rows: Sequence[Row], paths: Paths, settings: Settings, *, params: Mapping[str, int], macs: Mapping[str, int]
) -> Plan:
    """What would be done.

    Args:
        paths: of the data sets that are there; without any, all are assumed to be.
        params, macs: of each model; multiply-adds of one image.
    """
    looked = Looked(paths)
    doing: list[Row] = []
    finished: list[Row] = []
    left_out: dict[str, list[Row]] = {}
    data: dict[str, Found | str | None] = {}
    for row in rows:
        reason = row.reason
        if not reason:
            found = data[row.benchmark] = looked.at(row.benchmark)
            if paths and found is None:
                reason = f"--{str(row.option).replace('_', '-')} was not given"
            elif isinstance(found, str):
                reason = found
            elif found is not None and (record := read_record(row, settings)) and record["data"] == found.digest:
                finished.append(row)
                continue
        (left_out.setdefault(reason, []) if reason else doing).append(row)
    files = _files(list(dict.fromkeys(row.model for row in doing)), settings.weights, params)
    work = {}
    for row in doing:
        found = data[row.benchmark]
        work[row.name] = macs[row.model] * (
            found.images if isinstance(found, Found) else BENCHMARKS[row.benchmark].images
        )
    return Plan(
        doing, finished, left_out, files, data, _free(), _estimate(rows, work, macs, settings) if work else None
    )


def _files(models: Sequence[str], folder: Path | None, params: Mapping[str, int]) -> list[File]:
    files, online = [], True
    for model in models:
        entry = find(model)
        there = weights_there(model, folder)
        if there is not None:
            files.append(File(model, there.name, there.stat().st_size, "there", True, entry.licence, str(there)))
            continue
        size = None
        if entry.url is not None and online:
            size, online = _ask(entry.url)
        where = str(entry.url or entry.page)
        state: Literal["download", "by hand"] = "download" if entry.url else "by hand"
        about = BYTES * params[model] if size is None else size
        files.append(File(model, entry.filename, about, state, size is not None, entry.licence, where))
    return files


def _ask(url: str) -> tuple[int | None, bool]:
    """The size of a file, where its server says; and whether there is a network at all."""
    request = urllib.request.Request(
        url, method="HEAD", headers={"User-Agent": "litevit", "Accept-Encoding": "identity"}
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as reply:
            length = reply.headers.get("Content-Length")
            return (int(length) if length else None), True
    except urllib.error.HTTPError:
        return None, True
    except (OSError, ValueError):
        return None, False


def _free() -> int | None:
    folder = cache_dir()
    try:
        return shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free
    except (OSError, StopIteration):
        return None


def _estimate(rows: Sequence[Row], work: Mapping[str, int], macs: Mapping[str, int], settings: Settings) -> Estimate:
    here = hardware(settings.device)
    records = [record for row in rows if (record := read_record(row, settings)) and record["hardware"] == here]
    rates = [macs[r["model"]] * r["images"] / r["seconds"] for r in records if r["seconds"]]
    if rates:
        rate, by = median(rates), f"{len(rates)} rows measured here"
    else:
        rate, by = _probe(settings.device) * macs[PROBE], f"{PROBE} on random images; reading the data is left out"
    return Estimate(rate, by, {name: amount / rate for name, amount in work.items()})


@torch.inference_mode()
def _probe(device: torch.device, batch: int = 8) -> float:
    """Images per second of a small model."""
    model = for_inference(build_model(PROBE).eval(), device)
    images = torch.randn(batch, 3, 224, 224, device=device)
    best = float("inf")
    for _ in range(3):  # the first builds and warms up
        start = time.perf_counter()
        model(images).sum().item()  # waits for the device
        best = min(best, time.perf_counter() - start)
    return batch / best
