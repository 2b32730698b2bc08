"""Who may ask the server what: the addresses it answers under, the token, and what a browser may do with the page."""

import ipaddress
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from secrets import compare_digest
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",  # the address may hold the token
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches what listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI: refuses requests under foreign names, from foreign pages, or without the token; adds `HEADERS`.

    A page of somebody else can make a browser send requests here (with its own name in Host after DNS rebinding, or in
    Origin), but can neither hide its name nor know the token.

    Args:
        app: what it stands before; it sees paths without the token.
        host: where the server listens.
        token: first part of every path; None: no token.
    """

    def __init__(self, app: App, *, host: str, token: str | None):
        self.app = app
        self.token = token
        self.names = {*LOOPBACK, host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}
        self.any_address = not is_loopback(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if not scope.get("query_string", b"").isascii():
            return await _refuse(send, 400, "The address holds bytes that are no text.")
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        host = headers.get("host", "")
        if not self._known(host):
            return await _refuse(send, 421, "This server does not answer under that name.")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return await _refuse(send, 403, "Requests from other pages are not answered.")
        if headers.get("sec-fetch-site") == "cross-site" and scope["method"] != "GET":
            return await _refuse(send, 403, "Requests from other pages are not answered.")
        if self.token is not None:
            given, slash, rest = scope["path"].removeprefix("/").partition("/")
            if not compare_digest(given.encode(), self.token.encode()):
                return await _refuse(send, 403, "The address needs the token that litevit app has printed.")
            if not slash:
                return await _refuse(send, 308, "", {"location": f"/{self.token}/"})
            scope = {**scope, "path": "/" + rest, "raw_path": ("/" + rest).encode()}

        async def send_guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                extra = [(key.encode(), value.encode()) for key, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *extra]}
            await send(message)

        await self.app(scope, receive, send_guarded)

    def _known(self, host: str) -> bool:
        name = host.lower()
        name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
        if name in self.names:
            return True
        if not self.any_address:
            return False
        try:  # a number names no site that could be pointed here
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


async def _refuse(send: Send, status: int, text: str, headers: dict[str, str] | None = None) -> None:
    told = {"content-type": "text/plain; charset=utf-8", **HEADERS, **(headers or {})}
    raw = [(key.encode(), value.encode()) for key, value in told.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": text.encode()})
