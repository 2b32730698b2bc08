"""Makes the pictures of docs/app.md: `make screenshots`, or `python docs/site/screenshots.py [--only NAME ...]`.

Trains four small models on embedded data (once, into `runs/page`: about fifteen minutes on two cores), exports one,
and photographs the page of `litevit app` in a headless Chromium. Needs Playwright and a Chromium (Debian: apt-get
install chromium).
"""

import argparse
import io
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from litevit import export
from litevit.app.choices import Choices
from litevit.app.server import create_app, listen
from litevit.cli import main as litevit

ROOT = Path(__file__).parents[2]
RUNS = Path("runs/page")  # as it stands in the command lines that the page shows
OUT = Path("docs/images/app")
LARGEST = 160_000  # bytes of a picture

# Run -> what trains it.
TRAINED = {
    "digits": "quickstart",
    "segmenter": "quickstart-segmentation --data.scenes.train 700 --schedule.epochs 3",
    "panoptic": "quickstart-panoptic --data.scenes.train 700 --schedule.epochs 3",
    "detector": "quickstart-detection --data.scenes.train 700",
}
EXPORTED = ("digits",)
GRASS, DIGIT = 2, 5  # samples of the page: a scene of 128 x 128, a three


class Shot(NamedTuple):
    """What is done on the page before it is photographed, and how."""

    act: Callable[[Any], None]
    size: tuple[int, int] = (1280, 960)
    colours: str = "light"
    width: int = 900  # of the picture that is kept
    whole: bool = False  # the page below the window too


def take(page: Any, model: str, sample: int, second: str | None = None) -> None:
    page.select_option("#model", model)
    page.click(f"#samples button >> nth={sample}")
    page.wait_for_selector(".panel")
    if second is not None:
        page.select_option("#second", second)
        page.wait_for_selector(".panel:nth-child(2)")
        page.wait_for_selector("#panels:not([aria-busy])")


def look(page: Any, tool: str, at: tuple[float, float] = (0.56, 0.56)) -> None:
    """Args: at: which pixel is clicked, as shares of width and height."""
    page.click("#tab-look")
    page.check(f"input[value={tool}]", force=True)
    page.wait_for_function("() => document.querySelector('#command').textContent.startsWith('litevit explain')")
    page.wait_for_selector("#frame:not([aria-busy])")
    if tool != "frequency":
        box = page.locator("#canvas").bounding_box()
        page.mouse.click(box["x"] + at[0] * box["width"], box["y"] + at[1] * box["height"])
        page.mouse.move(0, 0)
    page.evaluate("() => document.activeElement.blur()")


def predict(page: Any) -> None:
    take(page, "run:panoptic", GRASS, "run:segmenter")


def mask_rcnn(page: Any) -> None:
    take(page, "run:detector", GRASS)


def exported_twin(page: Any) -> None:
    take(page, "run:digits", DIGIT, "exported:0:digits.onnx")


def attention(page: Any) -> None:
    take(page, "run:segmenter", GRASS)
    look(page, "attention")


def offsets(page: Any) -> None:
    take(page, "run:digits", DIGIT)
    look(page, "offsets", (0.3, 0.3))


def features(page: Any) -> None:
    take(page, "run:segmenter", GRASS)
    look(page, "features", (0.45, 0.82))


def frequencies(page: Any) -> None:
    take(page, "run:segmenter", GRASS)
    look(page, "frequency")


def run(page: Any) -> None:
    page.click("#tab-run")
    page.wait_for_selector(".tiles")
    page.select_option("#run", "digits")
    page.click("text=Examine the held-out images")
    page.wait_for_selector(".confusion", timeout=120_000)


def note(page: Any) -> None:
    take(page, "run:digits", DIGIT)
    content = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(content, "PNG")
    page.set_input_files("#file", {"name": "poster.png", "mimeType": "image/png", "buffer": content.getvalue()})
    page.wait_for_selector(".note")


SHOTS = {
    "predict": Shot(predict),
    "mask_rcnn": Shot(mask_rcnn),
    "exported_twin": Shot(exported_twin),
    "attention_dark": Shot(attention, colours="dark"),
    "offsets": Shot(offsets),
    "features": Shot(features),
    "frequencies": Shot(frequencies),
    "run": Shot(run, size=(1280, 1250)),
    "narrow_dark": Shot(attention, size=(360, 740), colours="dark", width=360, whole=True),
    "wide": Shot(attention, size=(3840, 2160), width=1280),
    "note_dark": Shot(note, colours="dark"),
}


def train_models() -> None:
    for name, words in TRAINED.items():
        if not (RUNS / name / "result.json").exists():
            litevit(["train", *words.split(), "--run.dir", str(RUNS / name)])
    for name in EXPORTED:
        if not (RUNS / f"{name}.onnx").exists():
            export(RUNS / name, RUNS / f"{name}.onnx", format="onnx")


@contextmanager
def serving() -> Iterator[str]:
    import uvicorn

    choices = Choices(runs=[RUNS], exported=[RUNS / f"{name}.onnx" for name in EXPORTED])
    bound = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(create_app(choices), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{bound.getsockname()[1]}/"
    server.should_exit = True
    thread.join(10)


def keep(content: bytes, target: Path, width: int) -> None:
    """In all colours where that stays below `LARGEST`, narrower or else in 256 (an octree keeps rare ones)."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    for colours, part in ((None, 1.0), (None, 0.85), (256, 1.0), (256, 0.85), (256, 0.7)):
        size = (round(width * part), round(image.height * width * part / image.width))
        small = image.resize(size, Image.Resampling.LANCZOS)
        octree = Image.Quantize.FASTOCTREE
        kept = small if colours is None else small.quantize(colours, octree, dither=Image.Dither.NONE)
        kept.save(target, optimize=True)
        if target.stat().st_size < LARGEST:
            return
    raise ValueError(f"{target} has {target.stat().st_size} bytes, more than {LARGEST}")


def photograph(names: list[str], out: Path) -> None:
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    out.mkdir(parents=True, exist_ok=True)
    with serving() as address, sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for name in names:
            shot = SHOTS[name]
            width, height = shot.size
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=shot.colours)
            page.set_default_timeout(120_000)
            page.goto(address)
            page.wait_for_selector("body[data-ready=true]")
            shot.act(page)
            page.wait_for_timeout(500)  # bars grow to their length
            keep(page.screenshot(full_page=shot.whole), out / f"{name}.png", shot.width)
            page.close()
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(SHOTS), default=list(SHOTS))
    parser.add_argument("--out", type=Path, default=OUT, help="where the pictures go")
    asked = parser.parse_args()
    os.chdir(ROOT)
    train_models()
    photograph(asked.only, asked.out)


if __name__ == "__main__":
    sys.exit(main())
