"""What the run view shows of a training run's folder, while it trains and after."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from litevit.app.packing import Answer
from litevit.checkpoints.recorded import check_recipe
from litevit.data.classification import create_dataset
from litevit.engine.logging import read_metrics
from litevit.files import read_json, without_nan
from litevit.jobs.runs import CLASSIFICATION, Run

PICTURES = ("predictions.png", "confusion.png")  # what training draws when it ends
ALIVE = 120.0  # seconds since the last line that say a run may still be going
SECONDS = 20.0  # that an examination may hold up the models
MISTAKES = 24
THUMBNAIL = 64  # pixels


class RunGoneError(LookupError):
    """A run, or a file of it, that is not, or no longer, there."""


def follow(folder: Path, after: int = 0) -> dict[str, Any]:
    """Recipe and result of a run, and the lines of its metrics that the page does not have yet.

    Args:
        after: how many lines it has.

    Raises:
        RunGoneError: the folder is not there, or goes while it is read.
        ValueError: its recipe or result is none of litevit's.
    """
    try:
        return _follow(folder, after)
    except (FileNotFoundError, NotADirectoryError):
        raise RunGoneError(f"{folder.name} is no longer there") from None


def picture(folder: Path, name: str) -> bytes:
    """A file of `PICTURES`. Raises RunGoneError."""
    try:
        return (folder / name).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise RunGoneError(f"{folder.name} has no {name}, or no longer") from None


def _follow(folder: Path, after: int) -> dict[str, Any]:
    recipe = check_recipe(read_json(folder / "recipe.json"), folder / "recipe.json")
    if not recipe:
        raise ValueError(f"{folder / 'recipe.json'} is empty: no run of litevit has written it")
    metrics, result = folder / "metrics.jsonl", folder / "result.json"
    rows = read_metrics(metrics) if metrics.is_file() else []
    if after > len(rows):  # begun anew
        after = 0
    finished = result.is_file()
    quiet = time.time() - metrics.stat().st_mtime if metrics.is_file() else 0.0
    told: dict[str, Any] = {
        "summary": _summary(recipe),
        "from": after,
        "rows": rows[after:],
        "state": "finished" if finished else "training" if quiet < ALIVE else "quiet",
        "result": _object(result) if finished else None,
        "pictures": [name for name in PICTURES if (folder / name).is_file()],
        "examinable": str(recipe.get("task", "classification")) in CLASSIFICATION
        and (folder / "best.safetensors").is_file(),
    }
    return without_nan(told)


def _object(file: Path) -> dict[str, Any]:
    told = read_json(file)
    if not isinstance(told, dict):
        raise ValueError(f"{file} must be an object, got {told!r:.60}; the file is damaged")
    return told


def _summary(recipe: dict[str, Any]) -> list[tuple[str, str]]:
    def part(name: str) -> dict[str, Any]:
        found = recipe.get(name)
        return found if isinstance(found, dict) else {}

    model, data, on = recipe["model"], recipe["data"], recipe["model"]["overrides"].get("backbone")
    rows = [
        ("recipe", recipe.get("name")),
        ("task", recipe.get("task", "classification")),
        ("model", f"{model['name']}{f' on {on}' if on else ''}"),
        ("data", data.get("path") or data.get("reader") or ""),
        ("epochs", part("schedule").get("epochs")),
        ("batch", part("run").get("batch_size")),
        ("learning rate", part("optim").get("lr")),
    ]
    return [(name, f"{value!s:.300}") for name, value in rows if value not in (None, "")]


@torch.no_grad()
def examine(folder: Path) -> Answer:
    """Confusion matrix and surest mistakes on the held-out images, as many as `SECONDS` allow, spread over the set."""
    run = Run.open(folder)
    if run.task not in CLASSIFICATION:
        raise ValueError(f"{folder.name} does {run.task}; what it gets wrong is in predictions.png")
    data = run.recipe.data
    if data.stream:
        raise ValueError(f"{folder.name} reads its images as a stream: litevit eval --run measures it")
    dataset: Any = create_dataset(data, "eval", classes=run.classes)
    model = run.model()
    names = list(run.classes or getattr(dataset, "classes", ()) or map(str, range(data.num_classes)))
    K = len(names)
    order = np.random.default_rng(0).permutation(len(dataset))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (data.mean, data.std))
    confusion = np.zeros((K, K), np.int32)
    mistakes: list[tuple[float, int, int, torch.Tensor]] = []
    start, seen = time.monotonic(), 0
    for first in range(0, len(order), 32):
        samples = [dataset[int(i)] for i in order[first : first + 32]]
        images = torch.stack([image for image, _ in samples])
        sure, guess = model(images).float().softmax(1).max(1)
        for image, (_, label), p, k in zip(images, samples, sure.tolist(), guess.tolist()):
            confusion[label, k] += 1
            if label != k:
                mistakes.append((p, label, k, image * std + mean))
        mistakes = sorted(mistakes, key=lambda m: -m[0])[:MISTAKES]
        seen += len(samples)
        if time.monotonic() - start > SECONDS:
            break
    small = [F.interpolate(m[3][None], (THUMBNAIL, THUMBNAIL), mode="bicubic")[0] for m in mistakes]
    pictures = np.zeros((0, THUMBNAIL, THUMBNAIL, 3), np.uint8)
    if small:
        pictures = (torch.stack(small).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    values = {
        "kind": "examined",
        "names": names,
        "seen": seen,
        "of": len(order),
        "right": int(np.trace(confusion)),
        "mistakes": [{"is": names[label], "said": names[k], "p": p} for p, label, k, _ in mistakes],
    }
    return Answer(values, {"confusion": confusion, "pictures": pictures})
