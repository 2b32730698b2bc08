"""A seal on a safetensors file: the SHA-256 of all its bytes, kept in its own header.

The format has no checksum, so a damaged byte would be a wrong weight. The digest is taken with zeros in its own place.
Files without a seal are read as they are.
"""

import hashlib
import os
import re
from collections.abc import Mapping

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

KEY = "litevit_sha256"
BLANK = "0" * 64
MARK = re.compile(rf'"{KEY}":"([0-9a-f]{{64}})"'.encode())
LONGEST = 100 * 2**20  # bytes of a header, as safetensors has it


def save_sealed(tensors: dict[str, Tensor], path: str | os.PathLike, metadata: Mapping[str, str]) -> None:
    """`save_file`, with a seal."""
    save_file(tensors, path, metadata={**metadata, KEY: BLANK})
    place, _, digest = _read(path)
    assert place, "the header is written with the mark"
    with open(path, "rb+") as file:
        file.seek(place)
        file.write(digest.encode())


def check_seal(path: str | os.PathLike) -> None:
    """Raises ValueError where a sealed file has changed since it was written."""
    place, told, digest = _read(path)
    if place and told != digest:
        raise ValueError(
            f"{path} is damaged: its content does not match the checksum in its header. Get it anew, or take a copy."
        )


def load_sealed(path: str | os.PathLike) -> dict[str, Tensor]:
    """`load_file` of a file that is what was written.

    Raises:
        ValueError: it is damaged.
    """
    check_seal(path)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or damaged: {str(error)[:200]}. Get it anew, or take a copy.") from None


def _read(path: str | os.PathLike) -> tuple[int, str, str]:
    """Where the seal stands (0: there is none), what it says, and what it should say."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(min(length, LONGEST))
        found = MARK.search(header)
        if found is None:
            return 0, "", ""
        blank = header[: found.start(1)] + BLANK.encode() + header[found.end(1) :]
        digest = hashlib.sha256(length.to_bytes(8, "little") + blank)
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return 8 + found.start(1), found[1].decode(), digest.hexdigest()
