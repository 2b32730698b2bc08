"""Hostile videos: damaged and truncated containers of several kinds, and what is called a video."""

import itertools
import random
from pathlib import Path

import numpy as np

from hostile.arena import Kind
from hostile.mutations import corrupt
from litevit.jobs.videos import VIDEO_SUFFIXES, open_video, read_video

KINDS = {"mp4": "mpeg4", "avi": "mjpeg", "mkv": "ffv1", "mov": "mpeg4", "mpg": "mpeg1video", "webm": "libvpx"}


def prepare(seeds: Path) -> None:
    import av

    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    for kind, codec in KINDS.items():
        if codec not in av.codecs_available:
            continue
        with av.open(str(seeds / f"a.{kind}"), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height = 48, 32
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for k in range(4):
                for packet in stream.encode(av.VideoFrame.from_ndarray(np.roll(pixels, k, 0))):
                    container.mux(packet)
            for packet in stream.encode():
                container.mux(packet)


def build(draw: random.Random, seeds: Path) -> bytes:
    deed = draw.randrange(8)
    if deed == 0:
        return draw.choice((
            b"", b"\0" * 100, b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", b"ffconcat version 1.0\nfile '/etc/passwd'\n",
            b"RIFF\xff\xff\xff\xffAVI LIST\xff\xff\xff\xff", b"\0\0\0\x18ftypmp42", b"\x1aE\xdf\xa3" + b"\xff" * 60, b"http://127.0.0.1:9/a.mp4",
            b"[InternetShortcut]\nURL=file:///etc/passwd\n", b"<?xml version='1.0'?><MPD/>", b"YUV4MPEG2 W99999 H99999 F25:1\nFRAME\n", b"DKIF" + b"\xff" * 40,
        ))  # fmt: skip
    content = draw.choice(sorted(seeds.iterdir())).read_bytes()
    if deed == 1:
        return content[: draw.randrange(len(content))]
    if deed == 2:
        return content
    return corrupt(draw, content, end=draw.choice((None, 200, 1000)))


def attack(draw: random.Random, seeds: Path, folder: Path) -> None:
    file = folder / f"a{draw.choice(sorted(VIDEO_SUFFIXES))}"
    file.write_bytes(build(draw, seeds))
    if draw.random() < 0.2:
        open_video(file).close()
    else:
        for image, _ in itertools.islice(read_video(file), 20):
            assert image.mode == "RGB"


KIND = Kind("videos", attack, prepare, inputs=6000, share=60)
