"""What a request to the page's server says, read no further than it may be long."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from litevit.files import parse_json

if TYPE_CHECKING:
    from starlette.requests import Request


class TooLargeError(ValueError):
    """More bytes than the page takes."""


async def read_body(request: "Request", most: int) -> bytes:
    """What was sent. Raises TooLargeError as soon as more has come."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            limit = f"{most // 2**20} MB" if most >= 2**20 else f"{most // 2**10} kB"
            raise TooLargeError(f"The file is larger than {limit}, which is what the page takes.")
        parts.append(part)
    return b"".join(parts)


async def read_asked(request: "Request") -> dict[str, Any]:
    asked = parse_json(await read_body(request, 2**16), "The request")
    if not isinstance(asked, dict):
        raise ValueError("The request is no JSON object")
    return asked


def text(asked: Mapping[str, Any], name: str) -> str:
    value = asked.get(name)
    if not isinstance(value, str):
        raise ValueError(f"The request needs {name}, a text")
    return value


def number(asked: Mapping[str, Any], name: str) -> int:
    value = asked.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"The request needs {name}, a whole number")
    return value
