"""How an image becomes the input of a published model: sizes, crop, scale; and what a stranger's file says of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from litevit.ops import imagenet


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an image becomes the input of a model."""

    size: int | tuple[int, int] = 224  # side of the square crop; dense models: (short side, largest long side)
    crop_pct: float | None = 0.875  # crop side / resized shorter side; None = no crop
    crop_mode: str = "center"  # "squash": both sides are resized to `size`, whatever the aspect ratio
    interpolation: str = "bicubic"  # of Pillow
    mean: tuple[float, float, float] = imagenet.MEAN  # of R, G and B in [0, 1]
    std: tuple[float, float, float] = imagenet.STD  # what the difference from the mean is divided by


LARGEST_SIDE = 65_536


def check_largest(*sides: int) -> None:
    """Raises ValueError for a side of an input that no memory holds."""
    if max(sides) > LARGEST_SIDE:
        raise ValueError(f"--size can be at most {LARGEST_SIDE}, got {max(sides)!s:.60}")


def checked_preprocessing(told: Any, where: object) -> Preprocessing:
    """From a file that anybody may have written. Args: told: fields of `Preprocessing`; where: named in the error.

    Raises:
        ValueError: it is no object, or a field is not known or of another type or range.
    """
    if not isinstance(told, dict):
        raise ValueError(f"{where}: preprocessing must be an object, got {told!r:.60}")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in told.items()}

    def number(value: Any, low: float, high: float) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and low < value <= high

    def numbers(value: Any, count: int, low: float, high: float) -> bool:
        return isinstance(value, tuple) and len(value) == count and all(number(v, low, high) for v in value)

    def side(value: Any) -> bool:
        return isinstance(value, int) and number(value, 0, LARGEST_SIDE)

    good: dict[str, Callable[[Any], bool]] = {
        # (0, 0): images keep their size.
        "size": lambda v: side(v) or v == (0, 0) or (isinstance(v, tuple) and len(v) == 2 and all(map(side, v))),
        "crop_pct": lambda v: v is None or number(v, 0, 10),
        "crop_mode": lambda v: v in ("center", "squash", "border"),
        "interpolation": lambda v: v in ("bicubic", "bilinear", "nearest", "lanczos", "box", "hamming"),
        "mean": lambda v: numbers(v, 3, -1e6, 1e6),
        "std": lambda v: numbers(v, 3, 0, 1e6),
    }
    for key, value in values.items():
        if key not in good:
            raise ValueError(f"{where}: preprocessing has the fields {', '.join(good)}, got {key!r:.60}")
        if not good[key](value):
            raise ValueError(f"{where}: preprocessing.{key} cannot be {value!r:.60}")
    return Preprocessing(**values)


IMAGENET_224 = Preprocessing()  # shorter side to int(256 / 224 * 224), centre crop
IMAGENET_384 = Preprocessing(size=384, crop_pct=1.0, crop_mode="squash")  # the 384 config turns the crop off
IMAGENET_LVT = Preprocessing(crop_pct=0.96)  # shorter side to 233
COCO = Preprocessing(size=(800, 1333), crop_pct=None, interpolation="bilinear")
ADE20K = Preprocessing(size=(512, 2048), crop_pct=None, interpolation="bilinear")
