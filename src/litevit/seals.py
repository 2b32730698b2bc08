"""A seal on a safetensors file: the SHA-256 of all its bytes and their number, kept in its own header.

The format has no checksum, so a damaged byte would be a wrong weight. Both are taken with zeros in their own place.
Files without a seal are read as they are; so are those of another length, which another program has written anew
(truncated ones do not get so far), with a warning.
"""

import hashlib
import os
import re
import warnings
from collections.abc import Mapping

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

KEY = "litevit_sha256"
BLANK = "0" * 64 + ":" + "0" * 15
MARK = re.compile(rf'"{KEY}":"([0-9a-f]{{64}}(?::[0-9]{{15}})?)"'.encode())
DAMAGED = (
    "{} is damaged: its content does not match the checksum in its header. Get it anew, or take a copy. "
    f"(If another program has changed it on purpose, it has to leave {KEY} out of the metadata.)"
)
LONGEST = 100 * 2**20  # bytes of a header, as safetensors has it


def save_sealed(tensors: dict[str, Tensor], path: str | os.PathLike, metadata: Mapping[str, str]) -> None:
    """`save_file`, with a seal."""
    save_file(tensors, path, metadata={**metadata, KEY: BLANK})
    place, _, seal = _read(path)
    assert place, "the header is written with the mark"
    with open(path, "rb+") as file:
        file.seek(place)
        file.write(seal.encode())


def check_seal(path: str | os.PathLike) -> None:
    """Raises ValueError where a sealed file is damaged; warns where another program has written it anew."""
    place, told, seal = _read(path)
    if place and (changed := changed_since(str(path), told, seal, DAMAGED.format(path))):
        warnings.warn(changed, stacklevel=2)


def changed_since(name: str, told: str, seal: str, damaged: str) -> str | None:
    """What to say of a file that differs from its seal, a checksum and, but for old ones, a number of bytes.

    A file of another length is what another program has made of it on purpose: half precision, fewer layers.

    Args:
        damaged: what to say of one of the same length.

    Raises:
        ValueError: it is damaged.
    """
    (digest, _, size), (found, _, length) = told.partition(":"), seal.partition(":")
    if digest == found:
        return None
    if not size.isdecimal() or int(size) == int(length):
        raise ValueError(damaged)
    return (
        f"{name} has been written anew by another program since litevit wrote it ({int(size):,} bytes then, "
        f"{int(length):,} now): what was proven of it then may not hold."
    )


def load_sealed(path: str | os.PathLike) -> dict[str, Tensor]:
    """`load_file` of a file that is what was written.

    Raises:
        ValueError: it is damaged.
    """
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or damaged: {str(error)[:200]}. Get it anew, or take a copy.") from None
    check_seal(path)
    return tensors


def _read(path: str | os.PathLike) -> tuple[int, str, str]:
    """Where the seal stands (0: there is none), what it says, and what it should say."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        header = file.read(min(length, LONGEST))
        found = MARK.search(header)
        if found is None:
            return 0, "", ""
        blank = header[: found.start(1)] + BLANK[: len(found[1])].encode() + header[found.end(1) :]
        digest = hashlib.sha256(length.to_bytes(8, "little") + blank)
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return 8 + found.start(1), found[1].decode(), f"{digest.hexdigest()}:{size:015d}"
