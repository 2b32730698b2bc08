"""Pictures of what dense models find: per image the truth on the left, the model's answer on the right."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.utils.data import Dataset

from litevit.files import whole_file
from litevit.jobs import draw

MOST = 8  # images on a sheet
COLUMNS = 2  # of pairs
MIN_SCORE = 0.5  # of detections that are drawn
CAPTION = 28  # pixels above a picture for its caption
GAP = 12


def _sheet(pairs: Sequence[tuple[Image.Image, Image.Image]], path: Path) -> None:
    width = max(picture.width for pair in pairs for picture in pair)
    columns = min(COLUMNS, len(pairs))
    rows = [pairs[i : i + columns] for i in range(0, len(pairs), columns)]
    heights = [CAPTION + GAP + max(picture.height for pair in row for picture in pair) for row in rows]
    page = Image.new("RGB", (columns * (2 * width + 3 * GAP), sum(heights)), "white")
    pen = ImageDraw.Draw(page)
    font = draw.text_font(CAPTION - 8)
    top = 0
    for row, height in zip(rows, heights):
        for column, pair in enumerate(row):
            left = column * (2 * width + 3 * GAP)
            for picture, caption, x in zip(pair, ("truth", "found"), (left, left + width + GAP)):
                pen.text((x, top + 2), caption, fill="black", font=font)
                page.paste(picture, (x, top + CAPTION))
        top += height
    with whole_file(path) as temporary:
        page.save(temporary, format="PNG")


def _objects(image: Tensor, found: dict[str, Any], classes: Sequence[str]) -> Image.Image:
    """Boxes, masks, names and scores of an answer or of the truth."""
    scores = found.get("scores")
    keep = scores >= MIN_SCORE if scores is not None else torch.ones(len(found["labels"]), dtype=torch.bool)
    names = [classes[label] for label in found["labels"][keep].tolist()]
    if scores is not None:
        names = [f"{name} {score:.2f}" for name, score in zip(names, scores[keep].tolist())]
    else:
        names = [f"crowd of {name}" if crowd else name for name, crowd in zip(names, found["iscrowd"].tolist())]
    masks = found["masks"][keep].bool() if "masks" in found else None
    return draw.draw_detections(image, found["boxes"][keep], names, masks=masks)


def _samples(model: nn.Module, dataset: Dataset) -> Iterator[tuple[Tensor, Tensor, dict[str, Any]]]:
    """Image, the same on the model's device, target."""
    device = next(model.parameters()).device
    for index in range(min(MOST, len(dataset))):  # type: ignore[arg-type]
        image, target = dataset[index]
        image = image.as_subclass(Tensor)
        plain = {k: v.as_subclass(Tensor) if isinstance(v, Tensor) else v for k, v in target.items()}
        yield image, image.to(device), plain


@torch.no_grad()
def draw_detections(model: nn.Module, dataset: Dataset, classes: Sequence[str], path: Path) -> None:
    pairs = []
    for picture, image, target in _samples(model, dataset):
        (found,) = model([image])
        found = {key: value.cpu() for key, value in found.items()}
        pairs.append((_objects(picture, target, classes), _objects(picture, found, classes)))
    _sheet(pairs, path)


@torch.no_grad()
def draw_panoptic(model: nn.Module, dataset: Dataset, classes: Sequence[str], path: Path) -> None:
    """Stuff in its class's colour, every thing in one of its own, void black."""
    pairs = []
    for picture, image, target in _samples(model, dataset):
        (found,) = model([image])
        truth = draw.draw_panoptic(picture, target["panoptic"], target["segments_info"], classes)
        pairs.append((truth, draw.draw_panoptic(picture, found["panoptic"].cpu(), found["segments_info"], classes)))
    _sheet(pairs, path)


@torch.no_grad()
def draw_segmentation(model: nn.Module, dataset: Dataset, classes: Sequence[str], path: Path) -> None:
    pairs = []
    for picture, image, target in _samples(model, dataset):
        labels = model.segment(image).cpu()  # type: ignore[operator]
        pairs.append((draw.draw_map(picture, target["semantic"], classes), draw.draw_map(picture, labels, classes)))
    _sheet(pairs, path)
