"""Predictions on any number of images as Parquet files, by any number of processes, each image exactly once.

The images are cut into pieces (`litevit.data.many_images`), and the rows of a piece become one file, written beside
its name, flushed and renamed. So a process that was killed has left whole pieces and nothing else; the next start makes
those that are missing. Processes share nothing but the folder:

    part-000012.parquet     the rows of piece 12, in the order of its images
    _inputs-000.parquet     which images are in which piece
    _manifest.json          what the rows depend on: a start with another model is refused

`pandas.read_parquet(folder)` and `pyarrow.dataset.dataset(folder)` read the folder as one table, as Spark does: they
pass over names that begin with an underscore.
"""

import json
import queue
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock

from litevit.checkpoints.files import Pathlike
from litevit.data.many_images import (
    PIECE,
    Item,
    Piece,
    count_images,
    find_inputs,
    parquet,
    plan_pieces,
    readable_parquet,
)
from litevit.files import read_json, remove_temporaries, whole_file, write_json
from litevit.jobs.predict_rows import Row, RowPredictor

SCHEMA = 1  # of rows and manifest; another number cannot be continued
MANIFEST = "_manifest.json"
MAX_FAILURES = 1000
ERRORS = b"litevit_errors"  # in a file's footer: how many of its rows have one


class TooManyFailuresError(Exception):
    """More images than were allowed could not be read. What was written stays."""


@dataclass(frozen=True)
class Done:
    """What a start has done, and what there was to do for it.

    Attributes:
        images, errors: rows written by this start, and those of them with an error.
        pieces, skipped: files that this process is responsible for, and those that were there before.
    """

    images: int
    errors: int
    pieces: int
    skipped: int


def parse_shard(text: str | None) -> tuple[int, int]:
    """`i/n`, i from 0 to n - 1."""
    if text is None:
        return (0, 1)
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if match is None or int(match[1]) >= int(match[2]):
        raise ValueError(f"--shard takes i/n and counts from 0, such as 0/4, 1/4, 2/4 and 3/4; got {text}")
    return int(match[1]), int(match[2])


def predict_parquet(
    predictor: RowPredictor,
    inputs: Sequence[Pathlike],
    out: Pathlike,
    *,
    shard: tuple[int, int] = (0, 1),
    max_failures: int = MAX_FAILURES,
    rows_per_file: int | None = None,
    workers: int = 4,
    on_progress: Callable[[int, int], None] | None = None,
) -> Done:
    """Writes the rows of every image that has none yet.

    Args:
        predictor: of `open_predictor`.
        inputs: see `find_inputs`.
        out: the folder; a second start into it goes on with the first one's work.
        shard: (i, n): this process does every n-th piece, from the i-th. Other processes may have another n, at other
            times.
        max_failures: images of this shard that may have an error, those of earlier starts counted.
        rows_per_file: images of a piece; None: what the folder has, else 1024, or fewer where n processes would not
            have a piece each.
        workers: threads that read and decode while the model works.
        on_progress: called with images done and images to do.

    Raises:
        ValueError: the folder has results of another model or other options.
        TooManyFailuresError: the whole pieces are written.
    """
    if workers < 1 or max_failures < 0 or (rows_per_file is not None and rows_per_file < 1):
        raise ValueError(
            f"workers and rows_per_file must be at least 1 and max_failures at least 0, got {workers}, {rows_per_file} "
            f"and {max_failures}"
        )
    out = Path(out)
    own = plan(predictor, inputs, out, shard=shard, rows_per_file=rows_per_file)
    missing = [piece for piece in own if not part(out, piece).exists()]
    missing_numbers = {piece.number for piece in missing}
    failed = sum(_errors_in(part(out, piece)) for piece in own if piece.number not in missing_numbers)
    total = sum(piece.count for piece in missing)
    images = errors = 0
    for piece, rows in predict_pieces(
        predictor, missing, workers=workers, allowed=max_failures - failed, on_progress=on_progress, total=total
    ):
        bad = write_part(predictor, out, piece, rows)
        images, errors = images + len(rows), errors + bad
    return Done(images, errors, len(own), len(own) - len(missing))


def plan(
    predictor: RowPredictor,
    inputs: Sequence[Pathlike],
    out: Path,
    *,
    shard: tuple[int, int] = (0, 1),
    rows_per_file: int | None = None,
) -> list[Piece]:
    """Makes or checks the folder's manifest and lists. Returns: the pieces of the shard, those that are done too."""
    parquet()  # missing? say so before anything is made
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; --out is the folder of the results")
    found = find_inputs(inputs, without=out)
    size = rows_per_file or min(PIECE, max(1, -(-count_images(found) // shard[1])))
    if not (out / MANIFEST).exists() and out.is_dir() and any(out.glob("*.parquet")):
        raise ValueError(f"{out} has Parquet files and no {MANIFEST}: give a folder of its own to these predictions")
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(out / ".manifest.lock"):
        remove_temporaries(out / MANIFEST)  # of a start that was killed
        size = _check_manifest(out / MANIFEST, predictor, size, given=rows_per_file)
    return plan_pieces(found, out, size, shard=shard)


def _check_manifest(path: Path, predictor: RowPredictor, size: int, *, given: int | None) -> int:
    """Writes the manifest, or compares with the one that is there. Returns: images of a piece."""
    mine = {"schema": SCHEMA, **predictor.about, "columns": ["path", "error", *predictor.columns]}
    mine = json.loads(json.dumps(mine))  # as it comes back from a file
    if not path.exists():
        write_json(
            path, {**mine, "rows_per_file": size, "litevit": sys.modules["litevit"].__version__}, indent=1, sync=True
        )
        return size
    there = read_json(path)
    listed: Any = there.get("rows_per_file") if isinstance(there, dict) else None
    if type(listed) is not int or listed < 1:
        raise ValueError(
            f"{path} is no manifest of litevit predict: rows_per_file must be at least 1, got {listed!r:.60}"
        )
    size = listed
    for key, value in mine.items():
        if there.get(key) != value:
            raise ValueError(
                f"{path.parent} has {_difference(key, there.get(key), value)}: predict into another folder"
            )
    if given not in (None, size):
        raise ValueError(f"{path.parent} has {size} rows per file, not {given}: leave the option out")
    return size


def _difference(key: str, there: Any, mine: Any) -> str:
    if key == "schema":
        return f"results of schema {there!r:.60}, this version writes {mine}"
    if key in ("model", "task"):
        return f"results of another {key}, {there!s:.60}, not {mine}"
    if key == "weights":
        return f"results of other weights (sha256 {str(there)[:12]}, not {str(mine)[:12]})"
    if isinstance(there, dict) and isinstance(mine, dict):
        name = next(name for name in (*mine, *there) if there.get(name) != mine.get(name))
        return f"results of another {name}, {there.get(name)!s:.60}, not {mine.get(name)!s:.60}"
    return f"results with other {key}"


def part(out: Path, piece: Piece) -> Path:
    return out / f"part-{piece.number:06d}.parquet"


def write_part(predictor: RowPredictor, out: Path, piece: Piece, rows: Sequence[Row]) -> int:
    """Writes a piece. Returns: how many of its rows have an error."""
    import pyarrow as pa

    errors = sum(row["error"] is not None for row in rows)
    schema = predictor.schema().with_metadata({ERRORS: str(errors).encode()})
    target = part(out, piece)
    remove_temporaries(target)
    with whole_file(target, sync=True, fails_with=(pa.ArrowException,)) as temporary:
        parquet().write_table(pa.Table.from_pylist(list(rows), schema=schema), temporary, compression="zstd")
    return errors


def _errors_in(path: Path) -> int:
    with readable_parquet(path):
        told = (parquet().read_schema(path).metadata or {}).get(ERRORS, b"0")
        if not re.fullmatch(rb"\d{1,18}", told):
            raise ValueError(f"it says that {told!r:.60} of its rows have an error")
        return int(told)


# ----------------------------------------------------------------- pipeline


def predict_pieces(
    predictor: RowPredictor,
    pieces: Iterable[Piece],
    *,
    workers: int = 4,
    allowed: int = MAX_FAILURES,
    on_progress: Callable[[int, int], None] | None = None,
    total: int = 0,
) -> Iterator[tuple[Piece, list[Row]]]:
    """The rows of every piece. Threads read and decode ahead: two batches, and two images for each of them.

    Args:
        allowed: rows that may have an error.

    Raises:
        TooManyFailuresError: there was one more; the piece it is in is lost.
    """
    pieces = list(pieces)
    done = failed = 0
    stream = prepared(predictor, (item for piece in pieces for item in piece.read()), workers=workers)
    for piece in pieces:
        rows: list[Row] = []
        # No batch has images of two pieces: a row depends on its piece alone, to the last bit, wherever a start begins.
        for batch in _batches(islice(stream, piece.count), predictor.batch_size):
            for row in _answered(predictor, batch):
                rows.append(row)
                if row["error"] is not None and (failed := failed + 1) > allowed:
                    raise TooManyFailuresError(
                        f"{row['error']} (the limit of images with an error is reached; see --max-failures)"
                    )
            if on_progress is not None:
                on_progress(done + len(rows), total)
        assert len(rows) == piece.count, "a piece gave fewer images than it counts"
        done += len(rows)
        yield piece, rows


def _batches(stream: Iterator[tuple[str, Any]], size: int) -> Iterator[list[tuple[str, Any]]]:
    """Images with their names; what could not be read is an exception, and counts for no batch."""
    batch: list[tuple[str, Any]] = []
    images = 0
    for name, image in stream:
        batch.append((name, image))
        images += not isinstance(image, Exception)
        if images == size or len(batch) == 4 * size:
            yield batch
            batch, images = [], 0
    if batch:
        yield batch


def _answered(predictor: RowPredictor, batch: Sequence[tuple[str, Any]]) -> Iterator[Row]:
    images = [image for _, image in batch if not isinstance(image, Exception)]
    answers = iter(predictor.answer(images) if images else ())
    for name, image in batch:
        if isinstance(image, Exception):
            yield predictor.row(name, None, str(image))
        else:
            yield predictor.row(name, next(answers))


def prepared(predictor: RowPredictor, items: Iterable[Item], *, workers: int) -> Iterator[tuple[str, Any]]:
    """Every item's name and image in order, or the exception that says why there is none.

    One thread reads on (tar and Parquet files are read front to back), `workers` threads decode: Pillow lets go of
    Python's lock for that.
    """

    def prepare(item: Item) -> Any:
        try:
            if item.content is None:
                raise ValueError(f"{item.path} is empty")
            return predictor.prepare(item.content, item.path)
        except (ValueError, OSError) as error:
            return error

    ahead: queue.Queue[tuple[str, Future] | Exception | None] = queue.Queue(2 * predictor.batch_size + 2 * workers)
    stop = threading.Event()

    def feed(pool: ThreadPoolExecutor) -> None:
        try:
            for item in items:
                if stop.is_set():
                    return
                ahead.put((item.path, pool.submit(prepare, item)))
            ahead.put(None)
        except Exception as error:  # a source that cannot be read on; raised where the rows are asked for
            ahead.put(error)

    with ThreadPoolExecutor(workers) as pool:
        feeder = threading.Thread(target=feed, args=(pool,), daemon=True)
        feeder.start()
        try:
            while (found := ahead.get()) is not None:
                if isinstance(found, Exception):
                    raise found
                name, future = found
                yield name, future.result()
        finally:
            stop.set()
            while feeder.is_alive():  # it may wait for room
                with suppress(queue.Empty):
                    ahead.get(timeout=0.05)
            pool.shutdown(cancel_futures=True)
