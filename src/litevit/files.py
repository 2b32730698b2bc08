"""Files that appear whole or not at all, and the folder where downloads and compiled kernels are kept."""

import errno
import functools
import glob
import hashlib
import io
import json
import math
import os
import pickle
import pickletools
import platform
import re
import shutil
import sys
import time
import uuid
import zipfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

# Windows refuses to rename over a file that a virus scanner or a reader holds open, mostly for a moment.
PATIENCE = 2.0 if sys.platform == "win32" else 0.0  # seconds


@contextmanager
def whole_file(
    path: str | os.PathLike,
    *,
    sync: bool = False,
    named: Callable[[Path], Path] | None = None,
    fails_with: tuple[type[Exception], ...] = (),
) -> Iterator[Path]:
    """Yields a temporary name beside `path`; what was written there takes the name `path` when the block ends well.

    After an error the temporary file is gone, and what was at `path` is untouched. The folder is made if missing. Where
    `path` is a symbolic link, all this is about what it points to.

    Args:
        sync: flush to the disk first: without it the name may be there after a power cut, and the content not.
        named: gives the final path once the content is known; None: `path` itself.
        fails_with: what the writer raises on a full disk besides OSError.

    Raises:
        OSError: no permission, no space, or `path` is a folder or a device.
    """
    failures: tuple[type[Exception], ...] = (OSError, *fails_with)
    path = behind_links(path)
    temporary = temporary_name(path)
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # a rename would put the file in the place of a device
            raise OSError(f"it is {'a folder' if path.is_dir() else 'no ordinary file'}")
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if sync:
            flush(temporary)
        put_in_place(temporary, named(temporary) if named else path)
        if sync:
            _sync_folder(path.parent)
    except failures as error:
        reason = getattr(error, "strerror", None) or str(error)
        if not isinstance(error, OSError) and _is_full(path.parent):  # PyTorch's writer has words of its own for it
            reason = os.strerror(errno.ENOSPC)
        raise OSError(
            f"Cannot write {path}: {reason}{_space(path.parent)}. What was there before is untouched."
        ) from error
    finally:
        with suppress(OSError):  # it is not there, or cannot be
            temporary.unlink()


def behind_links(path: str | os.PathLike) -> Path:
    """What is written when `path` is: a symbolic link stays one, as with `open`, and what it points to is replaced."""
    return Path(os.path.realpath(path) if os.path.islink(path) else path)


def flush(path: Path) -> None:
    """Returns when the file's content is on the disk."""
    with open(path, "rb+") as file:  # Windows flushes only what may be written
        os.fsync(file.fileno())


def temporary_name(path: Path) -> Path:
    """A hidden name in the same folder that no other process or thread takes; it ends in `.tmp`."""
    return path.with_name(f".{path.name[:60]}.{os.getpid()}-{_here()}{uuid.uuid4().hex[:8]}.tmp")


TEMPORARY = re.compile(r"\..+\.(\d+)-([0-9a-f]{6})?[0-9a-f]{8}\.tmp")


@functools.cache
def _here() -> str:
    """Stands for this machine, and the container if it is one: where a process id means one process."""
    try:
        processes = os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        processes = ""
    return hashlib.sha256(f"{platform.node()} {processes}".encode()).hexdigest()[:6]


def remove_temporaries(path: Path) -> None:
    """What processes that were killed have left of `path`. Nobody else may be writing it."""
    for left in path.parent.glob(f".{glob.escape(path.name[:60])}.*-*.tmp"):
        _remove(left)


def remove_abandoned(path: Path) -> None:
    """As `remove_temporaries`, where others may be writing: only what processes of this machine have left that are
    gone."""
    for left in path.parent.glob(f".{glob.escape(path.name[:60])}.*-*.tmp"):
        match = TEMPORARY.fullmatch(left.name)
        if match and match[2] == _here() and not _alive(int(match[1])):
            _remove(left)


def remove_all_temporaries(folder: Path) -> None:
    """As `remove_temporaries`, of every file in a folder."""
    for left in folder.glob(".*.tmp"):
        if TEMPORARY.fullmatch(left.name):
            _remove(left)


def _remove(left: Path) -> None:
    with suppress(OSError):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink()


def _alive(process: int) -> bool:
    if os.name != "posix":  # to ask would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def put_in_place(temporary: Path, path: Path) -> None:
    """Renames, over what may be there."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return os.replace(temporary, path)
        except PermissionError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.05)


def write_text(path: str | os.PathLike, text: str, *, sync: bool = False) -> None:
    """UTF-8 with newlines as given, on every system; halves of surrogate pairs, which JSON can hold, become `?`."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    with whole_file(path, sync=sync) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def parse_json(content: str | bytes, name: object) -> Any:
    """JSON that somebody else may have written. Args: name: what messages call it.

    Raises:
        ValueError: it is no JSON, nested too deep, or has a number of thousands of digits.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError(f"{name} is not JSON that can be read: it is nested too deep") from None
    except ValueError as error:  # of UTF-8 and of numbers too
        raise ValueError(f"{name} is not JSON: {error}") from None


MOST_JSON = 2**26  # bytes of a recipe, a configuration, a report; a list of lists takes twenty times as much memory


def read_json(path: str | os.PathLike) -> Any:
    """As `parse_json`, of a file of no more than `MOST_JSON` bytes."""
    if (size := os.stat(path).st_size) > MOST_JSON:
        raise ValueError(f"{path} has {size:,} bytes, more than the {MOST_JSON:,} that such files may have")
    return parse_json(Path(path).read_bytes(), path)


def read_text(path: str | os.PathLike, what: str) -> str:
    """A file of UTF-8, with or without a byte order mark. Raises ValueError where it is none. Args: what: it is."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{what} {path} is not text in UTF-8: {error.reason} at byte {error.start}") from None


class ClaimError(ValueError):
    """A file claims to hold more than it does."""


class _Bounded(io.BufferedReader):
    """A file that sets no more memory aside than it holds, whatever length a pickle in it claims."""

    def __init__(self, path: str | os.PathLike):
        super().__init__(io.FileIO(path))
        self.length = os.stat(path).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(self.length - self.tell(), 0)
        return super().read(left if size is None or size < 0 else min(size, left))


@contextmanager
def torch_file(path: str | os.PathLike) -> Iterator[Any]:
    """Yields what `torch.load` is to be given, after a look at the sizes that the file claims.

    Raises:
        ClaimError: an entry of its zip is squeezed or larger than the file, or a storage is, or a byte of the zip is
            damaged, which PyTorch does not look for.
    """
    length = os.stat(path).st_size
    with open(path, "rb") as file:
        zipped = file.read(2) == b"PK"
    if not zipped:
        with _Bounded(path) as file:
            _check_claims(path, file, length)
            file.seek(0)
            yield file
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.external_attr & FOLDER:
                    raise zipfile.BadZipFile(f"{entry.filename!r:.60} is said to be a folder")
                if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > length:
                    claim = f"{entry.file_size:,} bytes for {entry.filename!r:.60}"
                    raise ClaimError(f"{path} ({length} bytes) is truncated or damaged: it claims {claim}")
                if entry.filename.endswith("/data.pkl"):
                    with archive.open(entry) as pickled, suppress(zipfile.BadZipFile):  # of its checksum, below
                        _check_claims(path, pickled, length)
            check_sums(archive)
    except (ClaimError, MemoryError):
        raise
    except Exception as error:  # zipfile raises as many kinds for a broken archive as torch does
        said = str(error)[:200] or type(error).__name__
        raise ClaimError(
            f"{path} ({length} bytes) cannot be read: it is truncated or damaged, or neither a PyTorch nor a "
            f"safetensors file ({said}). Get it anew."
        ) from None
    yield path


FOLDER = 0x10  # DOS's attribute, which miniz, PyTorch's reader, believes: it would read nothing and say nothing


def check_sums(archive: zipfile.ZipFile) -> None:
    """Raises BadZipFile where the content of an entry does not match its checksum."""
    if all(entry.CRC == 0 for entry in archive.infolist()):  # left out: torch.serialization.set_crc32_options
        return
    for entry in archive.infolist():
        with archive.open(entry) as content:
            while content.read(1 << 20):
                pass


NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4")  # of pickle's opcodes


def _check_claims(path: str | os.PathLike, file: Any, length: int) -> None:
    """Of every storage in pickles that follow one another; where there are none, whoever reads them says so."""
    for _ in range(5):  # the legacy layout has five before its storages
        if file.read(1) != pickle.PROTO:
            return
        file.seek(-1, os.SEEK_CUR)
        numbers: deque[int] = deque(maxlen=3)
        try:
            for code, value, _place in pickletools.genops(file):
                if isinstance(value, int) and code.name in NUMBERS:
                    numbers.append(value)
                elif code.name in ("BINPERSID", "PERSID") and any(number > length for number in numbers):
                    claim = f"a tensor of {max(numbers):,} numbers"
                    raise ClaimError(f"{path} ({length} bytes) is truncated or damaged: it claims {claim}")
                elif code.name in ("REDUCE", "BUILD"):
                    numbers.clear()
        except ClaimError:
            raise
        except Exception:  # no pickle, or a broken one
            return


def without_nan(value: Any) -> Any:
    """The same with None for every float that JSON does not know, at any depth of dictionaries and lists."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: str | os.PathLike, content: Any, *, indent: int | None = None, sync: bool = False) -> None:
    """A JSON file; with `indent` it ends in a newline, for people to read."""
    text = json.dumps(content, indent=indent, ensure_ascii=False)
    write_text(path, text if indent is None else text + "\n", sync=sync)


def cache_dir() -> Path:
    """Where downloads and compiled kernels are kept: `$LITEVIT_CACHE`, else `litevit` in the system's cache folder."""
    if chosen := os.environ.get("LITEVIT_CACHE"):
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    # Without author and opinion: the folders of version 0.1, on every system.
    folder = user_cache_path("litevit", appauthor=False, opinion=False)
    if not folder.is_absolute():  # no home
        raise OSError("There is no home folder to keep downloads in. Set LITEVIT_CACHE to a folder.")
    return folder


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < 2**20  # the half-written file counts
    except OSError:
        return False


def _space(folder: Path) -> str:
    """How little space there is, where that may be the reason."""
    try:
        free = shutil.disk_usage(folder).free / 2**20  # the half-written file counts
    except OSError:
        return ""
    return f" ({free:.0f} MB are free in {folder})" if free < 1024 else ""


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # Windows cannot open folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
