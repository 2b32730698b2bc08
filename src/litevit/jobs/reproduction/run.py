"""Measures rows one after the other. What is finished lies in a file per row, so that a run may be killed anywhere."""

import math
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from filelock import FileLock, Timeout

from litevit.checkpoints.download import sha256_of
from litevit.checkpoints.published import fetch, find
from litevit.devices import hardware
from litevit.files import cache_dir, read_json, remove_temporaries, write_json
from litevit.jobs import evaluate_dense
from litevit.jobs.dense_models import load_dense
from litevit.jobs.evaluate import Labels, evaluate
from litevit.jobs.inference import for_inference
from litevit.jobs.reproduction.found import DENSE, Found, look
from litevit.jobs.reproduction.rows import BENCHMARKS, FIGURES, Option, Row, all_rows

Verdict = Literal["pass", "off", "subset", "failed", "not asked", "not possible"]
LABELS: dict[str, Labels] = {"imagenet": "imagenet", "real": "real", "v2": "v2"}
NEAR = 0.1  # points
TABLES = ("table.md", "table.csv", "table.json")
Paths = Mapping[Option, Path]


class Result(NamedTuple):
    """A row, and what became of it: a record, or the reason why there is none."""

    row: Row
    verdict: Verdict
    record: dict[str, Any] | None = None
    reason: str = ""
    fresh: bool = False  # measured in this run


class Settings(NamedTuple):
    out: Path
    weights: Path | None = None  # a folder of published files, before the cache
    device: torch.device = torch.device("cpu")
    batch_size: int = 64
    workers: int = 4


def reproduce(
    rows: Sequence[Row],
    paths: Paths,
    settings: Settings,
    *,
    on_trouble: Callable[[str, str], None] = lambda benchmark, reason: None,
    on_row: Callable[[Result, list[Result]], None] = lambda result, so_far: None,
    on_start: Callable[[Row, Found], None] = lambda row, found: None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """Every row's result, in order. A row that cannot be measured says why, and the others go on.

    Args:
        paths: the data sets that are there.
        on_trouble: called before anything is measured, for each data set that cannot be: its key in `BENCHMARKS`, why.
        on_row: called after each row with its result and all so far.
        on_start: called before a row is measured.
        on_progress: called with the images done and to do.
    """
    with _alone(settings.out):
        looked = Looked(paths)
        for benchmark in dict.fromkeys(row.benchmark for row in rows):
            if isinstance(reason := looked.at(benchmark), str):
                on_trouble(benchmark, reason)
        results: list[Result] = []
        for row in rows:
            results.append(_run(row, looked, settings, on_start, on_progress))
            on_row(results[-1], results)
        return results


class Looked:
    """The data sets of a run, each looked at once."""

    def __init__(self, paths: Paths):
        self.paths = paths
        self.seen: dict[str, Found | str] = {}

    def at(self, benchmark: str) -> Found | str | None:
        """What is there, or why nothing can be measured on it; None: the user has not said where it is."""
        option = BENCHMARKS[benchmark].option
        if option is None or option not in self.paths:
            return None
        if benchmark not in self.seen:
            try:
                self.seen[benchmark] = look(benchmark, self.paths[option])
            except (ValueError, OSError) as error:
                self.seen[benchmark] = one_line(error)
        return self.seen[benchmark]


def _run(row: Row, looked: Looked, settings: Settings, on_start: Callable, on_progress: Callable | None) -> Result:
    if row.reason:
        return Result(row, "not possible", reason=row.reason)
    found, record = looked.at(row.benchmark), read_record(row, settings)
    if found is None:  # an earlier run may have measured it
        if record is not None:
            return Result(row, verdict(record), record)
        return Result(row, "not asked", reason=f"--{str(row.option).replace('_', '-')} was not given")
    if isinstance(found, str):
        return Result(row, "failed", reason=found)
    try:
        if record is not None and record["data"] == found.digest and _same_weights(record, row.model, settings.weights):
            return Result(row, verdict(record), record)
        weights = find_weights(row.model, settings.weights)
        on_start(row, found)
        record = measure(row, found, weights, settings, on_progress)
    # Whatever it is, it must not cost the hours of the rows behind it: it is named, and the exit code says so.
    except Exception as error:
        return Result(row, "failed", reason=one_line(error))
    write_json(_record_file(row, settings.out), record, indent=1, sync=True)
    return Result(row, verdict(record), record, fresh=True)


def measure(
    row: Row, found: Found, weights: Path, settings: Settings, on_progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """One row by its published protocol, as a record."""
    start = time.monotonic()
    options: dict[str, Any] = {"workers": min(settings.workers, os.cpu_count() or 1), "on_progress": on_progress}
    if row.benchmark in LABELS:
        result = evaluate(
            row.model, str(found.path), weights=str(weights), labels=LABELS[row.benchmark], device=settings.device,
            batch_size=settings.batch_size, **options,
        )  # fmt: skip
        values: dict[str, float] = {"top1": result.top1}
        protocol = result.protocol
    else:
        dense = load_dense(row.model, weights)
        assert dense.task == DENSE[row.benchmark][0] or row.benchmark == "coco"
        dense = dense._replace(model=for_inference(dense.model, settings.device))
        of_task = evaluate_dense.evaluate(dense, found.path, **options)
        values, protocol = of_task.metrics, of_task.protocol
    measured = {}
    for key in row.published:
        value = values.get(FIGURES[key].measured, math.nan)
        if not value >= 0:  # -1 and nan mark what has no truth
            raise ValueError(f"{FIGURES[key].title} cannot be measured: {found.path} has no truth for it")
        measured[key] = FIGURES[key].scale * value
    return {
        "row": row.name,
        "model": row.model,
        "benchmark": BENCHMARKS[row.benchmark].title,
        "published": row.published,
        "measured": measured,
        "images": found.images,
        "short": found.short,
        "protocol": protocol,
        "seconds": round(time.monotonic() - start, 1),
        "hardware": hardware(settings.device),
        "device": settings.device.type,
        "torch": torch.__version__,
        "litevit": sys.modules["litevit"].__version__,
        "data": found.digest,
        "weights": {"file": weights.name, "sha256": sha256_of(weights)},
        "finished": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def difference(record: Mapping[str, Any], key: str) -> float:
    """Measured less published, in points; both at two decimals, as figures are printed."""
    return round(round(record["measured"][key], 2) - record["published"][key], 2)


def verdict(record: Mapping[str, Any]) -> Verdict:
    """A part of a data set can be near the published figure by chance: it never passes."""
    if record["short"]:
        return "subset"
    near = all(abs(difference(record, key)) <= NEAR for key in record["published"])  # nan is not
    return "pass" if near else "off"


# ---------------------------------------------------------------- records


def _record_file(row: Row, out: Path) -> Path:
    return out / "rows" / f"{row.name.replace('/', '.')}.json"


def read_record(row: Row, settings: Settings) -> dict[str, Any] | None:
    """What an earlier run has measured with the same versions, figures and kind of device."""
    try:
        record = read_json(_record_file(row, settings.out))
    except (OSError, ValueError):  # not there, or not ours
        return None
    now = {
        "row": row.name,
        "published": row.published,
        "torch": torch.__version__,
        "litevit": sys.modules["litevit"].__version__,
        "device": settings.device.type,
    }
    return record if _is_whole(record, row) and all(record.get(key) == value for key, value in now.items()) else None


def _is_whole(record: Any, row: Row) -> bool:
    """Whether a file that anybody may have edited has what tables and verdicts are made of."""
    types: dict[str, Any] = {"seconds": int | float, "images": int, "measured": dict, "weights": dict}
    types |= dict.fromkeys(("short", "data", "protocol", "hardware"), str)
    return (
        isinstance(record, dict)
        and all(isinstance(record.get(key), kind) for key, kind in types.items())
        and all(isinstance(record["measured"].get(key), int | float) for key in row.published)
        and isinstance(record["weights"].get("sha256"), str)
    )


def _same_weights(record: Mapping[str, Any], model: str, folder: Path | None) -> bool:
    """Whether the file is the one that was measured; one that is no longer there is not fetched to be compared."""
    try:
        there = weights_there(model, folder)
    except OSError:
        return True
    return there is None or sha256_of(there) == record["weights"]["sha256"]


def weights_there(model: str, folder: Path | None) -> Path | None:
    """Where the published file lies already: in the folder, else in the cache."""
    name = find(model).filename
    places = [*([folder] if folder is not None else []), cache_dir()]
    return next((place / name for place in places if (place / name).is_file()), None)


def find_weights(model: str, folder: Path | None) -> Path:
    """The published file, from the folder, the cache or the network.

    Raises:
        ValueError: its hash is another than the published one, or than the one in `<file>.sha256` beside it.
    """
    entry = find(model)
    if folder is None or not (path := folder / entry.filename).is_file():
        return fetch(model)
    beside = path.with_name(path.name + ".sha256")
    expected = (
        entry.sha256 or (beside.read_text(encoding="utf-8").split() or [""])[0] if beside.is_file() else entry.sha256
    )
    if expected is not None and (got := sha256_of(path)) != expected:
        raise ValueError(f"{path} is not the published file: its sha256 should be {expected}, is {got}")
    return path


@contextmanager
def _alone(out: Path):  # type: ignore[no-untyped-def]
    """Nobody else writes this folder meanwhile."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / ".lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"{out} is being written by another run: wait for it, or give another --out") from None
    except OSError as error:
        raise OSError(f"Cannot write to {out}: {error.strerror or error}. Give another --out") from None
    try:
        for written in [*(out / name for name in TABLES), *(_record_file(row, out) for row in all_rows())]:
            remove_temporaries(written)  # of a run that was killed
        yield
    finally:
        lock.release()


def one_line(error: Exception) -> str:
    """What went wrong, for a cell of a table. A loader's worker sends a traceback, whose last line says it."""
    text = str(error) or type(error).__name__
    if " in DataLoader worker process " in text:
        last = [line for line in text.splitlines() if re.match(r"[\w.]+: ", line)][-1:]
        text = last[0].partition(": ")[2] if last else text
    elif isinstance(error, torch.OutOfMemoryError):
        text = "out of memory; give a smaller --batch-size, or another --device"
    elif not isinstance(error, ValueError | OSError | ImportError):
        text = f"{type(error).__name__}: {text}"
    return " ".join(text.split())
