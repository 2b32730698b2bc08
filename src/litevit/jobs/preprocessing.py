"""`litevit.preprocessing`: how an image becomes the input of a model, callable on an image."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from litevit.checkpoints import published
from litevit.checkpoints.preprocessing import Preprocessing as Facts
from litevit.checkpoints.preprocessing import check_largest
from litevit.data.classification_transforms import centre_transform
from litevit.data.images import read_image
from litevit.jobs.runs import Run
from litevit.zoo import MODELS, unknown


@dataclass(frozen=True, kw_only=True)
class Preprocessing(Facts):
    """The published facts, and what they do to an image."""

    @cached_property
    def _transform(self) -> Any:
        assert isinstance(self.size, int)
        assert self.crop_pct is not None
        return centre_transform(
            self.size,
            crop_pct=self.crop_pct,
            crop_mode=self.crop_mode,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
        )

    def pixels(self, image: Image.Image) -> Tensor:
        """A classifier's image, resized and cropped but not normalised.

        By Pillow and numpy alone: a torch operator would start threads of its own in every thread that decodes.

        Args:
            image: upright RGB, as `litevit.data.images.read_image` gives it.

        Returns:
            (3, S, S) uint8.
        """
        for step in self._transform.transforms[:-2]:
            image = step(image)
        return torch.from_numpy(np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)))

    def normalised(self, pixels: Tensor) -> Tensor:
        """What `pixels` gave, as the model takes it: bit for bit what calling gives.

        Args:
            pixels: (B, 3, S, S) or (3, S, S) uint8, on any device.

        Returns:
            The same shape, float32, normalised.
        """
        mean, std = (torch.tensor(v, device=pixels.device).view(3, 1, 1) for v in (self.mean, self.std))
        return pixels.to(torch.float32).div_(255).sub_(mean).div_(std)

    def __call__(self, image: Image.Image | str | Path) -> Tensor:
        """
        Args:
            image: PIL image as it was opened, of any mode and size, or a file.

        Returns:
            Classifiers: (3, S, S), resized, cropped and normalised. Detectors, segmenters and panoptic models, which
            resize and normalise themselves: (3, H, W) RGB in [0, 1].
        """
        image = read_image(image)
        if isinstance(self.size, int):
            return self._transform(image)
        from torchvision.transforms.v2.functional import pil_to_tensor

        return pil_to_tensor(image).to(torch.float32) / 255


def of_classifier(how: Facts) -> Preprocessing:
    """The same, callable. Raises ValueError for that of a dense model."""
    if not isinstance(how.size, int) or how.crop_pct is None:
        raise ValueError(f"Preprocessing of a classifier needs one size and a crop, got {how}")
    return Preprocessing(**dataclasses.asdict(how))


def preprocessing(model: str | Path | Run) -> Preprocessing:
    """How images are prepared for a model.

    Args:
        model: a name of `litevit.list_models()`, or a training run: its folder, weights file, or `litevit.run(...)`.

    Returns:
        Sizes, crop and scale, callable on an image.

    Raises:
        ValueError: no such model, or a file that no run has written.
        FileNotFoundError: no such folder.
    """
    if isinstance(model, str) and model in MODELS:
        facts = published.preprocessing(model)
    elif isinstance(model, Run):
        facts = model.preprocessing
    elif Path(model).exists():
        facts = Run.open(model).preprocessing
    else:
        raise unknown(str(model), sorted(MODELS), "model or run")
    return Preprocessing(**dataclasses.asdict(facts))


def side_of(size: int | str | None) -> int | None:
    """The side of a classifier's input, as --size gives it; None: the published one."""
    if size is not None and (isinstance(size, str) or size < 32):
        raise ValueError(f"--size of a classifier must be a number of at least 32, got {size}")
    if size is not None:
        check_largest(size)
    return size
