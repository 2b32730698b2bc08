"""Augmentation for detection, panoptic and semantic segmentation: the published pipelines in their order.

Every step is called as `step(image, target)` and moves the image and every tv_tensor of the target (boxes, masks,
semantic and panoptic maps) together, as torchvision's v2 transforms do, which are used where they are the published
step. All randomness comes from torch's
global generator, so a sample is a function of the seed set before it is made.

Images are uint8 (3, H, W) until `Normalize` or `ToFloat`; sizes are (H, W) unless a name says otherwise.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from litevit.ops import imagenet

Target = dict[str, Any]
Step = Callable[[Any, Any], tuple[Any, Any]]

# All of LIT, LITv2 and LVT: RGB, on 0..255 values.
MEAN = tuple(round(255 * value, 3) for value in imagenet.MEAN)
STD = tuple(round(255 * value, 3) for value in imagenet.STD)
IGNORE = 255

ABOVE_0 = torch.finfo(torch.float32).tiny
PER_OBJECT = ("boxes", "labels", "masks", "iscrowd", "area")


def keep_ratio_size(height: int, width: int, long_side: int, short_side: int) -> tuple[int, int]:
    """Largest (H, W) of the same shape with long side <= long_side and short side <= short_side, rounded half up."""
    scale = min(long_side / max(height, width), short_side / min(height, width))
    return math.floor(height * scale + 0.5), math.floor(width * scale + 0.5)


def resize(image: Tensor, target: Target, size: tuple[int, int]) -> tuple[Tensor, Target]:
    """Image bilinear without antialiasing (as OpenCV), maps and masks nearest, boxes by the factor of each axis."""
    height, width = image.shape[-2:]
    if (height, width) == tuple(size):
        return image, target
    # One output pixel at least: a strip of 2000 x 1 has no other size.
    size = (max(size[0], 1), max(size[1], 1))
    out = dict(target)
    for key, value in target.items():
        if isinstance(value, tv_tensors.Mask):
            if (
                value.dtype == torch.bool
            ):  # through uint8: torch resizes no bool, and float would take four times the memory
                resized = TF.resize_mask(value.as_subclass(Tensor).view(torch.uint8), list(size)).view(torch.bool)
            else:
                resized = TF.resize_mask(value.as_subclass(Tensor), list(size))
            out[key] = tv_tensors.Mask(resized)
        elif isinstance(value, tv_tensors.BoundingBoxes):
            out[key] = TF.resize(value, list(size))
    if "area" in target:
        out["area"] = target["area"] * (size[0] / height) * (size[1] / width)
    return TF.resize(image, list(size), interpolation=v2.InterpolationMode.BILINEAR, antialias=False), out


def keep_visible(target: Target, *, least: float = 0.0) -> Target:
    """Clip the boxes to the picture and drop the objects of which nothing is in it.

    Args:
        least: pixels of width and height that must be left; after a crop 1, as the data sets demand it.
    """
    if "boxes" not in target:
        return target
    out = target | {"boxes": TF.clamp_bounding_boxes(target["boxes"])}
    # The function, not v2.SanitizeBoundingBoxes: that one would filter the semantic map as if it were objects' masks.
    _, visible = TF.sanitize_bounding_boxes(out["boxes"], min_size=max(least, ABOVE_0), min_area=0)
    if visible.all():
        return out
    return out | {key: tv_tensors.wrap(out[key][visible], like=out[key]) for key in PER_OBJECT if key in out}


class ResizeKeepRatio:
    """Keep-ratio resize; `short_side` a number, or a range from which every call draws an integer, ends included."""

    def __init__(self, long_side: int = 1333, short_side: int | tuple[int, int] = 800):
        self.long_side = long_side
        self.short_side = (short_side, short_side) if isinstance(short_side, int) else short_side

    def __call__(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        low, high = self.short_side
        short = low if low == high else int(torch.randint(low, high + 1, ()))
        image, target = resize(image, target, keep_ratio_size(image.shape[-2], image.shape[-1], self.long_side, short))
        return image, keep_visible(target)


class RandomScale:
    """Keep-ratio resize into (long, short) times a ratio drawn uniformly from `ratios`."""

    def __init__(self, long_side: int = 2048, short_side: int = 512, ratios: tuple[float, float] = (0.5, 2.0)):
        self.long_side, self.short_side, self.ratios = long_side, short_side, ratios

    def __call__(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        low, high = self.ratios
        ratio = low + (high - low) * float(torch.rand((), dtype=torch.float64))
        # The published code truncates both sides of the frame before it fits the image into it.
        frame = int(self.long_side * ratio), int(self.short_side * ratio)
        image, target = resize(image, target, keep_ratio_size(image.shape[-2], image.shape[-1], *frame))
        return image, keep_visible(target)


class ResizeUpToMultiple:
    """Stretch each side up to a multiple of `divisor` (the published test of LVT's SegFormer)."""

    def __init__(self, divisor: int = 32):
        self.divisor = divisor

    def __call__(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        height, width = (math.ceil(side / self.divisor) * self.divisor for side in image.shape[-2:])
        return resize(image, target, (height, width))


class RandomCrop:
    """Random crop in which no class may cover more than `category_cap` of the labelled pixels of the semantic map.

    After `tries` crops that break the rule (or see one class only), one more is taken as it comes. An image smaller
    than the crop is taken whole; `Pad` fills it afterwards.
    """

    def __init__(self, size: int | tuple[int, int] = 512, category_cap: float = 0.75, tries: int = 10):
        self.size = (size, size) if isinstance(size, int) else size
        self.category_cap, self.tries = category_cap, tries

    def _draw(self, height: int, width: int) -> tuple[int, int, int, int]:
        crop_height, crop_width = min(self.size[0], height), min(self.size[1], width)
        top = int(torch.randint(0, height - crop_height + 1, ()))
        left = int(torch.randint(0, width - crop_width + 1, ()))
        return top, left, crop_height, crop_width

    def _balanced(self, semantic: Tensor) -> bool:
        labelled = semantic[semantic != IGNORE]
        counts = torch.unique(labelled, return_counts=True)[1]
        return len(counts) > 1 and bool(counts.max() < self.category_cap * counts.sum())

    def __call__(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        height, width = image.shape[-2:]
        window = self._draw(height, width)
        semantic = target.get("semantic")
        if self.category_cap < 1 and semantic is not None:
            plain = semantic.as_subclass(Tensor)
            for _ in range(self.tries):
                top, left, h, w = window
                if self._balanced(plain[top : top + h, left : left + w]):
                    break
                window = self._draw(height, width)
        out = {key: TF.crop(v, *window) if isinstance(v, tv_tensors.TVTensor) else v for key, v in target.items()}
        return TF.crop(image, *window), keep_visible(out, least=1.0)


class PhotometricDistortion:
    """Brightness, contrast, saturation and hue, each with probability 0.5, every step rounded to uint8.

    Contrast comes before saturation and hue or after them, with equal chance. Saturation and hue work on 8-bit HSV with
    hue in 180 steps, as the published code does: hue +-18 is +-36 degrees.
    """

    def __init__(self, brightness: float = 32, contrast: float = 0.5, saturation: float = 0.5, hue: int = 18):
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue

    def __call__(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        pixels = image.as_subclass(Tensor).float()
        if _coin():
            pixels = _to_bytes(pixels + _uniform(-self.brightness, self.brightness))
        contrast_first = _coin()
        if contrast_first and _coin():
            pixels = _to_bytes(pixels * _uniform(1 - self.contrast, 1 + self.contrast))
        saturation = _uniform(1 - self.saturation, 1 + self.saturation) if _coin() else None
        hue = int(torch.randint(-self.hue, self.hue + 1, ())) if _coin() else None
        if saturation is not None or hue is not None:
            h, s, v = rgb_to_hsv(pixels)
            if saturation is not None:
                s = _to_bytes(s * saturation)
            if hue is not None:
                h = (h + hue) % 180
            pixels = hsv_to_rgb(h, s, v)
        if not contrast_first and _coin():
            pixels = _to_bytes(pixels * _uniform(1 - self.contrast, 1 + self.contrast))
        return tv_tensors.Image(pixels.to(torch.uint8)), target


def _coin() -> bool:
    return bool(torch.randint(0, 2, ()))


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def _to_bytes(values: Tensor) -> Tensor:
    return values.clamp_(0, 255).floor_()  # a cast to uint8, as the published code does: no rounding


def rgb_to_hsv(rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """OpenCV's 8-bit HSV: rgb (3, H, W) of whole numbers 0..255 -> hue 0..179, saturation 0..255, value 0..255."""
    r, g, b = rgb
    v = rgb.amax(dim=0)
    spread = v - rgb.amin(dim=0)
    safe = spread.clamp_min(1)
    h = torch.where(v == r, (g - b) / safe, torch.where(v == g, 2 + (b - r) / safe, 4 + (r - g) / safe))
    h = torch.floor(h * 30 + 0.5) % 180
    s = torch.floor(255 * spread / v.clamp_min(1) + 0.5)
    return h, s, v


def hsv_to_rgb(h: Tensor, s: Tensor, v: Tensor) -> Tensor:
    """Inverse of `rgb_to_hsv` to the rounding of its three bytes. Returns: (3, H, W), whole numbers."""
    sector = h / 30
    chroma = v * s / 255
    # f(n) = v - c * clamp(min(k, 4 - k), 0, 1) with k = (n + h / 60 deg) mod 6, n = 5, 3, 1 for R, G, B
    k = (torch.tensor([5.0, 3.0, 1.0]).view(3, 1, 1) + sector) % 6
    return torch.floor(v - chroma * torch.minimum(k, 4 - k).clamp(0, 1) + 0.5)


class Normalize:
    """uint8 -> float32 (x - mean) / std, with mean and std on 0..255 values."""

    def __init__(self, mean: Sequence[float] = MEAN, std: Sequence[float] = STD):
        self.mean, self.std = list(mean), list(std)

    def __call__(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        return TF.normalize(image.to(torch.float32), self.mean, self.std), target


class ToFloat:
    """uint8 -> float32 in [0, 1]: what the detectors take (they normalise and pad inside)."""

    def __call__(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        return TF.to_dtype(image, torch.float32, scale=True), target


class Pad:
    """Pad right and bottom up to `size`, then to a multiple of `divisor`: image and masks with 0, semantic with 255."""

    def __init__(self, size: int | tuple[int, int] = 0, divisor: int = 1):
        self.size = (size, size) if isinstance(size, int) else size
        self.divisor = divisor

    def __call__(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        height, width = image.shape[-2:]
        bottom = math.ceil(max(height, self.size[0]) / self.divisor) * self.divisor - height
        right = math.ceil(max(width, self.size[1]) / self.divisor) * self.divisor - width
        if bottom == right == 0:
            return image, target
        padding = [0, 0, right, bottom]
        out = dict(target)
        for key, value in target.items():
            if isinstance(value, tv_tensors.TVTensor):
                out[key] = TF.pad(value, padding, fill=IGNORE if key == "semantic" else 0)
        return TF.pad(image, padding, fill=0), out


def detection_train(
    long_side: int = 1333, short_side: int | tuple[int, int] = 800, flip: float = 0.5, *, resize: bool = True
) -> v2.Compose:
    """Published COCO training for detectors, which normalise and pad to 32 inside: resize, flip.

    `short_side=(640, 800)` is the multi-scale training of LVT's 3x schedule; `resize=False` keeps the images' size.
    """
    steps: list[Step] = [ResizeKeepRatio(long_side, short_side)] if resize else []
    return v2.Compose([*steps, v2.RandomHorizontalFlip(flip), ToFloat()])


def detection_batch(long_side: int = 1333, short_side: int | tuple[int, int] = 800, flip: float = 0.0) -> v2.Compose:
    """The whole published pipeline: resize, flip, normalise, pad to 32. What `forward_raw` of a detector takes."""
    return v2.Compose(
        [ResizeKeepRatio(long_side, short_side), v2.RandomHorizontalFlip(flip), Normalize(), Pad(divisor=32)]
    )


def segmentation_train(
    long_side: int = 2048,
    short_side: int = 512,
    crop: int = 512,
    ratios: tuple[float, float] = (0.5, 2.0),
    category_cap: float = 0.75,
    flip: float = 0.5,
    *,
    distortion: bool = True,
) -> v2.Compose:
    """Published ADE20K training: random scale, crop with category cap, flip, photometric distortion, normalise, pad.

    Args:
        distortion: photometric.
    """
    return v2.Compose(
        [
            RandomScale(long_side, short_side, ratios),
            RandomCrop(crop, category_cap),
            v2.RandomHorizontalFlip(flip),
            *([PhotometricDistortion()] if distortion else []),
            Normalize(),
            Pad(crop),
        ]
    )


def segmentation_test(long_side: int = 2048, short_side: int = 512, stretch_to: int = 1) -> v2.Compose:
    """Published ADE20K test: keep ratio into (2048, 512), normalise, no padding; the semantic map keeps its own size.

    Args:
        stretch_to: 32 for LVT's SegFormer, which stretches both sides up to a multiple of it.
    """
    return v2.Compose(
        [_ImageOnly(ResizeKeepRatio(long_side, short_side)), _ImageOnly(ResizeUpToMultiple(stretch_to)), Normalize()]
    )


class _ImageOnly:
    """Truth stays at its original size: evaluation is done there."""

    def __init__(self, step: Step):
        self.step = step

    def __call__(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        return self.step(image, {})[0], target
