"""What the run view shows of a training run's folder, while it trains and after."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from litevit.app.packing import Answer
from litevit.data.classification import create_dataset
from litevit.engine.logging import read_metrics
from litevit.files import without_nan
from litevit.jobs.runs import CLASSIFICATION, Run

PICTURES = ("predictions.png", "confusion.png")  # what training draws when it ends
ALIVE = 120.0  # seconds since the last line that say a run may still be going
SECONDS = 20.0  # that an examination may hold up the models
MISTAKES = 24
THUMBNAIL = 64  # pixels


def follow(folder: Path, after: int = 0) -> dict[str, Any]:
    """Recipe and result of a run, and the lines of its metrics that the page does not have yet.

    Args:
        after: how many lines it has.
    """
    recipe = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
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
        "result": json.loads(result.read_text(encoding="utf-8")) if finished else None,
        "pictures": [name for name in PICTURES if (folder / name).is_file()],
        "examinable": recipe.get("task", "classification") in CLASSIFICATION
        and (folder / "best.safetensors").is_file(),
    }
    return without_nan(told)


def _summary(recipe: dict[str, Any]) -> list[tuple[str, str]]:
    model, data, run = recipe["model"], recipe["data"], recipe["run"]
    made = model.get("overrides", {})
    rows = [
        ("recipe", recipe["name"]),
        ("task", recipe.get("task", "classification")),
        ("model", f"{model['name']}{' on ' + str(made['backbone']) if made.get('backbone') else ''}"),
        ("data", data.get("path") or data.get("reader") or ""),
        ("epochs", recipe["schedule"].get("epochs")),
        ("batch", run.get("batch_size")),
        ("learning rate", recipe["optim"].get("lr")),
    ]
    return [(name, str(value)) for name, value in rows if value not in (None, "")]


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
