"""The server of the page: static files, pictures, and answers of the three views.

Plain values and arrays come from `predictions`, `looks` and `runs`; this file reads requests and says what went wrong.
"""

import json
import logging
import secrets
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from litevit.app import looks, predictions, runs
from litevit.app.asked import TooLargeError, number, read_asked, read_body, text
from litevit.app.choices import Choices, Opened
from litevit.app.guard import Guard, is_loopback
from litevit.app.packing import Answer, pack
from litevit.app.pictures import MOST_BYTES, MOST_PIXELS, GoneError, Picture, Pictures, as_png, read_upload, samples
from litevit.app.work import BusyError, LeftError, Worker
from litevit.data.images import READABLE

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

logger = logging.getLogger(__name__)

PAGE = Path(__file__).with_name("page")
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
UPLOADS = 8  # files that may arrive at a time, each of up to MOST_BYTES
KEPT_SOURCES = 6  # blocks whose queries and keys stay, for rows that are asked for one by one
NEEDS = "The page needs Starlette and uvicorn: pip install 'litevit[app]'"


class Server:
    """What the routes share. Args: choices: what can be chosen. pictures: where they are kept; None: the defaults."""

    def __init__(self, choices: Choices, pictures: Pictures | None = None):
        self.choices = choices
        self.pictures = pictures or Pictures()
        self.models = Worker()
        self.decoder = Worker(waiting=64)  # so that a picture is not held up by a model; a page asks for eight at once
        self.arriving = 0
        self.samples = samples()
        self._lock = threading.Lock()
        self._sources: OrderedDict[tuple[Any, ...], looks.Sources] = OrderedDict()

    def asgi(self) -> Any:
        """The application, without its guard."""
        try:
            from starlette.applications import Starlette
            from starlette.responses import Response
            from starlette.routing import Route
        except ImportError:
            raise ImportError(NEEDS) from None

        files = {path.name: path.read_bytes() for path in PAGE.iterdir() if path.suffix in TYPES}

        async def static(request: "Request") -> "Response":
            name = request.path_params.get("name") or "index.html"
            if name not in files:
                return Response("There is no such file.", 404, media_type="text/plain")
            return Response(files[name], media_type=TYPES[Path(name).suffix])

        def route(path: str, answer: Callable[..., Any], method: str) -> Any:
            return Route(path, partial(_answered, answer), methods=[method])

        return Starlette(
            routes=[
                route("/api/list", self.list, "GET"),
                route("/api/session", self.session, "POST"),
                route("/api/pictures", self.upload, "POST"),
                route("/api/pictures/{picture}", self.picture, "GET"),
                route("/api/samples/{index:int}", self.sample_picture, "GET"),
                route("/api/samples/{index:int}", self.sample, "POST"),
                route("/api/describe", self.describe, "POST"),
                route("/api/predict", self.predict, "POST"),
                route("/api/look/{view}", self.look, "POST"),
                route("/api/runs", self.runs, "GET"),
                route("/api/runs/{name}", self.run, "GET"),
                route("/api/runs/{name}/examine", self.examine, "POST"),
                route("/api/runs/{name}/{picture}", self.run_picture, "GET"),
                Route("/", static),
                Route("/{name}", static),
            ],
        )

    # ------------------------------------------------------------ pictures

    async def list(self, request: "Request") -> Any:
        """Everything that can be chosen."""
        limits = {"bytes": MOST_BYTES, "pixels": MOST_PIXELS, "readable": READABLE}
        told = [{"name": s.name, "title": s.title} for s in self.samples]
        listed = await self.decoder.do(self.choices.listed)
        return {**listed, "samples": told, "limits": limits, "runs": list(self.choices.run_folders())}

    async def session(self, request: "Request") -> Any:
        return {"session": self.pictures.open()}

    async def upload(self, request: "Request") -> Any:
        session = self._session(request)
        if self.arriving >= UPLOADS:
            raise BusyError("Many pictures are arriving at this moment. Try again in a few seconds.")
        self.arriving += 1
        try:
            content = await read_body(request, MOST_BYTES)
        finally:
            self.arriving -= 1
        name = Path(unquote(request.headers.get("x-name", "picture"))[:200]).name or "picture"

        def read() -> Picture:
            return self.pictures.add(session, read_upload(content, name), name)

        return _told(await self.decoder.do(read))

    async def sample(self, request: "Request") -> Any:
        session, chosen = self._session(request), self._sample(request)
        image = await self.decoder.do(chosen.make)
        return _told(self.pictures.add(session, image, chosen.name))

    async def sample_picture(self, request: "Request") -> Any:
        """Not of a session: everybody sees the same."""
        chosen = self._sample(request)
        return await self.decoder.do(lambda: as_png(chosen.make())), "image/png"

    def _sample(self, request: "Request") -> Any:
        index = request.path_params["index"]
        if index >= len(self.samples):
            raise ValueError(f"There are {len(self.samples)} samples")
        return self.samples[index]

    async def picture(self, request: "Request") -> Any:
        found = self.pictures.get(self._session(request), request.path_params["picture"])
        content = await self.decoder.do(found.displayed)
        return content, "image/png" if content.startswith(b"\x89PNG") else "image/jpeg"

    # ------------------------------------------------------------ models

    async def describe(self, request: "Request") -> Any:
        """What a choice is and can show."""
        self._session(request)
        asked = await read_asked(request)

        def answer() -> dict[str, Any]:
            opened = self.choices.open(text(asked, "choice"))
            told: dict[str, Any] = {
                "label": opened.choice.label,
                "task": opened.choice.task,
                "arguments": opened.choice.arguments,
                "random": opened.choice.file is None and opened.choice.weights is None,
            }
            try:
                return {**told, **looks.describe(opened.plain())}
            except ValueError as error:
                return {**told, "stages": None, "why": str(error)}

        return await self.models.do(answer, gone=request.is_disconnected)

    async def predict(self, request: "Request") -> Any:
        picture, asked = await self._picture(request)

        def answer() -> Answer:
            return predictions.predict(self.choices.open(text(asked, "choice")), picture)

        return await self.models.do(answer, gone=request.is_disconnected)

    async def look(self, request: "Request") -> Any:
        """`view`: seen, attention, row, offsets, frequency, features, arrays."""
        picture, asked = await self._picture(request)
        view = request.path_params["view"]
        return await self.models.do(lambda: self._look(view, picture, asked), gone=request.is_disconnected)

    def _look(self, view: str, picture: Picture, asked: dict[str, Any]) -> Any:
        opened = self.choices.open(text(asked, "choice"))
        look = opened.plain()
        stage, block, cell = (number(asked, name) for name in ("stage", "block", "cell"))
        if view == "row" and (found := self._known_sources(opened, picture, stage, block)) is not None:
            return looks.attention_row(found, cell)
        seen = look.see(picture.image if look.task == "classification" else picture.reduced)

        def sources() -> looks.Sources:
            found = self._known_sources(opened, picture, stage, block)
            if found is None:
                found = looks.sources_of(look, seen, stage, block)
                with self._lock:
                    self._sources[_key(opened, picture, stage, block)] = found
                    while len(self._sources) > KEPT_SOURCES:
                        self._sources.popitem(last=False)
            return found

        if view == "seen":
            return looks.seen_picture(seen)
        if view == "attention":
            return looks.attention(look, sources(), stage)
        if view == "row":
            return looks.attention_row(sources(), cell)
        if view == "offsets":
            return looks.offsets(look, seen)
        if view == "frequency":
            return looks.frequency(look, seen, stage, block)
        if view == "features":
            return looks.features(look, seen, stage)
        if view == "arrays":
            kind = text(asked, "view")
            content = looks.arrays_of(look, seen, kind, stage=stage, block=block, cell=cell, sources=sources)
            return content, "application/octet-stream"
        raise ValueError(f"There is no view {view!r}")

    def _known_sources(self, opened: Opened, picture: Picture, stage: int, block: int) -> looks.Sources | None:
        with self._lock:
            key = _key(opened, picture, stage, block)
            if key in self._sources:
                self._sources.move_to_end(key)
            return self._sources.get(key)

    # ------------------------------------------------------------ runs

    async def runs(self, request: "Request") -> Any:
        return {"runs": list(self.choices.run_folders())}

    async def run(self, request: "Request") -> Any:
        after = request.query_params.get("after", "0")
        if not after.isdigit():
            raise ValueError(f"after must be a number of lines, got {after!r}")
        folder = self._folder(request)
        return await self.decoder.do(lambda: runs.follow(folder, int(after)))

    async def run_picture(self, request: "Request") -> Any:
        name = request.path_params["picture"]
        if name not in runs.PICTURES:
            raise ValueError(f"{name} is not one of {', '.join(runs.PICTURES)}")
        folder = self._folder(request)
        return await self.decoder.do(lambda: runs.picture(folder, name)), "image/png"

    async def examine(self, request: "Request") -> Any:
        self._session(request)
        folder = self._folder(request)
        return await self.models.do(lambda: runs.examine(folder), gone=request.is_disconnected)

    def _folder(self, request: "Request") -> Path:
        folders = self.choices.run_folders()
        name = request.path_params["name"]
        if name not in folders:
            raise runs.RunGoneError(f"{name} is not, or no longer, among the runs")
        return folders[name]

    # ------------------------------------------------------------ requests

    def _session(self, request: "Request") -> str:
        session = request.headers.get("x-session", "")
        self.pictures.check(session)
        return session

    async def _picture(self, request: "Request") -> tuple[Picture, dict[str, Any]]:
        session = self._session(request)
        asked = await read_asked(request)
        return self.pictures.get(session, text(asked, "picture")), asked


def _key(opened: Opened, picture: Picture, stage: int, block: int) -> tuple[Any, ...]:
    return opened.serial, picture.id, stage, block


def _told(picture: Picture) -> dict[str, Any]:
    width, height = picture.image.size
    return {"picture": picture.id, "name": picture.name, "width": width, "height": height}


async def _answered(answer: Callable[..., Any], request: "Request") -> "Response":
    """What a route gives as a response: an `Answer`, bytes with their type, or plain values; errors as a note."""
    from starlette.requests import ClientDisconnect
    from starlette.responses import Response

    status = 400
    try:
        found = await answer(request)
        if isinstance(found, Answer):
            return Response(pack(found.values, found.arrays), media_type="application/octet-stream")
        if isinstance(found, tuple):
            return Response(found[0], media_type=found[1])
        return _json(found, 200)
    except (ClientDisconnect, LeftError):
        return Response(status_code=499)
    except GoneError as error:
        status, note = 410, error.args[0]
    except runs.RunGoneError as error:
        status, note = 404, str(error)
    except BusyError as error:
        status, note = 503, str(error)
    except TooLargeError as error:
        status, note = 413, str(error)
    except (ValueError, OSError, ImportError) as error:
        note = " ".join(str(error).split())
    except Exception as error:
        logger.exception("litevit app: %s", request.url.path)
        status, note = 500, f"That went wrong in the server ({type(error).__name__}); its terminal says more."
    return _json({"error": note}, status)


def _json(told: Any, status: int) -> "Response":
    """In ASCII: a name may hold half of a pair of surrogates, which JSON can write and UTF-8 cannot."""
    from starlette.responses import Response

    content = json.dumps(told, allow_nan=False, separators=(",", ":"))
    return Response(content, status, media_type="application/json")


def create_app(choices: Choices, *, host: str = "127.0.0.1", token: str | None = None, **options: Any) -> Guard:
    """The whole page as an ASGI application.

    Args:
        host: where it will listen; see `Guard`.
        token: see `Guard`.
        options: of `Server`.
    """
    return Guard(Server(choices, **options).asgi(), host=host, token=token)


def listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises OSError of one line where that does not go. Args: port: 0 takes any that is free."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise OSError(f"--host {host} is no address of this machine ({error.strerror})") from None
    bound = socket.socket(family)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
        bound.listen()  # Linux lets two bind one port, but not listen
    except OSError as error:
        bound.close()
        raise OSError(
            f"Cannot listen on {host} port {port}: {error.strerror}. Another program may have it: choose another with "
            "--port, 0 takes any that is free."
        ) from None
    return bound


def serve(choices: Choices, *, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serves until interrupted.

    Args:
        ready: is called with the address once it can be opened.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ImportError:
        raise ImportError(NEEDS) from None

    bound = listen(host, port)
    token = None if is_loopback(host) else secrets.token_urlsafe(16)
    app = create_app(choices, host=host, token=token)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, server_header=False))
    shown = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    ready(f"http://{shown}:{bound.getsockname()[1]}/{token + '/' if token else ''}")
    try:
        server.run(sockets=[bound])
    finally:
        bound.close()
