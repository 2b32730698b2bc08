"""How fast a data set is listed, and how fast the doctor decodes beside Pillow alone.

    python benchmarks/doctor_speed.py IMAGES

IMAGES: a folder that holds JPEG or PNG files, at any depth; 200 of a camera's size do. 100,000 empty files in 1,000
class folders are made in a temporary folder for the listing. The decoders take turns, with the doctor's threads.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from litevit.data.class_folders import survey, table
from litevit.data.doctor.pictures import THREADS, in_threads, look
from litevit.data.images import is_image
from litevit.data.layouts import find_layout

ROUNDS = 7


def listing() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for split, count in (("train", 90), ("val", 10)):
            for number in range(1000):
                place = root / split / f"class {number}"
                place.mkdir(parents=True)
                for i in range(count):
                    (place / f"{i:05d}.jpg").touch()
        started = time.perf_counter()
        layout = find_layout(root, "classification")
        parts = survey(root)
        table(parts)
        seconds = time.perf_counter() - started
    print(f"{sum(part.images for part in parts):,} files: {layout.name}, listed and told in {seconds:.1f} s")


def pillow(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


def decoding(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if is_image(path))
    rates: dict[str, list[float]] = {"Pillow alone": [], "the doctor": []}
    decoders: tuple[Callable[[Path], Any], ...] = (pillow, look)
    for turn in range(ROUNDS + 1):  # the first one reads the files into the system's cache
        for name, decode in zip(rates, decoders):
            started = time.perf_counter()
            for _ in in_threads(decode, files):
                pass
            if turn:
                rates[name].append(len(files) / (time.perf_counter() - started))
    alone, ours = (statistics.median(values) for values in rates.values())
    ratios = sorted(b / a for a, b in zip(*rates.values()))
    print(f"{len(files)} images, {THREADS} threads: Pillow alone {alone:.1f} images/s, the doctor {ours:.1f}")
    print(f"share: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}, {ROUNDS} turns)")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    listing()
    decoding(Path(sys.argv[1]))
