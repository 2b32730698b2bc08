"""Pictures: whether they can be decoded, how they are stored, and whether one is there twice."""

import hashlib
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from litevit.data.doctor.report import Notes, Severity
from litevit.data.images import Header, ImageError, decode

MISSING = "missing"
THREADS = min(8, os.cpu_count() or 1)  # images are decoded outside Python's lock
AHEAD = 64  # pictures that are read before they are asked for
UNUSUAL = {
    "I": "16-bit pictures (read as 8-bit)", "I;16": "16-bit pictures (read as 8-bit)",
    "I;16B": "16-bit pictures (read as 8-bit)", "F": "pictures of floats (read as 8-bit)",
    "RGBA": "pictures with alpha (read on white)", "LA": "pictures with alpha (read on white)",
    "PA": "pictures with alpha (read on white)", "CMYK": "CMYK pictures (read as RGB)",
}  # fmt: skip


@dataclass(frozen=True)
class Picture:
    path: Path
    problem: str | None = None
    header: Header | None = None
    mode: str = ""
    frames: int = 1
    digest: str = ""  # of the file's bytes

    @property
    def size(self) -> tuple[int, int] | None:
        return self.header.size if self.header else None


def look(path: Path) -> Picture:
    return _look_at(path, path.read_bytes) if path.is_file() else Picture(path, problem=MISSING)


def _look_at(path: Path, read: Callable[[], bytes]) -> Picture:
    try:
        content = read()
        header, mode, frames = decode(content, name=str(path))
    except (ImageError, OSError) as error:
        return Picture(path, problem=getattr(error, "reason", str(error)))
    return Picture(path, None, header, mode, frames, hashlib.sha256(content).hexdigest())


def in_threads(function: Any, items: Iterable[Any]) -> Iterator[Any]:
    """`map` in threads, in order, a few ahead: results do not pile up."""
    source = iter(items)
    with ThreadPoolExecutor(THREADS) as pool:
        waiting = deque(pool.submit(function, item) for item in islice(source, AHEAD))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(source, 1))
            yield result


class Album:
    """Every picture once, however many annotation files list it."""

    def __init__(self, notes: Notes):
        self.notes = notes
        self._seen: dict[Path, Picture] = {}
        self.splits: dict[str, list[Picture]] = {}

    def look_at(self, split: str, paths: Sequence[Path]) -> list[Picture]:
        """The pictures, in the order of the paths; what is wrong with them is noted once."""
        fresh = [path for path in dict.fromkeys(paths) if path not in self._seen]
        self.notes.count("images", len(fresh))
        for picture in in_threads(look, fresh):
            self._seen[picture.path] = picture
            self.splits.setdefault(split, []).append(picture)
            self._note(picture)
        return [self._seen[path] for path in paths]

    def look_into(self, split: str, reader: Any) -> None:
        """The pictures of a reader, which are no files of their own: in tars, shards, Hugging Face's tables."""
        self.notes.count("images", len(reader))

        def one(index: int) -> Picture:
            content = reader[index][0]
            if isinstance(content, bytes):
                read: Callable[[], bytes] = partial(bytes, content)
            else:
                read = content.read if hasattr(content, "read") else Path(content).read_bytes
            return _look_at(Path(reader.filename(index)), read)

        for picture in in_threads(one, range(len(reader))):
            self.splits.setdefault(split, []).append(picture)
            self._note(picture, shown=False)

    def _note(self, picture: Picture, *, shown: bool = True) -> None:
        place = picture.path if shown else None  # a picture that the page can open
        if picture.problem == MISSING:
            self.notes.error("missing images", picture.path)
        elif picture.problem is not None:
            self.notes.error("broken images", f"{picture.path}: {picture.problem}")
        else:
            assert picture.header is not None
            height, width = picture.header.upright_size
            self.notes.report.sizes[width, height] += 1
            if picture.mode in UNUSUAL:
                self.notes.warning(UNUSUAL[picture.mode], picture.path, place)
            if picture.frames > 1:
                self.notes.warning("animations (the first frame is read)", picture.path, place)

    def note_copies(self) -> None:
        """The same bytes in two splits are an error: what is tested was trained on. Within one they are odd."""
        seen: dict[str, tuple[str, Path]] = {}
        for split, pictures in self.splits.items():
            for picture in pictures:
                if not picture.digest:
                    continue
                if picture.digest not in seen:
                    seen[picture.digest] = (split, picture.path)
                    continue
                other_split, other = seen[picture.digest]
                kind = "the same image in two splits" if other_split != split else "the same image twice in a split"
                severity: Severity = "error" if other_split != split else "warning"
                place = picture.path if picture.path.is_file() else None
                self.notes.add(severity, kind, f"{other} and {picture.path}", place)


def turn_of(header: Header, stated: tuple[Any, ...], squares: bool) -> int:
    """How annotations have to be turned, as `read_annotated` has it.

    Args:
        squares: whether those of squares and half turns mean the upright picture.
    """
    upright = squares if header.is_ambiguous else stated == header.upright_size
    return 1 if upright else header.orientation


def note_turned(
    notes: Notes, picture: Picture, stated: tuple[int, int] | None, what: str, squares: bool = False
) -> bool:
    """EXIF turns the picture of an annotation. Returns: whether the stated size fits neither way."""
    header = picture.header
    if header is None:
        return False
    if header.orientation != 1:
        upright = stated is not None and turn_of(header, stated, squares) == 1
        meant = "mean the upright picture" if upright else "mean the stored pixels and are turned with it"
        said = f"{picture.path} (EXIF orientation {header.orientation}): its {what} are taken to {meant}"
        notes.warning("annotated pictures that EXIF turns", said, picture.path)
    return stated is not None and stated not in (header.size, header.upright_size)


def note_repeated(notes: Notes, problem: str, where: object, values: Iterable[Any], severity: Severity) -> None:
    for value, times in Counter(values).items():
        if times > 1:
            notes.add(severity, problem, f"{where}: {value}, {times} times")
