"""Hostile requests to the page: uploads, paths, headers and JSON, straight into the ASGI application as a server would hand them on.

Not through Starlette's TestClient: its client refuses much of what a stranger may send.
"""

import asyncio
import json
import random
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hostile.arena import Kind
from hostile.kinds import images, runs
from hostile.mutations import NUMBERS, TEXTS, corrupt, dumps, names, nasty
from litevit.app.choices import Choices
from litevit.app.server import create_app

HOST = b"127.0.0.1:8765"
PATHS = ("/", "/app.js", "/api/list", "/api/session", "/api/pictures", "/api/pictures/x", "/api/samples/1", "/api/describe", "/api/predict", "/api/look/seen", "/api/look/attention",
         "/api/look/row", "/api/look/offsets", "/api/look/frequency", "/api/look/features", "/api/look/arrays", "/api/runs", "/api/runs/tiny", "/api/runs/tiny/predictions.png", "/api/runs/tiny/examine")  # fmt: skip
VIEWS = ("seen", "attention", "row", "offsets", "frequency", "features", "arrays")


class Answer(NamedTuple):
    status: int
    headers: dict[bytes, bytes]
    body: bytes


def prepare(seeds: Path) -> None:
    (seeds / "pictures").mkdir()
    images.prepare(seeds / "pictures")
    run = seeds / "runs" / "tiny"
    run.mkdir(parents=True)
    runs.prepare(run)
    (run / "plain.safetensors").unlink()
    recipe = runs.recipe_of()
    recipe["data"] |= {"image_size": 32, "crop_pct": 1.0}
    (run / "recipe.json").write_text(json.dumps(recipe))


_apps: dict[Path, Any] = {}


def app_of(seeds: Path) -> Any:
    if seeds not in _apps:
        torch.set_num_threads(1)
        _apps[seeds] = create_app(Choices(runs=[seeds / "runs"]))
    return _apps[seeds]


async def call(
    app: Any, method: str, path: str, headers: list[tuple[bytes, bytes]], parts: list[bytes], query: bytes = b""
) -> Answer:
    """One request as uvicorn would make it of these bytes."""
    waiting = [{"type": "http.request", "body": part, "more_body": k + 1 < len(parts)} for k, part in enumerate(parts)]
    said: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if waiting:
            return waiting.pop(0)
        if parts:  # whoever asked waits for the answer
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http", "path": path, "root_path": "",
        "raw_path": path.encode("utf-8", "surrogatepass"), "query_string": query, "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8765),
    }  # fmt: skip
    await app(scope, receive, send)
    start = next(message for message in said if message["type"] == "http.response.start")
    body = b"".join(message.get("body", b"") for message in said if message["type"] == "http.response.body")
    return Answer(start["status"], dict(start["headers"]), body)


def hostile_headers(draw: random.Random, folder: Path) -> list[tuple[bytes, bytes]]:
    values = (
        names(draw, folder).encode("utf-8", "surrogatepass"),
        b"%00%ff%2e%2e%2foutside",
        b"\xff" * 300,
        b"",
        b"x" * 10_000,
        b"127.0.0.1",
        b"http://evil",
        b"null",
        b"[::1",
        b"[",
        b"1e9",
        b"-1",
        b"gzip, chunked",
    )
    keys = (
        b"host",
        b"origin",
        b"x-name",
        b"x-session",
        b"content-length",
        b"content-type",
        b"transfer-encoding",
        b"sec-fetch-site",
        b"cookie",
        b"range",
        b"\xff",
    )
    return [(draw.choice(keys), draw.choice(values)) for _ in range(draw.randrange(3))]


def asked(draw: random.Random, folder: Path, picture: str) -> bytes:
    """The JSON of a request."""
    told: dict[str, Any] = {
        "choice": draw.choice(
            ("run:tiny", "run:tiny", "run:tiny", "model:litv2_s", "given", "exported:0", names(draw, folder))
        ),
        "picture": picture,
    }
    for name in ("stage", "block", "cell"):
        told[name] = draw.choice((0, 1, 1, 2, 3, 4, *NUMBERS[:8], nasty(draw)))
    told["view"] = draw.choice((*VIEWS, *TEXTS[:6]))
    if draw.random() < 0.2:
        told[draw.choice(sorted(told))] = nasty(draw, folder)
    content = dumps(told).encode()
    if draw.random() < 0.1:
        content = draw.choice((corrupt(draw, content), b"[" * 60_000, b"{}", b"", b"[]", b"\xff", b"1" * 66_000))
    return content


def split(draw: random.Random, content: bytes) -> list[bytes]:
    if draw.random() < 0.7 or len(content) < 2:
        return [content]
    at = draw.randrange(len(content))
    return draw.choice(([content[:at], content[at:]], [b"", content], [content, b""], []))


async def visit(app: Any, draw: random.Random, seeds: Path, folder: Path) -> list[Answer]:
    """A session, an upload, and what is asked about it."""
    plain = [(b"host", HOST)]
    answers = [await call(app, "POST", "/api/session", plain, [b""])]
    session = [*plain, (b"x-session", json.loads(answers[0].body)["session"].encode())]
    if draw.random() < 0.4:
        content = images.build(draw, seeds / "pictures")
        name = names(draw, folder).encode("utf-8", "surrogatepass")
    else:
        content, name = (seeds / "pictures" / "RGB.png").read_bytes(), b"a.png"
    if draw.random() < 0.01:
        content *= 33 * 2**20 // max(len(content), 1) + 1
    sent = await call(
        app,
        "POST",
        "/api/pictures",
        [*session, (b"x-name", name), *(hostile_headers(draw, folder) if draw.random() < 0.2 else [])],
        split(draw, content),
    )
    answers.append(sent)
    picture = json.loads(sent.body)["picture"] if sent.status == 200 else "none"
    if sent.status == 200:
        answers.append(await call(app, "GET", f"/api/pictures/{picture}", session, [b""]))
    if draw.random() < 0.6:
        path = draw.choice(("/api/predict", "/api/describe", *(f"/api/look/{view}" for view in VIEWS)))
        answers.append(await call(app, "POST", path, session, split(draw, asked(draw, folder, picture))))
    else:
        path = draw.choice(
            (
                *PATHS,
                "/" + names(draw, folder),
                "/api/runs/" + names(draw, folder),
                "/api/samples/" + str(draw.choice(NUMBERS)),
                "/api/pictures/" + names(draw, folder),
            )
        )
        query = draw.choice(
            (
                b"",
                b"",
                b"after=1",
                b"after=-1",
                b"after=%C2%B2",
                b"after=" + b"9" * 5000,
                b"after=\xff",
                b"after=&after=1",
                "after=٣".encode(),
            )
        )
        head = (
            [*session, *hostile_headers(draw, folder)]
            if draw.random() < 0.7
            else [*hostile_headers(draw, folder), *session]
        )
        method = draw.choice(("GET", "GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "\x00"))
        answers.append(await call(app, method, path, head, split(draw, asked(draw, folder, picture)), query))
    return answers


def attack(draw: random.Random, seeds: Path, folder: Path) -> None:
    answers = asyncio.run(visit(app_of(seeds), draw, seeds, folder))
    for answer in answers:
        assert answer.status < 500, f"status {answer.status}: {answer.body[:300]!r}"
        assert len(answer.body) < 2**25
        assert b"Traceback" not in answer.body
    if bad := [answer for answer in answers if answer.status >= 400]:
        told = bad[0].body.decode(errors="replace")
        raise ValueError(told[:1500] or f"status {bad[0].status}")


KIND = Kind("uploads", attack, prepare, inputs=12_000, share=60, warm=30)
