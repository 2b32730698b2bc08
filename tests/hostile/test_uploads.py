"""Requests that no browser sends: answered by one note, whatever they hold."""

import asyncio
import json

import pytest

pytest.importorskip("starlette", reason="the extra `app`")

from hostile.kinds import uploads
from litevit.app.packing import pack, unpack


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    uploads.prepare(folder)
    return folder


def ask(seeds, method, path, body=b"", **options):
    app = uploads.app_of(seeds)
    plain = [(b"host", uploads.HOST)]
    session = json.loads(asyncio.run(uploads.call(app, "POST", "/api/session", plain, [b""])).body)["session"]
    return asyncio.run(uploads.call(app, method, path, [*plain, (b"x-session", session.encode())], [body], **options))


def test_half_a_pair_of_surrogates_in_a_name(seeds):
    answer = ask(seeds, "POST", "/api/describe", b'{"choice": "model:\\ud800:none"}')
    assert answer.status == 400
    assert "Unknown model '\\ud800'" in json.loads(answer.body)["error"]
    assert ask(seeds, "GET", "/api/runs/\ud800").status == 404
    assert unpack(pack({"names": ["\ud800"]}, {})).values["names"] == ["\ud800"]


@pytest.mark.parametrize("query", [b"after=\xff", b"\xc3"])
def test_an_address_of_bytes(seeds, query):
    answer = ask(seeds, "GET", "/api/runs/tiny", query=query)
    assert (answer.status, answer.body) == (400, b"The address holds bytes that are no text.")


def test_a_whole_visit(seeds):
    sent = ask(seeds, "POST", "/api/pictures", (seeds / "pictures" / "RGB.png").read_bytes())
    assert sent.status == 200
    assert ask(seeds, "GET", "/api/runs/tiny", query=b"after=1").status == 200
