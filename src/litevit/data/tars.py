"""Tar files that anybody may have made: their members, by their headers or front to back.

Nothing is unpacked: a member is a name and a place in the file. What `tarfile` lets through is refused here: sizes
below zero (which turn it in circles), beyond the file or beyond memory, holes, squeezed floods, and damaged headers
(after the first member it takes them for the end, and what lies behind would be missing without a word).
"""

import contextlib
import os
import tarfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

MOST_MEMBER = 2**28  # bytes that are read at once: an image, or all files of a sample
MOST_LABEL = 2**20
MOST_HEADER = 2**16  # of what describes a member: long names and attributes
DESCRIBING = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip
SQUEEZED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"]\0\0", b"\x28\xb5\x2f\xfd")
MOST_ENDS = 100  # reads at the end of a file
FLOOD, RATIO = 2**26, 200  # bytes that a squeezed tar may become in any case, and times its size


class _Member(tarfile.TarInfo):
    """A header whose claims have been looked at before `tarfile` acts upon them."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        if not any(buf):  # the end
            return super().frombuf(buf, encoding, errors)
        try:
            found = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None
        if found.size < 0:
            raise tarfile.ReadError(f"a member of {found.size} bytes")
        if found.type in DESCRIBING and found.size > MOST_HEADER:
            raise tarfile.ReadError(f"a header of {found.size:,} bytes")
        return found


@contextlib.contextmanager
def _readable(name: object) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
        said = str(error)[:200] or type(error).__name__
        raise ValueError(f"{name} is not a readable tar file, it is damaged or truncated: {said}.") from error


def _checked(member: tarfile.TarInfo) -> bool:
    """Whether a member is a plain file. Raises `tarfile.ReadError` for one that claims the impossible."""
    if member.size < 0:  # of a record of its own
        raise tarfile.ReadError(f"{member.name[:60]!r} of {member.size} bytes")
    if member.isfile() and member.issparse():
        raise tarfile.ReadError(f"{member.name[:60]!r} is stored with holes")
    return member.isfile()


def members(file: str | os.PathLike, *, start: int = 0, size: int | None = None) -> Iterator[tarfile.TarInfo]:
    """The plain files of an uncompressed tar, by its headers alone.

    Args:
        start, size: where the tar lies in the file, and how long it is; without a size it is the rest of it.

    Raises:
        ValueError: it cannot be read, or claims more than it holds.
    """
    length = os.stat(file).st_size - start if size is None else size
    with open(file, "rb") as source:
        with _readable(file):
            part: Any = _Part(source, start, length)
            archive: Any = tarfile.open(fileobj=part, mode="r:", tarinfo=_Member)  # noqa: SIM115
        while True:
            with _readable(file):
                member = archive.next()
                archive.members.clear()  # millions of them
                if member is None:
                    return
                plain = _checked(member)
                if plain and member.offset_data + member.size > length:
                    raise tarfile.ReadError(f"{member.name[:60]!r} of {member.size:,} bytes, beyond the end")
            if plain:
                yield member


class _Part:
    """A part of a file, as a file."""

    def __init__(self, file: BinaryIO, start: int, length: int):
        self.file, self.start, self.length, self.at = file, start, length, 0

    def tell(self) -> int:
        return self.at

    def seek(self, at: int) -> None:
        self.at = at

    def read(self, size: int) -> bytes:
        self.file.seek(self.start + self.at)
        content = self.file.read(max(min(size, self.length - self.at), 0))
        self.at += len(content)
        return content


def streamed(stream: Any, name: str) -> Iterator[tuple[tarfile.TarInfo, Callable[[int], bytes]]]:
    """The plain files of a tar, squeezed or not, that is read front to back.

    Args:
        stream: a binary file.
        name: of it, for messages.

    Yields:
        A member, and a function that reads it, up to so many bytes, while it is the last one.
    """
    counted: Any = _Counted(stream)
    with contextlib.ExitStack() as stack:
        with _readable(name):
            archive: Any = stack.enter_context(tarfile.open(fileobj=counted, mode="r|*", tarinfo=_Member))
        while True:
            with _readable(name):
                member = archive.next()
                archive.members.clear()
                if member is None:
                    return
                if member.offset_data > FLOOD + RATIO * counted.bytes:
                    raise tarfile.ReadError(f"{counted.bytes:,} bytes have become {member.offset_data:,}")
                if member.size > MOST_MEMBER and counted.start.startswith(SQUEEZED):
                    raise tarfile.ReadError(f"{member.name[:60]!r} of {member.size:,} bytes")
                plain = _checked(member)

            def read(most: int, one: tarfile.TarInfo = member) -> bytes:
                with _readable(name):
                    if one.size > most:
                        raise tarfile.ReadError(f"{one.name[:60]!r} of {one.size:,} bytes, more than {most:,}")
                    content = archive.extractfile(one)
                    assert content is not None
                    return content.read()

            if plain:
                yield member, read


class _Counted:
    """A file that knows how much of it was read."""

    def __init__(self, file: Any):
        self.file, self.bytes, self.start, self.ends = file, 0, b"", 0

    def read(self, size: int = -1) -> bytes:
        content = self.file.read(size)
        self.start = self.start or content[:8]
        self.bytes += len(content)
        self.ends += not content
        if self.ends > MOST_ENDS:  # tarfile passes over a member of any size in steps of 10 KB, also beyond the end
            raise tarfile.ReadError("unexpected end of data")
        return content
