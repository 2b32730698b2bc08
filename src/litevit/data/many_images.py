"""More images than one start gets through: folders, lists, tar shards and Parquet files, cut into pieces.

What is in a piece is written down when it is first seen (`_inputs-000.parquet` in the folder of the results), so a
piece means the same images to every later start and to every process of a job array. Images that come later are pieces
of their own, in a further list.
"""

import contextlib
import glob
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from filelock import FileLock

from litevit.data.class_folders import hidden_path
from litevit.data.images import READABLE, is_image
from litevit.data.tars import members
from litevit.files import remove_temporaries, whole_file

Pathlike = str | os.PathLike
PIECE = 1024  # images of a piece, at most, unless the caller says otherwise
LISTS, CONTAINERS = (".txt", ".lst"), (".tar", ".parquet")
PATHS = ("path", "file", "filename", "file_name", "image_path")  # names of a Parquet column that says where images are
CONTENTS = ("image", "bytes", "jpg", "png", "content")  # ... that holds the images' files


def parquet() -> Any:
    """pyarrow's Parquet functions."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("Parquet files need pyarrow: pip install 'litevit[parquet]'") from error
    return pyarrow.parquet


class Item(NamedTuple):
    """An undecoded image."""

    path: str  # its name in the results: a file, or FILE.tar:MEMBER, or FILE.parquet:ROW
    content: bytes | str | None  # the file's content, or where it lies; None: a row that has neither


class Input(NamedTuple):
    """An image file, or a run of images inside a tar or Parquet file."""

    path: str
    first: int | None = None  # None: an image file
    images: int = 1


@dataclass(frozen=True)
class Piece:
    """Images whose results make one file."""

    number: int
    inputs: tuple[Input, ...]

    @property
    def count(self) -> int:
        return sum(one.images for one in self.inputs)

    def read(self) -> Iterator[Item]:
        """Its images in order; `count` of them whatever is wrong with the files.

        Raises:
            ValueError: a tar or Parquet file is not what it was when the piece was made.
        """
        for one in self.inputs:
            if one.first is None:
                yield Item(one.path, one.path)
            elif one.path.lower().endswith(".tar"):
                yield from _read_tar(one)
            else:
                yield from _read_parquet(one)


# ------------------------------------------------------------------ finding


def find_inputs(inputs: Iterable[Pathlike], *, without: Path | None = None) -> list[Input]:
    """Every image once, in the order of the inputs; of a folder sorted by path.

    Args:
        inputs: image files, folders (their images; where there are none their tar and Parquet files), patterns with
            `*`, lists of images (`.txt`, a path per line), tar shards, Parquet files with a column of paths or images.
        without: a folder in which nothing is looked for: that of the results.

    Raises:
        FileNotFoundError: a path, a pattern or a folder gives nothing.
        ValueError: a file is none of these.
    """
    found: dict[str, None] = {}
    for given in inputs:
        for path in expand([given]):
            for file in _below(Path(path), without) if os.path.isdir(path) else _listed(path):
                found.setdefault(file)
    if not found:
        raise ValueError("Nothing to predict: give images, folders, lists, tar shards or Parquet files")
    measured = [one for one in map(_measured, found) if one.images]
    if not measured:
        raise ValueError(
            f"No images in {next(iter(found))}" + (f" and {len(found) - 1} more" if len(found) > 1 else "")
        )
    return measured


def expand(inputs: Iterable[Pathlike]) -> list[str]:
    """What is there under these paths, and what patterns such as `photos/**/*.jpg` match, sorted.

    Raises:
        FileNotFoundError: nothing is.
    """
    found: list[str] = []
    for given in (os.fspath(path) for path in inputs):
        if os.path.exists(given):
            found.append(given)
        elif any(sign in given for sign in "*?["):
            if not (matched := sorted(glob.glob(given, recursive=True))):
                raise FileNotFoundError(f"Nothing matches {given}")
            found += matched
        else:
            address = re.match(r"[a-z][a-z0-9+]+:/", given)  # a Path has one slash left of two
            hint = ". Pictures are not fetched from the network: save it as a file" if address else ""
            raise FileNotFoundError(f"{given} does not exist{hint}")
    return found


def _below(folder: Path, without: Path | None) -> list[str]:
    """Of a folder; not what is hidden, and not what results have been written to."""
    images, containers = [], []
    for root, folders, files in os.walk(folder):
        inside = Path(root)
        folders[:] = sorted(name for name in folders if not hidden_path(name) and inside / name != without)
        if without is not None and inside.resolve() == without.resolve():
            folders.clear()
            continue
        for name in files:
            if is_image(name):
                images.append(str(inside / name))
            elif name.lower().endswith(CONTAINERS) and not name.startswith((".", "_")):
                containers.append(str(inside / name))
    if not images and not containers:
        raise FileNotFoundError(f"No images in the folder {folder} ({READABLE}), and no .tar or .parquet files")
    return sorted(images or containers)


def _listed(path: str) -> list[str]:
    """The files that a list names; any other file is itself."""
    if not path.lower().endswith(LISTS):
        return [path]
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a list of paths in UTF-8, one per line") from None
    names = [line for line in lines if line and not line.startswith("#")]
    if not names:
        raise ValueError(f"{path} lists no images: one path per line is expected")
    if not os.path.exists(names[0]) and (Path(path).parent / names[0]).exists():  # it lies beside its images
        return [str(Path(path).parent / name) for name in names]
    return names


def _measured(path: str) -> Input:
    if path.lower().endswith(".tar"):
        return Input(path, 0, len(_members(path, os.stat(path).st_mtime_ns)))
    if path.lower().endswith(".parquet"):
        _column(path)  # says at once where nothing in it can be an image
        return Input(path, 0, _opened(path).metadata.num_rows)
    return Input(path)


# ------------------------------------------------------------------ reading


@lru_cache(maxsize=4)
def _members(path: str, changed: int) -> list[tuple[str, int, int]]:
    """Images in a tar: name, where the content begins, its length. Args: changed: of the file, for the cache."""
    return [(one.name, one.offset_data, one.size) for one in members(path) if is_image(one.name)]


def _read_tar(one: Input) -> Iterator[Item]:
    assert one.first is not None
    found = _members(one.path, os.stat(one.path).st_mtime_ns)[one.first : one.first + one.images]
    if len(found) != one.images:
        raise ValueError(_changed(one.path))
    with open(one.path, "rb") as file:
        for name, offset, size in found:
            file.seek(offset)
            yield Item(f"{one.path}:{name}", file.read(size))


def _changed(path: str) -> str:
    return f"{path} has fewer images than at the first start: predict it into another folder"


@contextlib.contextmanager
def readable_parquet(path: Pathlike) -> Iterator[None]:
    """Whatever pyarrow raises of a damaged file is one ValueError."""
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        said = str(error).partition("\n")[0][:200] or type(error).__name__
        raise ValueError(f"{path} is not a readable Parquet file: {said}") from None


def _opened(path: str) -> Any:
    with readable_parquet(path):
        file = parquet().ParquetFile(path)
        if file.metadata.num_rows > max(os.stat(path).st_size, 1_000_000):
            raise ValueError(f"it claims {file.metadata.num_rows:,} rows in {os.stat(path).st_size:,} bytes")
        return file


def _column(path: str) -> tuple[str, Literal["path", "bytes", "struct"]]:
    """Which column has the images, and how."""
    import pyarrow as pa

    file = _opened(path)
    with readable_parquet(path):
        kinds: dict[str, Any] = {field.name: field.type for field in file.schema_arrow}

    def text(kind: Any) -> bool:
        return pa.types.is_string(kind) or pa.types.is_large_string(kind)

    def binary(kind: Any) -> bool:
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    def encoded(kind: Any) -> bool:  # as Hugging Face's data sets store images
        return pa.types.is_struct(kind) and {"bytes", "path"} <= {kind.field(i).name for i in range(kind.num_fields)}

    ordered = sorted(kinds, key=lambda name: (*CONTENTS, name).index(name))
    for name in ordered:
        if encoded(kinds[name]):
            return name, "struct"
        if binary(kinds[name]):
            return name, "bytes"
    for name in (*PATHS, *CONTENTS):
        if name in kinds and text(kinds[name]):
            return name, "path"
    raise ValueError(
        f"{path} has no column of images ({', '.join(CONTENTS)}: bytes) or of paths ({', '.join(PATHS)}: texts), but "
        + ", ".join(f"{name} ({kind})" for name, kind in kinds.items())[:500]
    )


def _read_parquet(one: Input) -> Iterator[Item]:
    assert one.first is not None
    file = _opened(one.path)
    if file.metadata.num_rows < one.first + one.images:
        raise ValueError(_changed(one.path))
    column, kind = _column(one.path)
    begin = 0
    left = one.images
    for group in range(file.num_row_groups):
        with readable_parquet(one.path):
            end = begin + file.metadata.row_group(group).num_rows
        low, high = max(one.first, begin), min(one.first + one.images, end)
        number = begin
        batches = iter(file.iter_batches(64, row_groups=[group], columns=[column]) if low < high else ())
        while True:
            with readable_parquet(one.path):
                if (batch := next(batches, None)) is None:
                    break
                skip, keep = max(low - number, 0), min(high - number, len(batch))
                cells = batch.column(0)[skip : max(keep, skip)].to_pylist()
            for row, cell in enumerate(cells, number + skip):
                yield _cell(one.path, row, cell, kind)
            left -= len(cells)
            number += len(batch)
        begin = end
    if left:
        raise ValueError(f"{one.path} is not a readable Parquet file: {left} of its rows are missing")


def _cell(file: str, row: int, cell: Any, kind: str) -> Item:
    if kind == "struct" and cell is not None:
        cell = cell["bytes"] if cell["bytes"] is not None else cell["path"]
    if kind != "path":
        return Item(f"{file}:{row}", cell)
    if cell is not None and not os.path.exists(cell) and (beside := Path(file).parent / cell).exists():
        cell = str(beside)
    return Item(f"{file}:{row}" if cell is None else cell, cell)


# ------------------------------------------------------------------- pieces


def plan_pieces(inputs: Sequence[Input], folder: Path, size: int, *, shard: tuple[int, int] = (0, 1)) -> list[Piece]:
    """The pieces of one process: what earlier starts have listed in `folder`, and what is new.

    Args:
        inputs: of `find_inputs`.
        size: images of a piece, at most.
        shard: (i, n): every n-th piece, from the i-th.

    Raises:
        ValueError: a tar or Parquet file has another number of images than in an earlier start.
    """
    import pyarrow as pa

    pq = parquet()
    with FileLock(folder / ".inputs.lock"):
        tables = [_read_list(file) for file in sorted(folder.glob("_inputs-*.parquet"))]
        known = pa.concat_tables(tables) if tables else None
        listed = {} if known is None else _listed_paths(known)
        _check_unchanged(inputs, listed)
        if fresh := [one for one in inputs if one.path not in listed]:
            start = 0 if known is None else max(known["piece"].to_pylist(), default=-1) + 1
            rows = [(piece, *one) for piece, part in enumerate(_cut(fresh, size), start) for one in part]
            columns = list(zip(*rows))
            table = pa.table(
                {name: pa.array(list(column), kind) for (name, kind), column in zip(_list_schema(pa), columns)}
            )
            target = folder / f"_inputs-{len(tables):03d}.parquet"
            remove_temporaries(target)
            with whole_file(target, sync=True) as temporary:
                pq.write_table(table, temporary, compression="zstd")
            tables.append(table)
    return [piece for table in tables for piece in _pieces(table, shard)]


def _list_schema(pa: Any) -> list[tuple[str, Any]]:
    return [("piece", pa.int32()), ("path", pa.string()), ("first", pa.int64()), ("count", pa.int64())]


def _read_list(file: Path) -> Any:
    """A list that an earlier start has written. Raises ValueError where it is damaged."""
    import pyarrow as pa

    with readable_parquet(file):
        found = parquet().read_table(file)
        if [(field.name, field.type) for field in found.schema] != [(name, kind) for name, kind in _list_schema(pa)]:
            raise ValueError("its columns are not those of a list of inputs")
        for piece, path, first, count in zip(*(column.to_pylist() for column in found.columns)):
            if not (
                piece is not None
                and path is not None
                and 0 <= piece < 2**30
                and (first is None or 0 <= first < 2**40)
                and count is not None
                and 1 <= count < 2**40
                and (first is not None or count == 1)
            ):
                raise ValueError(f"it has the row {(piece, path, first, count)!r:.100}")
    return found


def _listed_paths(table: Any) -> dict[str, int | None]:
    """Every path with the images it had; None: it is an image."""
    found: dict[str, int | None] = {}
    for path, first, count in zip(*(table[name].to_pylist() for name in ("path", "first", "count"))):
        found[path] = None if first is None else max(found.get(path) or 0, first + count)
    return found


def _check_unchanged(inputs: Iterable[Input], listed: dict[str, int | None]) -> None:
    for one in inputs:
        if one.path in listed and one.first is not None and listed[one.path] != one.images:
            raise ValueError(
                f"{one.path} has {one.images} images, and had {listed[one.path]} at the first start: predict it into "
                "another folder"
            )


def _cut(inputs: Iterable[Input], size: int) -> Iterator[list[Input]]:
    """Image files are put together, up to `size`; a tar or Parquet file is cut, and shares no piece with another."""
    waiting: list[Input] = []
    for one in inputs:
        if one.first is None:
            waiting.append(one)
        if waiting and (one.first is not None or len(waiting) == size):
            yield waiting
            waiting = []
        if one.first is not None:
            for first in range(0, one.images, size):
                yield [Input(one.path, first, min(size, one.images - first))]
    if waiting:
        yield waiting


def _pieces(table: Any, shard: tuple[int, int]) -> Iterator[Piece]:
    number = -1
    inputs: list[Input] = []
    own, turns = shard
    for piece, *one in zip(*(table[name].to_pylist() for name in ("piece", "path", "first", "count"))):
        if piece % turns != own:
            continue
        if piece != number and inputs:
            yield Piece(number, tuple(inputs))
            inputs = []
        number = piece
        inputs.append(Input(*one))
    if inputs:
        yield Piece(number, tuple(inputs))


def count_images(inputs: Collection[Input]) -> int:
    return sum(one.images for one in inputs)
