"""An open page in a real Chromium, as the tests of the page use it."""

import io
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from PIL import Image

from litevit.app.choices import Choices
from litevit.app.server import create_app, listen

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def serving(choices: Choices) -> Iterator[str]:
    uvicorn = pytest.importorskip("uvicorn", reason="the extra `app`")
    app = create_app(choices, token="secret")
    bound = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{bound.getsockname()[1]}/secret/"
    server.should_exit = True
    thread.join(10)


class Visit:
    """An open page; what its console says is collected."""

    def __init__(self, browser: Any, address: str, **options: Any):
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.outside: list[str] = []
        self.page.on("console", lambda m: self.said.append(f"{m.type}: {m.text}"))
        self.page.on("pageerror", lambda e: self.said.append(str(e)))
        self.page.on("request", lambda r: None if r.url.startswith((address, "blob:")) else self.outside.append(r.url))
        self.page.goto(address)
        self.page.wait_for_selector("body[data-ready=true]")

    def sample(self, index: int = 4) -> None:
        self.page.click(f"#samples button >> nth={index}")

    def look(self, tool: str = "attention") -> None:
        self.page.click("#tab-look")
        self.page.check(f"input[value={tool}]", force=True)
        self.page.wait_for_selector("#frame:not([aria-busy])")

    def cell(self) -> int:
        return int(self.page.get_attribute("#canvas", "data-cell"))

    def close(self) -> None:
        """Also: nothing was asked of anybody else, and only refusals that a test provoked are in the console."""
        cookies = self.context.cookies()
        stored = self.page.evaluate("() => localStorage.length + sessionStorage.length")
        self.context.close()
        said = [line for line in self.said if "Failed to load resource" not in line]
        assert not said, said
        assert not self.outside, self.outside
        assert not cookies
        assert stored == 0


def picture_file(seed: int = 0) -> dict[str, Any]:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return {"name": "noise.png", "mimeType": "image/png", "buffer": file.getvalue()}
