"""How soon the page of `litevit app` answers, in a real Chromium: a click in the explorer, and a new picture.

    python benchmarks/app_click.py [--model litv2_s] [--stage 3] [--clicks 60] [--pictures 8] [--threads 2]

A click: from the event until everything is drawn, and until the frame with it is shown. A new picture: from the choice
of a file until its classes, or its attention, are on the page; beside it the model's eager time in the same process,
and the limit, 1.5 times that and 0.3 s. Needs Playwright and a Chromium.
"""

import argparse
import io
import platform
import shutil
import statistics
import threading
import time
from typing import Any

import numpy as np
import torch
import uvicorn
from PIL import Image
from playwright.sync_api import sync_playwright

from litevit.app.choices import Choices
from litevit.app.server import create_app, listen

# Clicks cells one after the other; each gives [until drawn, until its frame], in milliseconds.
CLICKS = """async (count) => {
    const canvas = document.getElementById("canvas"), box = canvas.getBoundingClientRect(), times = [];
    for (let n = 0; n < count; n++) {
        const x = box.left + box.width * ((0.37 + 0.618 * n) % 1), y = box.top + box.height * ((0.11 + 0.414 * n) % 1);
        await new Promise(requestAnimationFrame);
        const start = performance.now();
        const event = { clientX: x, clientY: y, bubbles: true, buttons: 1, pointerId: 1 };
        canvas.dispatchEvent(new PointerEvent("pointerdown", event));
        canvas.getContext("2d").getImageData(0, 0, 1, 1); // what is drawn has to be there
        const drawn = performance.now() - start;
        await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
        times.push([drawn, performance.now() - start]);
    }
    return times;
}"""


def picture(seed: int) -> dict[str, Any]:
    file = io.BytesIO()
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8))
    small.resize((640, 480), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return {"name": f"picture-{seed}.jpg", "mimeType": "image/jpeg", "buffer": file.getvalue()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="litv2_s")
    parser.add_argument("--stage", default="3")
    parser.add_argument("--clicks", type=int, default=60)
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    choices = Choices(model=asked.model, weights="none")
    bound = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(create_app(choices), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    look = choices.open(choices.first).plain()
    image = Image.open(io.BytesIO(picture(0)["buffer"]))

    def eager() -> float:
        start = time.perf_counter()
        with torch.no_grad():
            look.model(look.see(image).batch)  # type: ignore[arg-type]
        return time.perf_counter() - start

    with sync_playwright() as tools:
        path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        browser = tools.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(f"http://127.0.0.1:{bound.getsockname()[1]}/")
        page.wait_for_selector("body[data-ready=true]")
        eager()
        plain, classes, attention = [], [], []
        page.set_input_files("#file", picture(0))
        page.wait_for_selector(".panel canvas[aria-label*='picture-0']")
        for n in range(1, asked.pictures + 1):
            plain.append(eager())
            start = time.perf_counter()
            page.set_input_files("#file", picture(n))
            page.wait_for_selector(f".panel canvas[aria-label*='picture-{n}.']")
            classes.append(time.perf_counter() - start)
        page.click("#tab-look")
        page.select_option("#stage", asked.stage)
        page.wait_for_selector("#frame:not([aria-busy])")
        before = page.get_attribute("#canvas", "data-key")
        for n in range(asked.pictures):
            plain.append(eager())
            start = time.perf_counter()
            page.set_input_files("#file", picture(100 + n))
            page.wait_for_selector(f"#canvas:not([data-key='{before}'])")
            attention.append(time.perf_counter() - start)
            before = page.get_attribute("#canvas", "data-key")
        times = page.evaluate(CLICKS, asked.clicks)
        browser.close()
    server.should_exit = True
    thread.join(10)

    def told(values: list[float]) -> str:
        return f"median {1000 * statistics.median(values):6.1f} ms, worst {1000 * max(values):6.1f} ms"

    drawn, framed = ([time[k] / 1000 for time in times] for k in (0, 1))
    limit = 1.5 * statistics.median(plain) + 0.3
    print(f"{asked.model}, stage {asked.stage}; {platform.processor() or platform.machine()}, {asked.threads} threads")
    print(f"a click, until drawn:          {told(drawn)}   (limit 30 ms)")
    print(f"a click, until its frame:      {told(framed)}   (a frame of 60 Hz is 16.7 ms)")
    print(f"eager time of the model:       {told(plain)}")
    print(f"new picture until its classes: {told(classes)}   (limit 1.5 x eager + 0.3 s = {1000 * limit:.0f} ms)")
    print(f"new picture until attention:   {told(attention)}   (the same limit)")


if __name__ == "__main__":
    main()
