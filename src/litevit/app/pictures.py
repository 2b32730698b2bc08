"""The pictures that people have sent: apart from each other, bounded in number and bytes, forgotten after a while.

They are kept in memory alone. A session is a random name that the page holds in memory and sends in a header: whoever
does not know it sees none of its pictures.
"""

import io
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import NamedTuple

from PIL import Image

from litevit.data.embedded import Digits
from litevit.data.images import ImageError, read_header, read_image
from litevit.data.scenes import ScenesConfig, draw_scene

MOST_BYTES = 32 * 2**20  # of a file
MOST_PIXELS = 50_000_000
MOST_SEARCHED = 4_000_000  # pixels that detectors and segmenters get: some look at every pixel, masks are as large
DISPLAYED = 1600  # longest side of what the browser gets to draw


class GoneError(LookupError):
    """A session or a picture that is not, or no longer, here."""


@dataclass(frozen=True)
class Picture:
    """A picture as sent, upright RGB."""

    id: str
    name: str  # of its file
    image: Image.Image

    @property
    def memory(self) -> int:
        """Bytes of its pixels."""
        count = self.image.width * self.image.height
        return 3 * (count if count <= MOST_SEARCHED else count + MOST_SEARCHED)

    @cached_property
    def reduced(self) -> Image.Image:
        """As dense models get it: `image`, or a smaller one of `MOST_SEARCHED` pixels."""
        width, height = self.image.size
        if width * height <= MOST_SEARCHED:
            return self.image
        scale = (MOST_SEARCHED / (width * height)) ** 0.5
        size = (max(int(width * scale), 1), max(int(height * scale), 1))
        return self.image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)

    def displayed_size(self) -> tuple[int, int]:
        """Width and height of what the browser draws."""
        scale = min(DISPLAYED / max(self.image.size), 1.0)
        return max(round(self.image.width * scale), 1), max(round(self.image.height * scale), 1)

    def displayed(self) -> bytes:
        """A PNG of small pictures (their pixels count), a JPEG of others."""
        size = self.displayed_size()
        image = self.image if size == self.image.size else self.image.resize(size, Image.Resampling.BILINEAR)
        return as_png(image) if max(size) <= 512 else _saved(image, "JPEG", quality=92)


@dataclass
class _Session:
    pictures: "OrderedDict[str, Picture]" = field(default_factory=OrderedDict)
    used: float = 0.0


class Pictures:
    """Sessions and their pictures, the least recently used forgotten first.

    Args:
        sessions, per_session, memory: how many sessions, pictures of one, and bytes of pixels of all are kept.
        idle: seconds without a request after which a session is forgotten.
        clock: for tests.
    """

    def __init__(
        self,
        *,
        sessions: int = 64,
        per_session: int = 8,
        memory: int = 2**29,
        idle: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._most = (sessions, per_session, memory)
        self._idle = idle
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    def open(self) -> str:
        """A new session."""
        name = secrets.token_urlsafe(18)
        with self._lock:
            self._sessions[name] = _Session(used=self._clock())
            self._forget()
        return name

    def check(self, session: str) -> None:
        """Raises GoneError where there is no such session; otherwise it counts as used now."""
        with self._lock:
            self._find(session)

    def add(self, session: str, image: Image.Image, name: str) -> Picture:
        picture = Picture(secrets.token_urlsafe(9), name, image)
        with self._lock:
            pictures = self._find(session).pictures
            pictures[picture.id] = picture
            while len(pictures) > self._most[1]:
                pictures.popitem(last=False)
            self._forget()
        return picture

    def get(self, session: str, picture: str) -> Picture:
        with self._lock:
            pictures = self._find(session).pictures
            if picture not in pictures:
                raise GoneError("This picture is no longer kept: drop it again.")
            pictures.move_to_end(picture)
            return pictures[picture]

    def memory(self) -> int:
        """Bytes of the pixels of all."""
        with self._lock:
            return self._memory()

    def _memory(self) -> int:
        return sum(p.memory for s in self._sessions.values() for p in s.pictures.values())

    def _find(self, session: str) -> _Session:
        self._forget()
        if session not in self._sessions:
            raise GoneError("This page was open for long without use, and its pictures are forgotten: load it again.")
        self._sessions.move_to_end(session)
        found = self._sessions[session]
        found.used = self._clock()
        return found

    def _forget(self) -> None:
        now = self._clock()
        for name in [n for n, s in self._sessions.items() if now - s.used > self._idle]:
            del self._sessions[name]
        while len(self._sessions) > self._most[0]:
            self._sessions.popitem(last=False)
        while self._memory() > self._most[2]:  # the oldest picture of whoever was away longest; never the newest of all
            holders = [s for s in self._sessions.values() if s.pictures]
            if len(holders) == 1 and len(holders[0].pictures) == 1:
                return
            holders[0].pictures.popitem(last=False)


def read_upload(content: bytes, name: str) -> Image.Image:
    """What was sent as upright RGB. Raises ImageError: no picture, damaged, or too many pixels (nothing is decoded)."""
    height, width = read_header(content, name=name).upright_size
    if height * width > MOST_PIXELS:
        millions = f"{height * width / 1e6:.0f} million pixels ({width} x {height})"
        raise ImageError(name, f"has {millions}; the page takes up to {MOST_PIXELS // 10**6} million: make it smaller")
    return read_image(content, name=name)


class Sample(NamedTuple):
    """A picture that the package has or makes."""

    name: str
    title: str
    make: Callable[[], Image.Image]


def samples() -> list[Sample]:
    """Scenes that are drawn, and handwritten digits."""

    def scene(index: int, width: int, height: int) -> Sample:
        @cache
        def make() -> Image.Image:
            look = ScenesConfig(width=width, height=height, things=("disc", "triangle", "cross"), objects=(3, 7))
            return Image.fromarray(draw_scene(index, look, seed=5).image)

        return Sample(f"scene-{index}.png", f"Drawn scene {index}", make)

    def digit(index: int) -> Sample:
        @cache
        def make() -> Image.Image:
            return Digits("validation", size=128).images[index]

        return Sample(f"digit-{index}.png", f"Handwritten digit {index}", make)

    return [scene(1, 256, 256), scene(2, 320, 240), scene(3, 128, 128), scene(4, 128, 128), *map(digit, (3, 8, 14, 21))]


def as_png(image: Image.Image) -> bytes:
    return _saved(image, "PNG")


def _saved(image: Image.Image, kind: str, **options: int) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
