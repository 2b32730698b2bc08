"""What a model finds in a picture, as the page draws it: at the size the browser shows, thresholds left to it."""

import time
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from litevit.app.choices import Opened
from litevit.app.packing import Answer
from litevit.app.pictures import Picture
from litevit.data.class_names import ClassList
from litevit.jobs.dense_models import SEMANTIC, DenseModel
from litevit.jobs.draw import colour
from litevit.jobs.predict import class_names
from litevit.jobs.predict_dense import answer
from litevit.jobs.preprocessing import of_classifier

TOP = 10
VOID = 65535  # in a map: no segment


@torch.no_grad()
def predict(opened: Opened, picture: Picture) -> Answer:
    """Classes with probabilities, or objects, or a map, with the seconds it took. See `page/predict.js`."""
    choice = opened.choice
    start = time.perf_counter()
    if choice.task == "classification":
        found = _classify(opened, picture.image)
    elif choice.task in ("features", "module"):
        raise ValueError(f"{choice.label} gives features, no predictions. Choose a whole model.")
    else:
        found = _dense(opened, picture)
        if picture.reduced is not picture.image:
            found.values["reduced"] = list(picture.reduced.size)
    seconds = time.perf_counter() - start
    random = choice.file is None and choice.weights is None
    told = {"task": choice.task, "label": choice.label, "random": random, "seconds": seconds}
    return Answer({**told, **found.values}, found.arrays)


def _classify(opened: Opened, image: Image.Image) -> Answer:
    file, look = opened.exported, opened.look
    if file is not None:
        if file.prepare is not None:
            prepare: Any = file.prepare
        else:
            assert file.preprocessing is not None
            prepare = of_classifier(file.preprocessing)
        batch = prepare(image)[None].expand(file.shape.batch or 1, -1, -1, -1).contiguous()
        logits, names = file(batch)[0], list(file.classes)
    else:
        assert look is not None
        batch = look.see(image).batch
        logits, names = look.model(batch)[0], list(look.names)
    probabilities = logits.float().softmax(-1).cpu()
    if len(names) != len(probabilities):
        names = class_names(len(probabilities))
    values, indices = probabilities.topk(min(TOP, len(probabilities)))
    guesses = [{"name": names[k], "index": k, "p": float(p)} for p, k in zip(values, indices.tolist())]
    return Answer({"kind": "classes", "guesses": guesses, "input": list(batch.shape[-2:])}, {})


def _dense(opened: Opened, picture: Picture) -> Answer:
    if opened.exported is not None:
        file = opened.exported
        config: Any = getattr(file, "config", None)
        # A detector's own threshold, as of its model beside it: the page's slider does the rest.
        dense = file.as_dense(score_threshold=getattr(config, "score_threshold", None))
    else:
        look = opened.plain()
        names = tuple(look.names)
        dense = DenseModel(look.model, opened.choice.label, look.task, ClassList(names, tuple(range(len(names)))))
    image = picture.reduced
    found = answer(dense, image)
    width, height = picture.displayed_size()
    size = (height, width)
    names = tuple(dense.classes.names)
    if dense.task == SEMANTIC:
        return _semantic(found["semantic"], names, size)
    if "panoptic" in found:
        return _panoptic(found, names, size)
    return _objects(found, names, size, (image.height, image.width))


def _semantic(labels: Tensor, names: tuple[str, ...], size: tuple[int, int]) -> Answer:
    shown = _resized(labels, size)
    counts = torch.bincount(shown.flatten().clamp(min=0), minlength=len(names))
    order = [k for k in counts.argsort(descending=True).tolist() if counts[k] > 0]
    place = torch.full((len(counts),), VOID, dtype=torch.int64)
    place[torch.tensor(order)] = torch.arange(len(order))
    segments = [
        {"name": names[k], "share": float(counts[k]) / shown.numel(), "colour": colour(k), "thing": False}
        for k in order
    ]
    return Answer({"kind": "map", "segments": segments}, {"map": place[shown].numpy().astype(np.uint16)})


def _panoptic(found: dict[str, Any], names: tuple[str, ...], size: tuple[int, int]) -> Answer:
    shown = _resized(found["panoptic"], size)
    ordered = sorted(found["segments_info"], key=lambda s: (not s["isthing"], -s["score"]))
    out = torch.full(size, VOID, dtype=torch.int64)
    segments = []
    for n, s in enumerate(ordered):
        inside = shown == s["id"]
        out[inside] = n
        tint = colour(n) if s["isthing"] else colour(s["category_id"], soft=True)
        segments.append(
            {
                "name": names[s["category_id"]],
                "share": float(inside.float().mean()),
                "score": float(s["score"]),
                "colour": tint,
                "thing": bool(s["isthing"]),
            }
        )
    return Answer({"kind": "map", "segments": segments}, {"map": out.numpy().astype(np.uint16)})


def _objects(found: dict[str, Any], names: tuple[str, ...], size: tuple[int, int], whole: tuple[int, int]) -> Answer:
    order = found["scores"].argsort(descending=True)
    boxes, scores, labels = (found[key][order] for key in ("boxes", "scores", "labels"))
    (height, width), (H, W) = size, whole
    boxes = boxes.float() * torch.tensor([width / W, height / H] * 2)
    values = {
        "kind": "objects",
        "names": sorted({names[k] for k in labels.tolist()}),
        "labels": [names[k] for k in labels.tolist()],
        "colours": {names[k]: colour(k) for k in labels.tolist()},
        "scores": [round(s, 5) for s in scores.tolist()],
    }
    arrays = {"boxes": boxes.numpy().astype(np.float32).reshape(-1, 4)}
    if "masks" in found:
        corners, parts = [], []
        for mask, box in zip(found["masks"][order], boxes.round().long().tolist()):
            x1, y1 = max(box[0] - 2, 0), max(box[1] - 2, 0)
            x2, y2 = min(box[2] + 3, width), min(box[3] + 3, height)
            part = _resized(mask, size)[y1:y2, x1:x2].numpy().astype(bool)
            corners.append((x1, y1, part.shape[1], part.shape[0]))
            parts.append(np.packbits(part.reshape(-1)))
        arrays["corners"] = np.array(corners, np.int32).reshape(-1, 4)
        arrays["bits"] = np.concatenate(parts) if parts else np.zeros(0, np.uint8)
    return Answer(values, arrays)


def _resized(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Nearest cells. Args: values: (H, W)."""
    rows, columns = (torch.arange(n) * whole // n for n, whole in zip(size, values.shape))
    return values if tuple(values.shape) == size else values[rows[:, None], columns]
