"""Downloads: resumable, hashed, renamed into place when complete."""

import errno
import hashlib
import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from litevit.files import put_in_place

CHUNK = 1 << 20
RETRIES = 4  # how often a transfer that breaks off is taken up again
TIMEOUT = 30.0  # seconds without a byte
PAUSE = 1.0  # seconds before the first retry; doubles


def sha256_of(path: Path) -> str:
    """Hexadecimal digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(url: str, target: Path, *, sha256: str | None = None, progress: bool = True) -> None:
    """Downloads `url` to `target`, resuming a `.part` file left by an earlier try.

    The bytes go to `<target>.part`; only a complete file with the right hash (where known) is renamed to `target`.
    """
    part = target.with_name(target.name + ".part")
    tag = target.with_name(target.name + ".part.etag")  # which version of the file the part belongs to
    by_hand = f"Or fetch {url} by other means and save it as {target}."
    with _bar(target.name, show=progress) as advance:
        for attempt in range(RETRIES + 1):
            try:
                if sha256 is None and not tag.exists() and part.exists() and part.stat().st_size:
                    _remove(part)  # nothing would tell of which version it is
                total = _transfer(url, part, tag, advance)
            except urllib.error.HTTPError as error:
                if error.code == 416:  # the part is longer than the file: not a part of it
                    _remove(part, tag)
                    continue
                if error.code in (429, 500, 502, 503, 504) and attempt < RETRIES:
                    time.sleep(PAUSE * 2**attempt)
                    continue
                raise OSError(f"{url}: the server answered {error.code} {error.reason}. {by_hand}") from None
            except urllib.error.URLError as error:
                raise OSError(f"{url}: cannot be reached ({error.reason}). Check the network. {by_hand}") from None
            except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
                if attempt < RETRIES:
                    time.sleep(PAUSE * 2**attempt)
                    continue
                raise OSError(f"{url}: cannot be read ({error!r}). Run again to resume. {by_hand}") from None
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    _remove(part, tag)
                    raise OSError(
                        errno.ENOSPC,
                        f"No space left in {target.parent} for {target.name}; nothing was kept. "
                        "Free some, or set LITEVIT_CACHE to a folder on a larger disk",
                    ) from None
                raise
            size = part.stat().st_size
            if total is None or size == total:
                break
            if size > total:
                _remove(part, tag)
        else:
            size = part.stat().st_size if part.exists() else 0
            raise OSError(f"{url}: the transfer broke off after {size} bytes. Run again to resume. {by_hand}")
    found = sha256_of(part)
    if sha256 is not None and found != sha256:
        _remove(part, tag)
        raise ValueError(f"{url}: sha256 should be {sha256}, got {found}. The file was discarded; try again.")
    put_in_place(part, target)
    _remove(tag)


def remove_parts(target: Path) -> None:
    """What a transfer that was not finished has left."""
    _remove(target.with_name(target.name + ".part"), target.with_name(target.name + ".part.etag"))


def _transfer(url: str, part: Path, tag: Path, advance) -> int | None:
    """One request, appended to `part`. Returns the size the whole file has, where the server says."""
    start = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "litevit", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if tag.exists():
            headers["If-Range"] = tag.read_text(encoding="utf-8")  # a file that changed meanwhile is sent whole
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as reply:
        if reply.headers.get_content_type() == "text/html":
            raise urllib.error.URLError("a web page came instead of the file")
        resumed = reply.status == 206
        if start and not resumed:  # the new tag must not stand beside bytes of another version, if this is killed
            _remove(part, tag)
        start = start if resumed else 0
        length = reply.headers.get("Content-Length")
        total = start + int(length) if length else None
        if total is not None and shutil.disk_usage(part.parent).free < total - start:
            raise OSError(errno.ENOSPC, "no space left")
        if etag := reply.headers.get("ETag"):
            tag.write_text(etag, encoding="utf-8")
        advance(start, total)
        with part.open("ab" if resumed else "wb") as file:
            while chunk := reply.read(CHUNK):
                file.write(chunk)
                start += len(chunk)
                advance(start, total)
            file.flush()
            os.fsync(file.fileno())
    return total


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


@contextmanager
def _bar(name: str, *, show: bool) -> Iterator:
    """Yields `advance(done, total)`; draws it on stderr where that is a terminal."""
    console = Console(stderr=True)
    hidden = not show or not console.is_terminal
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=hidden) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
