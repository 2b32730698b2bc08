"""Pictures of what dense models find: per image the truth on the left, the model's answer on the right."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import to_pil_image
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks, make_grid

MOST = 16  # images on a sheet
MIN_SCORE = 0.5  # of detections that are drawn


def palette(size: int = 256) -> Tensor:
    """(size, 3) uint8, neighbours far apart in hue; the last one is black."""
    hues = (torch.arange(size) * 0.618034) % 1.0
    shades = torch.stack([(hues * 6 - k).remainder(6) for k in (0, 2, 4)], dim=1)
    colours = ((shades - 3).abs() - 1).clamp(0, 1) * 200 + 40
    colours[-1] = 0
    return colours.to(torch.uint8)


def _sheet(pairs: list[tuple[Tensor, Tensor]], path: Path, side: int = 320) -> None:
    tiles = []
    for pair in pairs:
        for picture in pair:
            scale = side / max(picture.shape[-2:])
            size = [max(round(n * scale), 1) for n in picture.shape[-2:]]
            small = torch.nn.functional.interpolate(picture[None].float(), size=size, mode="bilinear", antialias=True)[
                0
            ]
            tile = torch.full((3, side, side), 255.0)
            tile[:, : size[0], : size[1]] = small
            tiles.append(tile)
    grid = make_grid(tiles, nrow=8 if len(pairs) > 2 else 2, padding=4, pad_value=255)
    to_pil_image(grid.clamp(0, 255).to(torch.uint8)).save(path)


def _objects(image: Tensor, found: dict[str, Any], classes: Sequence[str]) -> Tensor:
    """Args: image: (3, H, W) uint8. Returns: the same with boxes, masks, names and scores."""
    keep = found["scores"] >= MIN_SCORE if "scores" in found else torch.ones(len(found["labels"]), dtype=torch.bool)
    if not keep.any():
        return image
    labels = found["labels"][keep].tolist()
    colours = [tuple(c) for c in palette()[[7 * i % 255 for i in range(len(labels))]].tolist()]
    names = [classes[label] for label in labels]
    if "scores" in found:
        names = [f"{name} {score:.2f}" for name, score in zip(names, found["scores"][keep].tolist())]
    if "masks" in found:
        image = draw_segmentation_masks(image, found["masks"][keep].bool(), alpha=0.5, colors=colours)
    return draw_bounding_boxes(image, found["boxes"][keep], labels=names, colors=colours)


def _map(image: Tensor, labels: Tensor) -> Tensor:
    """A label map over the image. Args: labels: (H, W) integers; 255 stays black."""
    return (0.35 * image + 0.65 * palette()[labels.long()].permute(2, 0, 1)).to(torch.uint8)


def _samples(model: nn.Module, dataset: Dataset) -> Any:
    device = next(model.parameters()).device
    for index in range(min(MOST, len(dataset))):  # type: ignore[arg-type]
        image, target = dataset[index]
        target = {k: v.as_subclass(Tensor) if isinstance(v, Tensor) else v for k, v in target.items()}
        yield (image * 255).as_subclass(Tensor).to(torch.uint8), image.as_subclass(Tensor).to(device), target


@torch.no_grad()
def draw_detections(model: nn.Module, dataset: Dataset, classes: Sequence[str], path: Path) -> None:
    pairs = []
    for picture, image, target in _samples(model, dataset):
        (found,) = model([image])
        found = {key: value.cpu() for key, value in found.items()}
        pairs.append((_objects(picture, target, classes), _objects(picture, found, classes)))
    _sheet(pairs, path)


@torch.no_grad()
def draw_panoptic(model: nn.Module, dataset: Dataset, path: Path) -> None:
    """Stuff in its class's colour, every thing in one of its own, void black."""
    pairs = []
    for picture, image, target in _samples(model, dataset):
        (found,) = model([image])
        maps = []
        for ids, segments in (
            (target["panoptic"], target["segments_info"]),
            (found["panoptic"].cpu(), found["segments_info"]),
        ):
            colours = torch.full_like(ids, 255)
            for number, segment in enumerate(segments):
                label = 100 + 11 * number if segment["isthing"] else segment["category_id"]
                colours[ids == segment["id"]] = label % 255
            maps.append(_map(picture, colours))
        pairs.append((maps[0], maps[1]))
    _sheet(pairs, path)


@torch.no_grad()
def draw_segmentation(model: nn.Module, dataset: Dataset, path: Path) -> None:
    pairs = []
    for picture, image, target in _samples(model, dataset):
        labels = model.segment(image).cpu()  # type: ignore[operator]
        pairs.append((_map(picture, target["semantic"]), _map(picture, labels)))
    _sheet(pairs, path)
