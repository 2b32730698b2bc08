"""Files that appear beside their name only when they are complete and proven, several at a time.

An export is one to three files (OpenVINO: graph and weights; the report). They are written to a hidden folder beside
their final place and renamed into it under a lock, so that of two exports to one path the later one stands, whole.
"""

import errno
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from litevit.files import behind_links, flush, put_in_place, remove_abandoned, temporary_name

SPARE = 64 * 2**20  # bytes that a full disk has left at most
LAST = 2**20  # and one that has just been written full


@contextmanager
def staging(path: Path) -> Iterator[Path]:
    """Yields `path`'s name in a hidden folder beside it, or beside what it links to; that is gone afterwards.

    Raises:
        OSError: no folder, no permission or no space.
    """
    if path.exists() and not path.is_file() and not _is_package(path):
        raise OSError(f"Cannot write {path}: it is {'a folder' if path.is_dir() else 'no ordinary file'}.")
    real = behind_links(path)
    folder = temporary_name(real)
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except OSError as error:
        reason = f"{real.parent} is not a folder" if isinstance(error, FileExistsError) else error.strerror
        raise OSError(f"Cannot write {path}: {reason}.") from None
    try:
        yield folder / path.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(staged: Path, path: Path) -> list[Path]:
    """Moves everything beside `staged` into the folder of `path`, the file itself last but for its report."""
    files = sorted(staged.parent.iterdir(), key=lambda file: (file.name.endswith(".report.json"), file == staged))
    for file in files:
        for one in file.rglob("*") if file.is_dir() else (file,):
            if one.is_file():
                flush(one)
    with FileLock(_lock_of(path)):
        # Killed between two renames, it must leave no old graph with new weights, and no proof of another file.
        several = sum(not file.name.endswith(".report.json") for file in files) > 1
        for file in files:
            old = behind_links(path.parent / file.name)
            if old.is_file() and (file.name.endswith(".report.json") or (file == staged and several)):
                old.unlink()
        for file in files:
            _put_in_place(file, behind_links(path.parent / file.name))
    remove_abandoned(behind_links(path))
    return [path.parent / file.name for file in files]


def _is_package(path: Path) -> bool:
    """A folder that is one file to its users: Core ML's."""
    return path.suffix == ".mlpackage" and (path / "Manifest.json").is_file()


def _put_in_place(new: Path, path: Path) -> None:
    if new.stat().st_dev != path.parent.stat().st_dev:  # a link leads to another disk
        near = temporary_name(path)
        try:
            shutil.move(new, near)
            flush(near)
            return put_in_place(near, path)
        finally:
            near.unlink(missing_ok=True)
    if not path.is_dir():
        return put_in_place(new, path)
    old = temporary_name(path)  # a folder is not renamed over another
    path.rename(old)
    put_in_place(new, path)
    shutil.rmtree(old, ignore_errors=True)


def _lock_of(path: Path) -> Path:
    """In the system's temporary folder, where it disturbs nobody who lists the exported files."""
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:24]
    return Path(tempfile.gettempdir()) / f"litevit-export-{digest}.lock"


@contextmanager
def says_when_full(path: Path, size: int) -> Iterator[None]:
    """Turns whatever a writer raises on a full disk into one clear error. Args: size: bytes that will be written."""
    try:
        yield
    except (ValueError, ImportError):
        raise
    except Exception as error:
        folder = behind_links(path).parent
        free = shutil.disk_usage(folder).free if folder.exists() else 0
        if free >= max(size, LAST) and shutil.disk_usage(tempfile.gettempdir()).free < LAST:
            where = f"in {tempfile.gettempdir()}, where its converter works (TMPDIR=FOLDER names another)"
        elif free < max(size, SPARE):
            where = f"for {size / 1e6:.0f} MB in {folder} ({free / 1e6:.0f} MB are free)"
        elif isinstance(error, OSError) and error.errno == errno.ENOSPC:
            where = f"for {size / 1e6:.0f} MB in {folder} or {tempfile.gettempdir()}"
        else:
            raise
        raise OSError(f"Cannot write {path}: no space left {where}. Nothing was kept.") from error
