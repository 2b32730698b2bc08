"""Video files: frames in, pictures out. Needs PyAV, the extra `video`."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from litevit.checkpoints.files import Pathlike
from litevit.files import behind_links, put_in_place, temporary_name

VIDEO_SUFFIXES = {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"}


def is_video(path: Pathlike) -> bool:
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def _video_library() -> Any:
    try:
        import av
    except ImportError as error:
        raise ImportError("Videos need PyAV: pip install 'litevit[video]'") from error
    return av


def _open(av: Any, path: str) -> Any:
    """With titles in any encoding, which PyAV reads by itself from 19 on."""
    try:
        return av.open(path, metadata_errors="replace")
    except TypeError:
        return av.open(path)


def open_video(path: Path) -> Any:
    av = _video_library()
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        container = _open(av, str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise ValueError(f"{path} is not a video that can be read: {error}") from None
    if not container.streams.video:
        container.close()
        raise ValueError(f"{path} has no video stream")
    return container


def read_video(path: Pathlike) -> Iterator[tuple[Image.Image, Any]]:
    """Frames upright, RGB, each with its time stamp (in the stream's units; None: unknown)."""
    path = Path(path)
    av = _video_library()
    with open_video(path) as container:
        try:
            for frame in container.decode(video=0):
                pixels = frame.to_ndarray(format="rgb24")
                turns = round(getattr(frame, "rotation", 0) / 90) % 4
                yield Image.fromarray(np.ascontiguousarray(np.rot90(pixels, turns))), frame.pts
        except (av.error.FFmpegError, OSError) as error:
            raise ValueError(f"{path} is damaged or truncated: {error}") from None


class VideoWriter:
    """Pictures of one size to an MP4 file, which appears under its name when it is complete. Sound is left out."""

    def __init__(self, path: Path, *, rate: Fraction, time_base: Fraction | None = None):
        self.av = _video_library()
        self.path, self.rate, self.time_base = behind_links(path), rate, time_base
        self.partial = temporary_name(self.path)
        self.container: Any = None
        self.last = -1

    def write(self, picture: Image.Image, pts: int | None) -> None:
        """Args: pts: time stamp in units of `time_base`; None: one frame after the last."""
        picture = picture.crop((0, 0, picture.width // 2 * 2, picture.height // 2 * 2))  # the codec needs even sides
        if self.container is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.container = self.av.open(str(self.partial), "w", format="mp4")
            codec = "libx264" if "libx264" in self.av.codecs_available else "mpeg4"
            self.stream = self.container.add_stream(codec, rate=self.rate)
            self.stream.width, self.stream.height, self.stream.pix_fmt = *picture.size, "yuv420p"
        frame = self.av.VideoFrame.from_image(picture)
        if self.time_base is not None and pts is not None:
            pts = max(pts, self.last + 1)  # stamps have to grow
            frame.pts, frame.time_base, self.last = pts, self.time_base, pts
        for packet in self.stream.encode(frame):
            self.container.mux(packet)

    def close(self, *, keep: bool = True) -> None:
        """Finishes the file; `keep=False` removes it."""
        if self.container is None:
            return
        try:
            if keep:
                for packet in self.stream.encode():
                    self.container.mux(packet)
            self.container.close()
            if keep:
                put_in_place(self.partial, self.path)
        finally:
            self.partial.unlink(missing_ok=True)
