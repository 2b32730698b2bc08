"""A model opened to be looked into: its weights, and images as it sees them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2.functional import to_dtype, to_image

from litevit.checkpoints.files import Pathlike
from litevit.checkpoints.preprocessing import IMAGENET_224, check_largest
from litevit.data.images import read_image
from litevit.jobs import dense_models
from litevit.jobs.predict import class_names, load_classifier, recorded_classes
from litevit.jobs.preprocessing import of_classifier
from litevit.tasks.detection import prepare_images


class Seen(NamedTuple):
    """An image as the model sees it."""

    batch: Tensor  # (1, 3, H, W), normalised
    picture: np.ndarray  # (H, W, 3) in [0, 1], the pixels of `batch`
    pixels: Tensor | None = None  # (3, h, w) in [0, 1], as the file has them; None of classifiers
    scale: tuple[float, float] = (1, 1)  # x and y from `pixels` to `batch`


class Look(NamedTuple):
    """A plain model in evaluation mode and how its images are prepared."""

    model: nn.Module
    task: str  # as in `litevit.list_models(task=...)`
    classes: Sequence[str] | None  # that came with the weights; None: none came
    names: Sequence[str]  # what classes are called in pictures, where there are as many
    see: Callable[[Path | Image.Image], Seen]


def open_look(
    name: str | None,
    weights: Pathlike | None,
    *,
    size: int | None = None,
    num_classes: int | None = None,
    published: bool = False,
    device: torch.device | str = "cpu",
) -> Look:
    """Opens a model to look into.

    Args:
        name: model name; None: what the checkpoint of a training run says.
        weights: None (random), `"official"` or `"imagenet"`, a checkpoint file, or the folder of a training run.
        size: side of a classifier's square input, of other models the short side; None keeps the model's.
        num_classes: where it is not the model's own.
        published: images as the published script for offsets takes them: 224 x 224 squashed, not normalised.
        device: where the model and the batches are.
    """
    if size is not None:
        if size < 32:
            raise ValueError(f"--size must be at least 32, got {size}")
        check_largest(size)
    if dense_models.task_of(name, weights) != "classification":
        if published:
            raise ValueError("--published is the published script's way with classifiers; leave it out for this model")
        return _open_dense(dense_models.load_dense(name, weights, num_classes=num_classes, size=size), device)
    if published and size is not None:
        raise ValueError("--published draws at 224 x 224, as the published script does: leave out --size")
    model, how = load_classifier(name, weights, num_classes=num_classes)
    if size is not None:
        how = replace(how, size=size)
    prepare = of_classifier(how)
    mean, std = _column(how.mean), _column(how.std)

    def see(path: Path | Image.Image) -> Seen:
        image = read_image(path)
        if published:
            x = _floats(image.resize((224, 224), Image.Resampling.BILINEAR))
            return Seen(x[None].to(device), x.permute(1, 2, 0).numpy())
        x = prepare(image)
        picture = (x * std + mean).clamp(0, 1)
        return Seen(x[None].to(device), picture.permute(1, 2, 0).numpy())

    classes = recorded_classes(weights) if weights is not None else None
    return Look(model.eval().to(device), "classification", classes, classes or class_names(1000), see)


def _open_dense(dense: dense_models.DenseModel, device: torch.device | str) -> Look:
    config: Any = dense.model.config
    if dense.task == dense_models.SEMANTIC:
        scale = config.test.scale
        sides = scale or (1, 1)
        limits: dict[str, Any] = {"resize": scale is not None, "min_size": min(sides), "max_size": max(sides)}
    else:
        limits = {"resize": config.resize, "min_size": config.min_size, "max_size": config.max_size}
    mean, std = _column(IMAGENET_224.mean), _column(IMAGENET_224.std)

    def see(path: Path | Image.Image) -> Seen:
        pixels = _floats(read_image(path))
        prepared = prepare_images([pixels], **limits)
        picture = (prepared.images[0] * std + mean).clamp(0, 1)
        h, w = prepared.sizes[0]
        picture[:, h:], picture[:, :, w:] = 1, 1  # padding
        return Seen(prepared.images.to(device), picture.permute(1, 2, 0).numpy(), pixels, prepared.scale(0))

    return Look(dense.model.to(device), dense.task, dense.classes.names, dense.classes.names, see)


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(values)[:, None, None]


def _floats(image: Image.Image) -> Tensor:
    return to_dtype(to_image(image), torch.float32, scale=True).as_subclass(torch.Tensor)
