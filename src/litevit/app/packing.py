"""Arrays and plain values in one binary answer, which `page/api.js` reads into typed arrays without copying.

4 bytes: length of the header, little-endian; the header, JSON in ASCII; padding to 8 bytes; the arrays, each at a
multiple of 8 bytes behind that. The header's `arrays` gives `dtype`, `shape` and `offset` of each.
"""

import json
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from litevit.files import without_nan

ALIGNMENT = 8
DTYPES = ("uint8", "int8", "uint16", "int32", "float32")  # JavaScript has typed arrays of them


class Answer(NamedTuple):
    values: dict[str, Any]
    arrays: dict[str, np.ndarray]


def pack(values: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """See the head of this file. Floats that JSON does not know become null."""
    table, parts, offset = {}, [], 0
    for name, array in arrays.items():
        assert array.dtype.name in DTYPES, f"{name}: {array.dtype}"
        content = np.ascontiguousarray(array).tobytes()
        table[name] = {"dtype": array.dtype.name, "shape": list(array.shape), "offset": offset}
        content += b"\0" * (-len(content) % ALIGNMENT)
        parts.append(content)
        offset += len(content)
    header = json.dumps(without_nan({**values, "arrays": table})).encode()
    padding = b"\0" * (-(4 + len(header)) % ALIGNMENT)
    return b"".join([struct.pack("<I", len(header)), header, padding, *parts])


def unpack(content: bytes) -> Answer:
    """The inverse of `pack`."""
    (length,) = struct.unpack_from("<I", content)
    values = json.loads(content[4 : 4 + length])
    start = 4 + length + -(4 + length) % ALIGNMENT
    arrays = {}
    for name, entry in values.pop("arrays").items():
        count = int(np.prod(entry["shape"]))
        flat = np.frombuffer(content, entry["dtype"], count, start + entry["offset"])
        arrays[name] = flat.reshape(entry["shape"])
    return Answer(values, arrays)
