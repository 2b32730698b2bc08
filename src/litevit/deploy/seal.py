"""A seal on exported files whose format has no checksum: the SHA-256 of all bytes and their number, kept among their
own metadata.

Given a damaged file a runtime answers something else, or ends the process. So whoever opens a file asks first. Both are
taken with zeros in their own place, over the file and what belongs to it (OpenVINO's weights). Files without a seal are
opened as they are. So are those of another length, with a warning: simplifiers, quantisers and converters to half
precision keep the metadata, and truncated files have lost them or do not parse.
"""

import hashlib
import mmap
from collections.abc import Sequence
from pathlib import Path

from litevit.seals import BLANK as ZEROS
from litevit.seals import changed_since

MARK = b"litevit-sha256:"
DIGITS = len(ZEROS)
BLANK = MARK.decode() + ZEROS  # what the metadata say until the file is written


def put_seal(path: Path, suffixes: Sequence[str]) -> None:
    """Writes the seal of a file that has a place for it. Args: suffixes: of all files, the one with the seal first."""
    place, _, seal = _read(path, suffixes)
    assert place, "the metadata have the mark"
    with path.open("rb+") as file:
        file.seek(place)
        file.write(seal)


def check_seal(path: Path, suffixes: Sequence[str]) -> str | None:
    """What to say of a file that another program has written anew; None: it is as it was written, or has no seal.

    Raises:
        ValueError: it is damaged.
    """
    others = [path.with_suffix(suffix) for suffix in suffixes[1:]]
    if not all(other.is_file() for other in others):
        return None  # whoever opens it says so
    place, told, seal = _read(path, suffixes)
    name = " or ".join([str(path), *(other.name for other in others)])
    return changed_since(name, told.decode(errors="replace"), seal.decode(), str(damaged(name))) if place else None


def seal_of(content: bytes) -> str:
    """For files whose metadata lie behind all that they seal."""
    return MARK.decode() + hashlib.sha256(content).hexdigest()


def damaged(what: str) -> ValueError:
    """What is said of a file that does not match its seal."""
    return ValueError(
        f"{what} is truncated or damaged: the content does not match the checksum that litevit export wrote into it. "
        "Export it again, or take a copy. (Where another program has changed it on purpose, it has to take `seal` out "
        "of its metadata.)"
    )


def _read(path: Path, suffixes: Sequence[str]) -> tuple[int, bytes, bytes]:
    """Where the seal's digits stand (0: there is none), what they say, and what they should say."""
    digest, size = hashlib.sha256(), path.stat().st_size
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        place = content.find(MARK)
        if place < 0:
            return 0, b"", b""
        place += len(MARK)
        told = content[place : place + DIGITS]
        with memoryview(content) as view, view[:place] as before, view[place + len(told) :] as after:
            digest.update(before)
            digest.update(ZEROS.encode())
            digest.update(after)
    for suffix in suffixes[1:]:
        with path.with_suffix(suffix).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
        size += path.with_suffix(suffix).stat().st_size
    return place, told, f"{digest.hexdigest()}:{size:015d}".encode()
