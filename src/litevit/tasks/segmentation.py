"""What Semantic FPN and SegFormer share: the loss, and inference on whole images, in windows, at several scales.

The published chain of sizes: head (stride 4) -> network input -> original image, both bilinear. K classes.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from litevit.ops import imagenet
from litevit.ops.resize import resize_bilinear
from litevit.ops.resized_cross_entropy import resized_cross_entropy
from litevit.tasks.detection import resized_size

IGNORE = 255  # label of pixels that teach nothing
STRIP_ELEMENTS = 2**24  # logits made at original resolution at one time: 64 MiB of float32

Predict = Callable[[Tensor], Tensor]
"""(1, 3, H, W) normalised -> logits (1, K, h, w), at any stride."""


@dataclass(frozen=True, kw_only=True)
class SegmentationTest:
    """How an image is looked at. The defaults are Semantic FPN's on ADE20K: whole image, one scale, no flip."""

    scale: tuple[int, int] | None = (2048, 512)  # long and short side to fit into; None keeps the image's size
    multiple: int = 1  # then each side is stretched up to a multiple of this (SegFormer: 32)
    ratios: tuple[float, ...] = (1.0,)  # several: softmax is averaged over images scaled by each
    flip: bool = False  # adds every image's mirror image to the average
    window: tuple[int, int] | None = None  # height and width of sliding windows; None looks at all at once
    stride: tuple[int, int] | None = None  # of the windows; None: two thirds of the window


def read_overrides(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's overrides as `create_model` takes them: JSON's lists are tuples, `test` is a `SegmentationTest`."""
    read = {name: tuple(value) if isinstance(value, list) else value for name, value in overrides.items()}
    test = overrides.get("test")
    if isinstance(test, Mapping):
        known = [field.name for field in fields(SegmentationTest)]
        if wrong := set(test) - set(known):
            raise ValueError(f"test has the fields {', '.join(known)}, got {', '.join(sorted(wrong))}")
        read["test"] = SegmentationTest(**read_overrides(test))
    return read


def check_masks(masks: Tensor, images: Tensor, *, num_classes: int, ignore_index: int = IGNORE) -> None:
    """Raises unless `masks` (B, H, W) fit `images` (B, 3, H, W) and hold classes 0..K-1 or `ignore_index`."""
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
    return resized_cross_entropy(logits, masks, ignore_index=ignore_index) / max(masks.numel(), 1)


class Segmenter(nn.Module):
    """What Semantic FPN and SegFormer share; a base class, so that the keys of the published files stay flat.

    Args:
        backbone: see `litevit.create_backbone`.
        config: with `num_classes`, `ignore_index` and `test`.
        head: maps -> logits (B, K, H/4, W/4).
        fpn: None: the head reads the backbone's maps.
    """

    def __init__(self, backbone: nn.Module, config: Any, *, head: nn.Module, fpn: nn.Module | None = None):
        super().__init__()
        self.config = config
        self.backbone = backbone
        if fpn is not None:
            self.fpn = fpn
        self.head = head

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block of the backbone in the backward pass instead of storing its activations.

        Args:
            enable: False stores them again.
        """
        self.backbone.set_grad_checkpointing(enable)  # type: ignore[operator]

    def pyramid(self, features: Sequence[Tensor]) -> Sequence[Tensor]:
        """Args: features: the backbone's four maps. Returns: what the head reads, fine to coarse."""
        return features

    def forward_raw(self, batch: Tensor) -> dict[str, Tensor]:
        """Every map before post-processing.

        Args:
            batch: (B, 3, H, W), normalised.

        Returns:
            `C2`..`C5` (backbone), `F0`..`F3` (pyramid, if any), `logits` (B, K, H/4, W/4).
        """
        features = self.backbone(batch)
        pyramid = self.pyramid(features)
        out = {f"C{i + 2}": x for i, x in enumerate(features)}
        if pyramid is not features:
            out |= {f"F{i}": x for i, x in enumerate(pyramid)}
        return out | {"logits": self.head(pyramid)}

    def forward_head(self, images: Tensor) -> Tensor:
        """Args: images: (B, 3, H, W), normalised. Returns: logits (B, K, H/4, W/4)."""
        return self.head(self.pyramid(self.backbone(images)))

    def forward(self, images: Tensor, masks: Tensor | None = None) -> Tensor | dict[str, Tensor]:
        """
        Args:
            images: (B, 3, H, W), normalised.
            masks: (B, H, W) classes 0..K-1, or `ignore_index`.

        Returns:
            Logits (B, K, H, W); with masks `{"loss_seg"}` instead.
        """
        if masks is not None:
            check_masks(masks, images, num_classes=self.config.num_classes, ignore_index=self.config.ignore_index)
        logits = self.forward_head(images)
        if masks is not None:
            return {"loss_seg": segmentation_loss(logits, masks, ignore_index=self.config.ignore_index)}
        return resize_bilinear(logits, (images.shape[-2], images.shape[-1]))

    def segment(self, image: Tensor, *, test: SegmentationTest | None = None) -> Tensor:
        """Class of every pixel of one image.

        Args:
            image: (3, H, W) RGB in [0, 1], any size.
            test: how it is looked at (resize, windows, flips); None: as the config says.

        Returns:
            (H, W) int64.
        """
        return segment(self.forward_head, image, test or self.config.test)


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
            seen = image[area]
            logits = resize_bilinear(predict(seen), (seen.shape[-2], seen.shape[-1]))
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
        predict: backbone and head of a model in evaluation mode.
        image: (3, H, W), RGB floats in [0, 1].

    Returns:
        (H, W) int64.
    """
    if image.dim() != 3 or image.shape[0] != 3 or 0 in image.shape or not image.is_floating_point():
        raise ValueError(f"image must be (3, H, W) floats in [0, 1], got {image.dtype} {tuple(image.shape)}")
    size = (image.shape[1], image.shape[2])
    views = list(_views(predict, image, test))
    labels = torch.empty(size, dtype=torch.int64, device=image.device)
    for first, last in strips(size, views[0].logits.shape[1]):
        if len(views) == 1:
            scores = views[0].rows(size, first, last)
        else:
            scores = torch.stack([view.rows(size, first, last).float().softmax(1) for view in views]).mean(0)
        labels[first:last] = scores[0].argmax(0)
    return labels


class View(NamedTuple):
    """Logits of one look at an image, resized on demand: to that look's input size first, as published."""

    logits: Tensor  # (1, K, h, w), at any stride
    padded: tuple[int, int]  # size of the input, with padding at its right and bottom
    size: tuple[int, int]  # without

    def rows(self, size: tuple[int, int], first: int, last: int) -> Tensor:
        """(1, K, last - first, W): rows first..last - 1 of the logits at `size` = (H, W)."""
        low, weight = _source_rows(self.size[0], size[0], first, last, self.logits.device)
        start, stop = int(low[0]), min(int(low[-1]) + 2, self.size[0])
        inner, inner_weight = _source_rows(self.logits.shape[-2], self.padded[0], start, stop, self.logits.device)
        x = _mix_rows(self.logits, inner, inner_weight)
        x = resize_bilinear(x, (stop - start, self.padded[1]))[..., : self.size[1]]
        return resize_bilinear(_mix_rows(x, low - start, weight), (last - first, size[1]))


def strips(size: tuple[int, int], num_classes: int) -> Iterator[tuple[int, int]]:
    """First and last + 1 of groups of rows that cover an image of `size`."""
    rows = max(STRIP_ELEMENTS // (num_classes * size[1]), 1)
    for first in range(0, size[0], rows):
        yield first, min(first + rows, size[0])


def _source_rows(height: int, new_height: int, first: int, last: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of rows first..last - 1 of a bilinear resize: the upper row that each is made from, and the lower one's share."""
    rows = torch.arange(first, last, device=device, dtype=torch.float32)
    source = ((rows + 0.5) * (height / new_height) - 0.5).clamp(min=0)
    low = source.long().clamp(max=height - 1)
    return low, source - low


def _mix_rows(x: Tensor, low: Tensor, weight: Tensor) -> Tensor:
    weight = weight.to(x.dtype)[:, None]
    return x[:, :, low] * (1 - weight) + x[:, :, (low + 1).clamp(max=x.shape[-2] - 1)] * weight


def _views(predict: Predict, image: Tensor, test: SegmentationTest) -> Iterator[View]:
    """One per scale and mirror image, mirrored back."""
    for ratio in test.ratios:
        x = normalise(_resize_to_test(image, test, ratio))[None]
        size = (x.shape[-2], x.shape[-1])
        for mirrored in (False, True) if test.flip else (False,):
            seen = x.flip(-1) if mirrored else x
            if test.window is None:
                logits = predict(seen)
            else:
                stride = test.stride or (max(test.window[0] * 2 // 3, 1), max(test.window[1] * 2 // 3, 1))
                logits = window_logits(predict, seen, window=test.window, stride=stride)
            yield View(logits.flip(-1) if mirrored else logits, size, size)


def normalise(image: Tensor) -> Tensor:
    """(3, H, W) RGB in [0, 1] -> ImageNet mean 0, standard deviation 1."""
    mean, std = (image.new_tensor(v)[:, None, None] for v in (imagenet.MEAN, imagenet.STD))
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
