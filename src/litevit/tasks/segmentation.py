"""What Semantic FPN and SegFormer share: the loss, and inference on whole images, in windows, at several scales.

The published chain of sizes: head (stride 4) -> network input -> original image, both bilinear. K classes.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from litevit.tasks.detection import IMAGENET_MEAN, IMAGENET_STD, resized_size

IGNORE = 255  # label of pixels that teach nothing
STRIP_ELEMENTS = 2**24  # logits made at original resolution at one time: 64 MiB of float32

Predict = Callable[[Tensor], Tensor]
"""(1, 3, H, W) normalised -> logits (1, K, H, W)."""


@dataclass(frozen=True, kw_only=True)
class SegmentationTest:
    """How an image is looked at. The defaults are Semantic FPN's on ADE20K: whole image, one scale, no flip."""

    scale: tuple[int, int] | None = (2048, 512)  # long and short side to fit into; None keeps the image's size
    multiple: int = 1  # then each side is stretched up to a multiple of this (SegFormer: 32)
    ratios: tuple[float, ...] = (1.0,)  # several: softmax is averaged over images scaled by each
    flip: bool = False  # adds every image's mirror image to the average
    window: tuple[int, int] | None = None  # height and width of sliding windows; None looks at all at once
    stride: tuple[int, int] | None = None  # of the windows; None: two thirds of the window


def resize_bilinear(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Args: x: (B, C, H, W). Returns: (B, C, *size); half-pixel centres, no antialiasing."""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def check_masks(masks: Tensor, images: Tensor, *, num_classes: int, ignore_index: int = IGNORE) -> None:
    """Raises unless `masks` (B, H, W) fit `images` (B, 3, H, W) and hold classes 0..num_classes - 1 or `ignore_index`."""
    if masks.shape != (images.shape[0], *images.shape[-2:]):
        raise ValueError(
            f"masks must be (B, H, W) of the images' size, got {tuple(masks.shape)} for images {tuple(images.shape)}"
        )
    if masks.is_floating_point() or masks.is_complex() or masks.dtype == torch.bool:
        raise ValueError(f"masks must hold integer class labels, got {masks.dtype}")
    if not masks.numel():
        return
    low, high = (int(v) for v in torch.aminmax(masks.long().masked_fill(masks == ignore_index, 0)))
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"masks must hold classes 0..{num_classes - 1} or {ignore_index} (ignore), got {low}..{high}; "
            "subtract 1 from files that start at 1 (ADE20K), or set num_classes"
        )


def segmentation_loss(logits: Tensor, masks: Tensor, *, ignore_index: int = IGNORE) -> Tensor:
    """Softmax cross-entropy at the masks' size, divided by the number of ALL pixels, ignored ones included.

    That is what the published models minimise; masks without a labelled pixel give 0.

    Args:
        logits: (B, K, h, w).
        masks: (B, H, W) integers.
    """
    logits = resize_bilinear(logits, (masks.shape[-2], masks.shape[-1])).float()
    return F.cross_entropy(logits, masks.long(), ignore_index=ignore_index, reduction="sum") / max(masks.numel(), 1)


def window_logits(predict: Predict, image: Tensor, *, window: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """Logits averaged over windows that cover the image; the last of a row or column is moved inside it.

    Args:
        image: (1, 3, H, W), normalised.
        window, stride: height and width in pixels.

    Returns:
        (1, K, H, W).
    """
    if min(*window, *stride) < 1 or stride[0] > window[0] or stride[1] > window[1]:
        raise ValueError(f"windows need 1 <= stride <= window on both axes, got window={window}, stride={stride}")
    H, W = image.shape[-2:]
    total: Tensor | None = None
    count = image.new_zeros(1, 1, H, W)
    for top in _window_starts(H, window[0], stride[0]):
        for left in _window_starts(W, window[1], stride[1]):
            area = (..., slice(top, top + window[0]), slice(left, left + window[1]))
            logits = predict(image[area])
            if total is None:
                total = logits.new_zeros(1, logits.shape[1], H, W)
            total[area] += logits
            count[area] += 1
    assert total is not None
    return total / count


def _window_starts(side: int, window: int, stride: int) -> list[int]:
    steps = math.ceil(max(side - window, 0) / stride) + 1
    return [max(min(i * stride, side - window), 0) for i in range(steps)]


@torch.no_grad()
def segment(predict: Predict, image: Tensor, test: SegmentationTest) -> Tensor:
    """Class of every pixel of one image.

    Logits at the image's resolution exist only for a strip of rows at a time, so memory does not grow with K * H * W.

    Args:
        predict: a segmentation model in evaluation mode.
        image: (3, H, W), RGB floats in [0, 1].

    Returns:
        (H, W) int64.
    """
    if image.dim() != 3 or image.shape[0] != 3 or 0 in image.shape or not image.is_floating_point():
        raise ValueError(f"image must be (3, H, W) floats in [0, 1], got {image.dtype} {tuple(image.shape)}")
    size = (image.shape[1], image.shape[2])
    views = list(_views(predict, image, test))
    rows = max(STRIP_ELEMENTS // (views[0].shape[1] * size[1]), 1)
    labels = torch.empty(size, dtype=torch.int64, device=image.device)
    for first in range(0, size[0], rows):
        last = min(first + rows, size[0])
        strips = (_resize_to_rows(view, size, first, last) for view in views)
        if len(views) == 1:
            scores = next(strips)
        else:
            scores = sum(strip.float().softmax(1) for strip in strips)  # type: ignore[assignment]
        labels[first:last] = scores[0].argmax(0)
    return labels


def _views(predict: Predict, image: Tensor, test: SegmentationTest) -> Iterator[Tensor]:
    """Logits (1, K, h, w) of every scale and mirror image, at that view's input size, mirrored back."""
    for ratio in test.ratios:
        x = normalise(_resize_to_test(image, test, ratio))[None]
        for mirrored in (False, True) if test.flip else (False,):
            seen = x.flip(-1) if mirrored else x
            if test.window is None:
                logits = predict(seen)
            else:
                stride = test.stride or (max(test.window[0] * 2 // 3, 1), max(test.window[1] * 2 // 3, 1))
                logits = window_logits(predict, seen, window=test.window, stride=stride)
            yield logits.flip(-1) if mirrored else logits


def normalise(image: Tensor) -> Tensor:
    """(3, H, W) RGB in [0, 1] -> ImageNet mean 0, standard deviation 1."""
    mean, std = (image.new_tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (image - mean) / std


def _resize_to_test(image: Tensor, test: SegmentationTest, ratio: float) -> Tensor:
    size = (image.shape[1], image.shape[2])
    if test.scale is not None:
        long, short = (int(side * ratio) for side in test.scale)
        size = resized_size(size, min_size=short, max_size=long)
    else:
        size = (max(round(size[0] * ratio), 1), max(round(size[1] * ratio), 1))
    image = _resize_integers(image, size)
    m = test.multiple
    return _resize_integers(image, (-(-size[0] // m) * m, -(-size[1] // m) * m))


def _resize_integers(image: Tensor, size: tuple[int, int]) -> Tensor:
    """The published pipelines resize 0..255 integers."""
    if image.shape[-2:] == size:
        return image
    return resize_bilinear(image[None] * 255, size)[0].round() / 255


def _resize_to_rows(x: Tensor, size: tuple[int, int], first: int, last: int) -> Tensor:
    """Rows first..last - 1 of `resize_bilinear(x, size)`."""
    H = x.shape[-2]
    source = ((torch.arange(first, last, device=x.device) + 0.5) * (H / size[0]) - 0.5).clamp(min=0)
    low = source.long().clamp(max=H - 1)
    weight = (source - low).to(x.dtype)[:, None]
    rows = x[:, :, low] * (1 - weight) + x[:, :, (low + 1).clamp(max=H - 1)] * weight
    return resize_bilinear(rows, (last - first, size[1]))
