"""Hostile pictures: every format and mode, damaged, truncated, lying about their size, with metadata that nobody wrote."""

import random
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from hostile.arena import Kind
from hostile.mutations import corrupt
from litevit.app.pictures import read_upload
from litevit.data.coco_masks import read_panoptic_png
from litevit.data.images import decode, exif_warning, read_annotated, read_header, read_image
from litevit.data.mask_labels import labels_of, palette_labels, read_index_mask

SIDE = (9, 7)
MODES = (
    "1",
    "L",
    "LA",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "La",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "F",
    "I;16",
    "I;16B",
)
FORMATS = ("png", "jpeg", "tiff", "gif", "webp", "bmp", "ppm", "avif", "dib", "jpeg2000", "ico", "eps", "pdf", "tga", "pcx", "sgi",
           "msp", "xbm", "im", "spider", "dds", "icns", "mpo", "blp", "palm", "qoi")  # fmt: skip


def picture(mode: str) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (SIDE[1], SIDE[0], 4), dtype=np.uint8)
    if mode in ("I;16", "I;16B"):
        return Image.frombytes(mode, SIDE, values[..., :2].tobytes())
    if mode in ("I", "F"):
        return Image.fromarray(
            values[..., 0].astype(np.int32 if mode == "I" else np.float32) / (1 if mode == "I" else 255)
        ).convert(mode)
    rgba = (
        Image.fromarray(values, "RGBA")
        if mode in ("RGBA", "RGBa", "LA", "La", "PA")
        else Image.fromarray(values[..., :3])
    )
    for step in {"RGBa": ("RGBa",), "LA": ("LA",), "La": ("LA", "La"), "PA": ("P", "PA")}.get(mode, (mode,)):
        rgba = rgba.convert(step)
    return rgba


def prepare(seeds: Path) -> None:
    """Whatever Pillow writes of these modes and formats, animations, and options of TIFF."""
    for mode in MODES:
        try:
            image = picture(mode)
        except ValueError:
            continue
        for kind in FORMATS:
            try:
                image.save(seeds / f"{mode.replace(';', '')}.{kind}", format=kind)
            except (OSError, KeyError, ValueError, SyntaxError, AttributeError, TypeError):
                (seeds / f"{mode.replace(';', '')}.{kind}").unlink(missing_ok=True)
    frames = [picture("RGB").rotate(90 * k) for k in range(3)]
    for kind in ("gif", "png", "webp", "tiff", "avif"):
        frames[0].save(seeds / f"frames.{kind}", save_all=True, append_images=frames[1:])
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a text"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    for kind in ("jpeg", "png", "webp", "tiff"):
        picture("RGB").save(seeds / f"exif.{kind}", exif=exif)
    for compression in (
        "tiff_lzw",
        "tiff_adobe_deflate",
        "packbits",
        "jpeg",
        "group4",
        "group3",
        "zstd",
        "lzma",
        "webp",
    ):
        source = picture("1" if compression.startswith("group") else "RGB")
        try:
            source.save(seeds / f"{compression}.tiff", compression=compression)
        except (OSError, ValueError):
            continue
    picture("P").save(seeds / "transparent.png", transparency=3)
    picture("L").save(seeds / "transparent_grey.png", transparency=3)
    picture("RGB").save(seeds / "progressive.jpg", progressive=True)
    for file in seeds.iterdir():
        if file.stat().st_size == 0:
            file.unlink()


# ---------------------------------------------------------------------- PNG


def chunk(kind: bytes, content: bytes, *, crc: int | None = None) -> bytes:
    told = zlib.crc32(kind + content) if crc is None else crc
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", told)


def png(draw: random.Random) -> bytes:
    """A PNG of any header, with chunks that say what they like."""
    width, height = (draw.choice((0, 1, 3, 9, 255, 4096, 20_000, 2**31 - 1, 2**31, 2**32 - 1)) for _ in range(2))
    depth, colour = draw.choice((0, 1, 2, 4, 8, 8, 8, 16, 32)), draw.choice((0, 2, 3, 4, 6, 1, 7))
    chunks = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, draw.choice((0, 1, 2))))]
    flood = zlib.compress(bytes(draw.choice((10, 10**5, 2 * 10**6))))
    extra = (
        chunk(b"PLTE", draw.randbytes(draw.choice((0, 3, 768, 769, 3000)))),
        chunk(b"tRNS", draw.randbytes(draw.choice((0, 1, 2, 6, 256, 300)))),
        chunk(b"iCCP", b"icc\0\0" + flood),
        chunk(b"iCCP", b"x" * 100),
        chunk(b"zTXt", b"key\0\0" + flood),
        chunk(b"iTXt", b"key\0\1\0\0\0" + flood),
        chunk(b"tEXt", b"key\0" + b"x" * draw.choice((0, 10**6))),
        chunk(b"eXIf", draw.choice((b"", b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 40, b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"))),
        chunk(b"acTL", struct.pack(">II", draw.choice((0, 1, 2**31, 2**32 - 1)), 0)),
        chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, draw.choice((1, 2**31)), 9, draw.choice((0, 2**32 - 1)), 0, 0, 0, 9, 9)),
        chunk(b"fdAT", b"\0\0\0\1" + flood),
        chunk(b"gAMA", b"\0"), chunk(b"cHRM", b"\0" * 5), chunk(b"pHYs", b"\0" * 9), chunk(b"IHDR", b"\0" * 13), chunk(b"IEND", b""),
    )  # fmt: skip
    chunks += draw.sample(extra, draw.randrange(5))
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1)
    enough = height * (width * channels * depth // 8 + 1)
    size = draw.choice((0, 10, min(enough, 3 * 10**6), 10**6))
    chunks.append(chunk(b"IDAT", zlib.compress(bytes(size), 1), crc=draw.choice((None, None, 0))))
    if draw.random() < 0.8:
        chunks.append(chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


# --------------------------------------------------------------------- TIFF


def tiff(draw: random.Random) -> bytes:
    """Directories with tags of any type, count and place: strips beyond the end, tiles of no size, loops."""
    order = draw.choice("<>")
    big = draw.random() < 0.1
    tags: dict[int, tuple[int, int, int]] = {
        256: (4, 1, draw.choice((0, 1, 9, 9, 60_000, 2**31, 2**32 - 1))), 257: (4, 1, draw.choice((0, 1, 7, 7, 60_000, 2**32 - 1))),
        258: (3, draw.choice((1, 3)), draw.choice((0, 1, 8, 16, 32, 64))), 259: (3, 1, draw.choice((1, 1, 2, 3, 5, 6, 7, 8, 32773, 34712, 50000, 50001, 99))),
        262: (3, 1, draw.choice((0, 1, 2, 3, 4, 5, 6, 8, 32803))), 273: (4, draw.choice((1, 1, 2**31 - 1, 10**6)), draw.choice((8, 200, 2**31, 2**32 - 1))),
        277: (3, 1, draw.choice((0, 1, 3, 4, 65_535))), 278: (4, 1, draw.choice((0, 7, 2**32 - 1))), 279: (4, 1, draw.choice((0, 63, 189, 2**32 - 1))),
    }  # fmt: skip
    for _ in range(draw.randrange(6)):
        tag = draw.choice(
            (
                284,
                317,
                320,
                322,
                323,
                324,
                325,
                338,
                339,
                274,
                330,
                347,
                700,
                34377,
                34665,
                34675,
                34853,
                40965,
                50706,
                draw.randrange(65_536),
            )
        )
        tags[tag] = (
            draw.randrange(20),
            draw.choice((0, 1, 2, 4, 10**6, 2**32 - 1)),
            draw.choice((0, 1, 8, 16, 2**31, 2**32 - 1)),
        )
    for tag in draw.sample(list(tags), draw.randrange(3)):
        del tags[tag]
    entries = b""
    for tag, (kind, count, value) in sorted(tags.items()):
        short = kind == 3 and count == 1
        entries += struct.pack(order + "HHI", tag, kind, count) + struct.pack(
            order + ("HH" if short else "I"), *((value & 0xFFFF, 0) if short else (value,))
        )
    following = struct.pack(order + "I", draw.choice((0, 0, 8, 2**32 - 1)))
    head = (b"II" if order == "<" else b"MM") + struct.pack(
        order + "HI", 43 if big else 42, draw.choice((8, 8, 8, 0, 2**32 - 1))
    )
    count = struct.pack(order + "H", draw.choice((len(tags), len(tags), 65_535, 0)))
    return head + count + entries + following + draw.randbytes(draw.choice((0, 63, 200, 2000)))


def other(draw: random.Random) -> bytes:
    """What is called a picture, and is something else."""
    return draw.choice(
        (
            b"", b"\0", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(canary) (w) file\nshowpage\n", b"%PDF-1.4\n",
            b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"P6\n-1 9\n255\n" + bytes(99), b"P6 999999999 999999999 255\n", b"P3 2 2 255 " + b"9" * 5000,
            b"P7\nWIDTH 9\nHEIGHT 7\nDEPTH 99\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n", b"Pf\n9 7\nnan\n" + bytes(252), b"P5 0 0 255\n", b"P4 9 7\n",
            b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0xF7, 0, 0) + bytes(768) + b",\0\0\0\0\xff\xff\xff\xff\0\2\1\0\0;", b"GIF87a\1\0\1\0\0\0\0;",
            b"BM" + struct.pack("<IHHI", 99, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 2**31 - 1, -(2**31), 1, 32, 0, 0, 0, 0, 0, 0),
            b"BM" + struct.pack("<IHHI", 99, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 9, 7, 1, 8, 1, 0, 0, 0, 2**31, 0) + b"\xff" * 200,
            b"RIFF\xff\xff\xff\xffWEBPVP8X\x0a\0\0\0\x10\0\0\0\xff\xff\xff\xff\xff\xff", b"\0\0\0\x1cftypavif\0\0\0\0avifmif1" + bytes(40), b"\0\0\0\x18ftypheic",
            b"\xff\xd8\xff\xe1\xff\xffExif\0\0II*\0\x08\0\0\0" + b"\xff" * 40, b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\3\1\x22\0\2\x11\1\3\x11\1\xff\xd9",
            b"\xff\xd8" + b"\xff\xfe\0\2" * 5000, b"\x89PNG\r\n\x1a\n", b"II*\0\x08\0\0\0", b"qoif" + b"\xff" * 20, b"DDS " + b"\xff" * 124, b"8BPS\0\1" + b"\0" * 40,
        )
    )  # fmt: skip


def build(draw: random.Random, seeds: Path) -> bytes:
    deed = draw.randrange(10)
    if deed == 0:
        return png(draw)
    if deed == 1:
        return tiff(draw)
    if deed == 2:
        return other(draw)
    content = draw.choice(sorted(seeds.iterdir())).read_bytes()
    if deed == 3:
        return content[: draw.randrange(len(content))]
    if deed == 4:
        return content
    return corrupt(draw, content, end=draw.choice((None, 64, 200)))


def take(file: Path, draw: random.Random) -> None:
    """Every way into the library that a picture has."""
    way = draw.randrange(9)
    if way == 0:
        assert read_image(file).mode == "RGB"
    elif way == 1:
        read_header(file)
        exif_warning(file, (7, 9))
    elif way == 2:
        pixels, turn = read_annotated(file)
        assert pixels.shape[0] == 3
        assert 1 <= turn <= 8
    elif way == 3:
        decode(file.read_bytes(), name=file.name)
    elif way == 4:
        read_upload(file.read_bytes(), file.name)
    elif way == 5:
        read_panoptic_png(file, listed=draw.choice((None, [1, 2], [2**30])))
    elif way == 6:
        colours = draw.choice(((), ((0, 0, 0), (255, 0, 0))))
        read_index_mask(file, colours)
    elif way == 7:
        labels_of(["a", "b"]).read(file)
    else:
        palette_labels([file, file])


def attack(draw: random.Random, seeds: Path, folder: Path) -> None:
    file = folder / draw.choice(("a.png", "a.jpg", "a.tif", "a.gif", "a.webp", "a.eps", "a"))
    file.write_bytes(build(draw, seeds))
    take(file, draw)


KIND = Kind("images", attack, prepare, inputs=50_000, share=250)
