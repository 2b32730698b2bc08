"""What pictures are made from; `litevit.jobs.looking` opens it."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor, nn

from litevit.explain.inside import backbone_of

Images = Iterable[tuple[str, Path]]  # what the pictures of a file are called, and the file


class Seen(Protocol):
    """An image as the model sees it."""

    @property
    def batch(self) -> Tensor:
        """(1, 3, H, W), normalised, on the model's device."""

    @property
    def picture(self) -> np.ndarray:
        """(H, W, 3) in [0, 1]: the pixels of `batch`."""

    @property
    def pixels(self) -> Tensor | None:
        """(3, h, w) in [0, 1], as the file has them; None of classifiers."""

    @property
    def scale(self) -> tuple[float, float]:
        """Horizontal and vertical factor from `pixels` to `batch`."""


class Look(Protocol):
    """A model in evaluation mode and how its images are prepared."""

    @property
    def model(self) -> nn.Module: ...

    @property
    def task(self) -> str:
        """As in `litevit.list_models(task=...)`."""

    @property
    def classes(self) -> Sequence[str] | None:
        """Names that came with the weights, as folders are called; None: none came."""

    @property
    def names(self) -> Sequence[str]:
        """What classes are called in pictures, where there are as many."""

    @property
    def see(self) -> Callable[[Path], Seen]: ...


def strides_of(model: nn.Module) -> list[int]:
    """Pixels per cell of the four maps."""
    return [feature.stride for feature in backbone_of(model).features]  # type: ignore[union-attr, attr-defined]


def pixel_in(picture: np.ndarray, pixel: tuple[int, int] | None) -> tuple[int, int]:
    """The pixel asked for, X Y, or the middle one."""
    height, width = picture.shape[:2]
    x, y = pixel or (width // 2, height // 2)
    if not (0 <= x < width and 0 <= y < height):
        raise ValueError(f"--pixel must be in the picture that the model sees, {width} x {height}; got {x} {y}")
    return x, y
