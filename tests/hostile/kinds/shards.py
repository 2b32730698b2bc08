"""Hostile tar files: members that climb out, links and devices, headers that lie about sizes, squeezed floods, tars in tars."""

import bz2
import gzip
import io
import lzma
import random
import tarfile
from pathlib import Path

from PIL import Image

from hostile.arena import Kind
from hostile.mutations import corrupt, json_bytes, names
from litevit.data.class_tars import ClassTars
from litevit.data.many_images import find_inputs, plan_pieces
from litevit.data.shards import WebDatasetReader, count_images
from litevit.data.streaming import TarShards

TYPES = b"0\x00" + b"1234567xgXLKSDMNVAIZ\xff"
NUMBERS = (b"00000000000\0", b"77777777777\0", b"-0000000001\0", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"\xff" * 11 + b"\0", b"\x80\0\0\0\x7f" + b"\xff" * 7,
           b"9" * 12, b"            ", b"x" * 12, b"00000001000\0", b"00000000001\0", b"\x80" + b"\0" * 7 + b"\x40\0\0\0", b"00017777777\0", b"\xff" * 9 + b"\xfe\0\0")  # fmt: skip
LABELS = (
    b"0",
    b"1",
    b" 1\n",
    b"",
    b"-1",
    b"9" * 6000,
    b"1e3",
    "٣".encode(),
    b"\xff\xfe",
    b"nan",
    b"0x1",
    b"[" * 3000,
    b"true",
    b"\0",
)


def prepare(seeds: Path) -> None:
    for kind in ("jpg", "png"):
        Image.linear_gradient("L").resize((24, 20)).convert("RGB").save(seeds / f"a.{kind}")


def header(name: bytes, size: int, *, kind: bytes = b"0", link: bytes = b"") -> bytearray:
    """A block as ustar has it, its checksum not yet written."""
    block = bytearray(512)
    block[0 : min(len(name), 100)] = name[:100]
    block[100:108], block[108:116], block[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    block[124:136], block[136:148] = b"%011o\0" % size, b"%011o\0" % 0
    block[156:157] = kind
    block[157 : 157 + min(len(link), 100)] = link[:100]
    block[257:265] = b"ustar\x0000"
    return block


def summed(block: bytearray) -> bytes:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def member(name: bytes, content: bytes, *, kind: bytes = b"0", link: bytes = b"") -> bytes:
    return summed(header(name, len(content), kind=kind, link=link)) + content + bytes(-len(content) % 512)


def pax(draw: random.Random, folder: Path) -> bytes:
    """Records of any key; those that change size, name and sparseness above all."""
    records = b""
    for _ in range(draw.randint(1, 4)):
        key = draw.choice((b"size", b"path", b"linkpath", b"GNU.sparse.major", b"GNU.sparse.map", b"GNU.sparse.size", b"GNU.sparse.realsize", b"GNU.sparse.numblocks",
                           b"GNU.sparse.offset", b"GNU.sparse.numbytes", b"GNU.sparse.name", b"mtime", b"hdrcharset", b"uid", b"a"))  # fmt: skip
        value = draw.choice((b"0", b"1", b"-1", b"-512", b"999999999999999", b"1e308", b"nan", b"0,512,1024,512", b"1,2,3", b"x" * 3000, b"BINARY", b"9" * 5000, b"", b"\xff",
                             names(draw, folder).encode("utf-8", "surrogatepass")))  # fmt: skip
        record = b" " + key + b"=" + value + b"\n"
        length = len(record) + 2
        records += (
            draw.choice((b"%d" % length, b"%d" % (length + (length > 99)), b"0", b"-5", b"9" * 20, b"5")) + record
        )
    return member(b"pax", records, kind=draw.choice((b"x", b"g", b"X")))


def pieces(draw: random.Random, seeds: Path, folder: Path, depth: int = 0) -> list[bytes]:
    """The members of a tar, as blocks."""
    parts: list[bytes] = []
    for n in range(draw.randint(1, 3)):
        image = (seeds / draw.choice(("a.jpg", "a.png"))).read_bytes()
        stem = draw.choice((f"{n}", f"{n}", f"cat/{n}", f"./dog/{n}", f"train/cat/{n}.v2"))
        label = b"%d" % n if draw.random() < 0.7 else draw.choice(LABELS)
        parts.append(member(f"{stem}.jpg".encode(), image))
        if draw.random() < 0.1:
            parts.append(member(f"{stem}.json".encode(), json_bytes(draw, {"label": n, "more": [1]}, folder)))
        else:
            parts.append(member(f"{stem}.cls".encode(), label))
    for _ in range(draw.randrange(4)):
        name = names(draw, folder).encode("utf-8", "surrogatepass")
        deed = draw.randrange(9)
        if deed == 0:
            extra = member(name, b"1")
        elif deed == 1:
            kind = draw.choice((b"1", b"2", b"3", b"4", b"6", b"S", b"\xff"))
            extra = member(
                draw.choice((name, b"9.jpg", b"9.cls")),
                b"",
                kind=kind,
                link=names(draw, folder).encode("utf-8", "surrogatepass"),
            )
        elif deed == 2:
            extra = pax(draw, folder)
        elif deed == 3:
            extra = member(b"././@LongLink", draw.choice((name, b"x" * 70_000, b"")), kind=draw.choice((b"L", b"K")))
        elif deed == 4:  # a size that is none
            block = header(
                draw.choice((b"7.jpg", b"7.cls", name)), 0, kind=draw.choice((b"0", b"0", b"L", b"x", b"S", b"g"))
            )
            block[124:136] = draw.choice(NUMBERS)
            extra = summed(block) + bytes(512)
        elif deed == 5:  # any field
            block = header(b"8.jpg", 4, kind=bytes([draw.choice(TYPES)]))
            at = draw.choice((0, 100, 108, 116, 124, 136, 156, 257, 265, 329, 337, 345, 386, 482, 483))
            block[at : at + 12] = draw.choice(NUMBERS)
            extra = summed(block) + bytes(512) if draw.random() < 0.8 else bytes(block)
        elif deed == 6 and depth < 2:
            inner = b"".join(pieces(draw, seeds, folder, depth + 1)) + bytes(1024)
            extra = member(
                draw.choice((b"cat.tar", b"train/dog.tar", b"a/../../b.tar")),
                corrupt(draw, inner) if draw.random() < 0.3 else inner,
            )
        elif deed == 7:
            extra = bytes(512)
        else:
            extra = draw.choice(parts)
        parts.insert(draw.randrange(len(parts) + 1), extra)
    return parts


def nested(depth: int) -> bytes:
    """A tar in a tar in a tar ..."""
    content = member(b"cat/a.jpg", b"x")
    for _ in range(depth):
        content = member(b"a.tar", content)
    return content


def flood(draw: random.Random) -> bytes:
    """A squeezed tar that becomes large."""
    size = draw.choice((10**6, 3 * 10**8))
    squeeze = draw.choice((gzip.compress, bz2.compress))
    if size > 10**6:  # the same megabyte again and again: each of these formats may be strung together
        many = b"".join(
            [
                squeeze(summed(header(draw.choice((b"1.jpg", b"1.cls", b"1.x")), 2**33 - 1))),
                squeeze(bytes(2**20)) * (size >> 20),
            ]
        )
        return many
    return squeeze(member(draw.choice((b"1.jpg", b"1.cls")), bytes(size)))


def build(draw: random.Random, seeds: Path, folder: Path) -> bytes:
    deed = draw.randrange(40)
    if deed == 0:
        return nested(draw.choice((1, 5, 700)))
    if deed == 1:
        return flood(draw)
    if deed == 2:
        chain = draw.choice((b"x", b"L", b"g"))
        return member(b"a", b"16 path=x/1.jpg\n", kind=chain) * draw.choice((10, 2000)) + member(b"1.jpg", b"x")
    if deed == 3:
        return draw.choice(
            (b"", bytes(512), bytes(10_240), b"x" * 512, b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\0", b"PK\x03\x04")
        )
    content = b"".join(pieces(draw, seeds, folder)) + bytes(draw.choice((0, 512, 1024, 9216)))
    if deed <= 6:
        return content[: draw.randrange(len(content))]
    if deed <= 10:
        content = corrupt(draw, content)
    if deed <= 14:
        content = draw.choice((gzip.compress, bz2.compress, lzma.compress))(content)
        return corrupt(draw, content) if draw.random() < 0.5 else content
    if deed == 15:
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            entry = tarfile.TarInfo("é" * 200 + ".jpg")
            entry.size = 4
            archive.addfile(entry, io.BytesIO(b"abcd"))
        return file.getvalue()
    return content


def take(file: Path, draw: random.Random, folder: Path) -> None:
    way = draw.randrange(6)
    if way == 0:
        reader = WebDatasetReader(str(file), "train")
        for index in range(len(reader)):
            content, label = reader[index]
            assert isinstance(content.read(), bytes)
            assert isinstance(label, int)
            reader.filename(index), reader.key(index)
    elif way == 1:
        count_images(str(file))
    elif way == 2:
        tars = ClassTars(file if draw.random() < 0.5 else file.parent)
        for index in range(len(tars)):
            tars[index]
            tars.filename(index, absolute=True), tars.key(index)
    elif way == 3:
        out = folder / "out"
        out.mkdir()
        found = find_inputs([file])
        for piece in plan_pieces(found, out, 2):
            assert len(list(piece.read())) == piece.count
    else:
        for _name, content, label in TarShards(str(file), "train").read(0):
            assert isinstance(content, bytes)
            assert isinstance(label, int)


def attack(draw: random.Random, seeds: Path, folder: Path) -> None:
    (folder / "train").mkdir()
    file = folder / "train" / draw.choice(("train-0.tar", "cat.tar"))
    file.write_bytes(build(draw, seeds, folder))
    take(file, draw, folder)


KIND = Kind("shards", attack, prepare, inputs=20_000, share=100, warm=12)
