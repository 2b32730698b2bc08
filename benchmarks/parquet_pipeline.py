"""How close `litevit predict --format parquet` comes to the slower of its halves: decoding alone, the model alone.

    OMP_NUM_THREADS=1 python benchmarks/parquet_pipeline.py --model lvt --images 512 --workers 1

Photographs are made (noise on a gradient, JPEG of 640 x 480) unless a folder is given. Decoding is reading, decoding
and resizing in as many threads as the pipeline has; the model runs on prepared batches; the whole writes its files. The
halves must not share processors: keep threads of the model (OMP_NUM_THREADS) and --workers within the cores together.
"""

import json
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from PIL import Image

from litevit.data.many_images import Item, find_inputs
from litevit.jobs.predict_parquet import predict_parquet, prepared
from litevit.jobs.predict_rows import RowPredictor, open_predictor


def make_images(folder: Path, count: int) -> None:
    """Pictures of the size and weight of photographs (about 100 KB)."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:480, :640]
    for i in range(count):
        smooth = np.stack([x / 640, y / 480, (x + y) / 1120], 2) * 200
        grain = np.kron(rng.normal(0, 25, (120, 160, 3)), np.ones((4, 4, 1)))
        Image.fromarray((smooth + grain + 20).clip(0, 255).astype(np.uint8)).save(folder / f"{i:05d}.jpg", quality=90)


def decode_alone(predictor: RowPredictor, items: list[Item], workers: int) -> float:
    """Images per second."""
    begin = time.perf_counter()
    deque(prepared(predictor, items, workers=workers), maxlen=0)
    return len(items) / (time.perf_counter() - begin)


def model_alone(predictor: RowPredictor, items: list[Item]) -> float:
    """Images per second, of batches that are ready."""
    batch = [predictor.prepare(item.content, item.path) for item in items[: predictor.batch_size]]
    predictor.answer(batch)
    rounds = max(1, len(items) // len(batch))
    begin = time.perf_counter()
    for _ in range(rounds):
        predictor.answer(batch)
    return rounds * len(batch) / (time.perf_counter() - begin)


def main(
    model: str = "lvt",
    weights: str = "none",
    folder: Path | None = None,
    images: int = 512,
    workers: int = 1,
    batch_size: int = 16,
    rounds: int = 3,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Prints the three rates, each the best of some rounds in turns, and their ratio as JSON.

    Args:
        folder: of images; default: they are made.
        images: how many, where they are made.
        workers: threads that decode.
        rounds: measurements of each.
    """
    with tempfile.TemporaryDirectory() as scratch:
        if folder is None:
            folder = Path(scratch) / "images"
            folder.mkdir()
            make_images(folder, images)
        predictor = open_predictor(model, None if weights == "none" else weights, device=device, batch_size=batch_size)
        items = [Item(one.path, one.path) for one in find_inputs([folder])]
        model_alone(predictor, items[:batch_size])  # warm
        rates: dict[str, list[float]] = {"decoding": [], "model": [], "whole": []}
        for number in range(rounds):
            rates["decoding"].append(decode_alone(predictor, items, workers))
            rates["model"].append(model_alone(predictor, items))
            begin = time.perf_counter()
            done = predict_parquet(predictor, [folder], Path(scratch) / f"out-{number}", workers=workers)
            rates["whole"].append(done.images / (time.perf_counter() - begin))
    best = {name: max(found) for name, found in rates.items()}
    slower = min(best["decoding"], best["model"])
    about = {"model": model, "images": len(items), "workers": workers, "threads": torch.get_num_threads()}
    result = {name: round(rate, 2) for name, rate in best.items()}
    print(json.dumps({**about, "images/s": result, "whole / slower": round(best["whole"] / slower, 3)}, indent=1))


if __name__ == "__main__":
    tyro.cli(main)
