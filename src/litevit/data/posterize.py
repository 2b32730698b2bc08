"""Posterising to 0 bits, as the published augmentations do at full strength.

timm's "PosterizeIncreasing" keeps 4 down to 0 bits. Pillow gave a black image for 0 bits, and from version 13 on it
raises instead: with "rand-m9-mstd0.5-inc1" a run would end after some hundred images.
"""

from collections.abc import Iterable
from typing import Any

from PIL import Image, ImageOps


def posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """Keeps the upper bits of every channel. Args: bits: 0 (black) to 8 (unchanged)."""
    if bits >= 8:
        return image
    if bits < 1:
        return image.point([0] * 256 * len(image.getbands()))
    return ImageOps.posterize(image, bits)


def with_posterize_to_black(transform: Any) -> Any:
    """Makes timm's automatic augmentations in a transform use `posterize` above. Returns: the same transform."""
    from timm.data import auto_augment

    for step in getattr(transform, "transforms", [transform]):
        for op in _operations(step):
            if op.aug_fn is auto_augment.posterize:
                op.aug_fn = posterize
    return transform


def _operations(step: Any) -> Iterable[Any]:
    """Of RandAugment and AugMix their operations, of AutoAugment those of all its sub-policies."""
    yield from getattr(step, "ops", ())
    for sub_policy in getattr(step, "policy", ()):
        yield from sub_policy
