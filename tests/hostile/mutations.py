"""Structured mutations of valid seeds: bytes, JSON values, names that climb out."""

import json
import random
import struct
from pathlib import Path
from typing import Any

DEEP, DEEP_OBJECT, DIGITS, RAW_BYTES = "@deep@", "@deep object@", "@digits@", "@raw@"
NUMBERS = (
    0,
    1,
    -1,
    2,
    7,
    127,
    255,
    256,
    65_535,
    65_536,
    2**24,
    2**31 - 1,
    2**31,
    2**32,
    2**53,
    2**63 - 1,
    2**63,
    2**64,
    10**30,
    10**400,
)
FLOATS = (0.0, -0.0, 0.5, 1e-300, 5.0, 1e300, -1e300, 1.7976931348623157e308, float("nan"), float("inf"), float("-inf"))
TEXTS = (
    "",
    " ",
    "0",
    "1",
    "-1",
    "nan",
    "inf",
    "1e999",
    "true",
    "none",
    "official",
    "a\x00b",
    "\ud800",
    "é\u202e",
    "x" * 5000,
    "٣",
    "²",
    "$(touch canary)",
    "`id`",
    "%s%n",
    "{0}",
    "[red]",
    "\x1b[31m",
)


def names(draw: random.Random, folder: Path) -> str:
    """A file name that should lead nowhere."""
    outside = folder.parent / "outside"
    return draw.choice(
        (
            "../evil", "../outside/evil.png", "../../outside/evil", f"{outside}/evil", f"{outside}/evil.png",
            f"{outside}/evil.jpg", "..", ".", "/", "", "a/../../outside/evil.jpg", "..\\..\\outside\\evil.jpg", "C:\\evil.jpg",
            "/dev/zero", "/dev/null", "/proc/self/mem", "/dev/stdin", "a\x00b.jpg", "x" * 300 + ".jpg", "-rf", "~/evil.jpg",
            "image.jpg/", "./././evil.jpg", "|touch canary", "pipe:touch canary", "file:///etc/passwd", "con", "\ud800.jpg",
        )
    )  # fmt: skip


def nasty(draw: random.Random, folder: Path | None = None, depth: int = 0) -> Any:
    """A value that whoever wrote the reader did not think of."""
    kind = draw.randrange(11)
    if kind == 0:
        return draw.choice((None, True, False))
    if kind <= 2:
        return draw.choice(NUMBERS)
    if kind <= 4:
        return draw.choice(FLOATS)
    if kind == 5:
        return draw.choice(TEXTS)
    if kind == 6 and folder is not None:
        return names(draw, folder)
    if kind == 7:
        return draw.choice((DEEP, DEEP_OBJECT, DIGITS)) if draw.random() < 0.3 else draw.choice(TEXTS)
    if kind == 8:
        return [nasty(draw, folder, depth + 1) for _ in range(draw.randrange(4))] if depth < 3 else []
    if kind == 9:
        keys = ("id", "name", "size", "counts", "model", "", "0", "task")
        return (
            {draw.choice(keys): nasty(draw, folder, depth + 1) for _ in range(draw.randrange(3))} if depth < 3 else {}
        )
    return -draw.choice(NUMBERS)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(value, dict):
        for key, item in value.items():
            found += _places(item, (*path, key))
    elif isinstance(value, list):
        for key, item in enumerate(value[:50]):
            found += _places(item, (*path, key))
    return found


def spoil(draw: random.Random, value: Any, folder: Path | None = None, *, most: int = 3) -> Any:
    """A copy of a JSON value with up to `most` places changed: replaced, removed, doubled, moved, wrapped."""
    value = json.loads(json.dumps(value))
    for _ in range(draw.randint(1, most)):
        places = _places(value)
        if not places or draw.random() < 0.01:
            return nasty(draw, folder)
        *way, last = draw.choice(places)
        holder = value
        for key in way:
            holder = holder[key]
        deed = draw.randrange(9)
        if deed == 0:
            del holder[last]
        elif deed == 1 and isinstance(holder, list):
            holder.append(json.loads(json.dumps(holder[last])))
        elif deed == 2 and isinstance(holder, dict):
            holder[draw.choice(("extra", "", "id", "__class__", "\ud800"))] = holder[last]
        elif deed == 3:
            holder[last] = [holder[last]]
        elif deed == 4:
            holder[last] = str(holder[last])
        elif deed == 5:
            *there, final = draw.choice(places)
            other = value
            try:
                for key in there:
                    other = other[key]
                holder[last] = json.loads(json.dumps(other[final]))
            except (KeyError, IndexError, TypeError):
                holder[last] = None
        else:
            holder[last] = nasty(draw, folder)
    return value


def dumps(value: Any) -> str:
    """JSON text, with what `json.dumps` cannot write itself: deep nesting, numbers of thousands of digits."""
    text = json.dumps(value)
    for marker, raw in (
        (DEEP, "[" * 60_000 + "]" * 60_000),
        (DEEP_OBJECT, '{"a":' * 60_000 + "1" + "}" * 60_000),
        (DIGITS, "9" * 6000),
    ):
        text = text.replace(json.dumps(marker), raw)
    return text


def json_bytes(draw: random.Random, value: Any, folder: Path | None = None) -> bytes:
    """A file of JSON: spoiled in its values, now and then in its bytes too."""
    content = dumps(spoil(draw, value, folder)).encode()
    return corrupt(draw, content) if draw.random() < 0.15 else content


def _field(draw: random.Random) -> bytes:
    number = draw.choice(
        (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
    )
    size, letter = draw.choice(((1, "B"), (2, "H"), (4, "I"), (8, "Q")))
    return struct.pack(draw.choice("<>") + letter, number & (256**size - 1))


def corrupt(draw: random.Random, content: bytes, *, most: int = 4, begin: int = 0, end: int | None = None) -> bytes:
    """The bytes with some changed, removed, repeated, or cut off; within `begin` and `end` where they are given."""
    data = bytearray(content)
    for _ in range(draw.randint(1, most)):
        top = min(len(data), len(data) if end is None else end)
        if top <= begin:
            break
        at = draw.randrange(begin, top)
        deed = draw.randrange(8)
        if deed == 0:
            data[at] ^= 1 << draw.randrange(8)
        elif deed == 1:
            data[at] = draw.randrange(256)
        elif deed == 2:
            field = _field(draw)
            data[at : at + len(field)] = field
        elif deed == 3:
            del data[at : at + draw.randint(1, 64)]
        elif deed == 4:
            data[at:at] = bytes(data[at : at + draw.randint(1, 64)])
        elif deed == 5:
            data[at:at] = draw.randbytes(draw.randint(1, 16))
        elif deed == 6 and draw.random() < 0.5:
            del data[at:]
        else:
            other = draw.randrange(begin, top)
            data[at : at + 8] = data[other : other + 8]
    return bytes(data)
