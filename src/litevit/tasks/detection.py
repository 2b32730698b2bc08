"""What all detectors share: images and targets in, boxes out, in the pixels of the images given.

The published pipeline resizes on 0..255 integers, then normalises, then pads with zeros: to a multiple of 32 for each
image, then to the largest of the batch. B images.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image

from litevit.layers.features import FeatureSpec
from litevit.ops import imagenet
from litevit.ops.precision import at_least_float32, wide

PAD_MULTIPLE = 32

Size = tuple[int, int]  # height, width


class ImageBatch(NamedTuple):
    images: Tensor  # (B, 3, H, W), normalised and padded
    sizes: list[Size]  # of each image in `images`, without padding
    padded_sizes: list[Size]  # with its own padding, without that of the batch
    original_sizes: list[Size]  # as given

    def scale(self, index: int) -> tuple[float, float]:
        """Horizontal and vertical factor from the image given to the one in the batch."""
        (h, w), (h0, w0) = self.sizes[index], self.original_sizes[index]
        return w / w0, h / h0


def backbone_features(backbone: nn.Module, *, user: str, rgb: bool = False) -> tuple[FeatureSpec, ...]:
    """`backbone.features`, checked to be the four maps that a pyramid is built on.

    Args:
        rgb: the user prepares RGB images itself, which the backbone has to take.
    """
    features = getattr(backbone, "features", None)
    if not isinstance(features, Sequence) or len(features) != 4:
        raise ValueError(
            f"{user}: the backbone needs `.features`, four of FeatureSpec(channels, stride), got {features}"
        )
    in_chans = getattr(getattr(backbone, "config", None), "in_chans", 3)
    if rgb and in_chans != 3:
        raise ValueError(f"{user} takes RGB images: the backbone's in_chans must be 3, got {in_chans}")
    return tuple(FeatureSpec(*feature) for feature in features)


def dtype_of(model: nn.Module) -> torch.dtype:
    """What a model computes in: the dtype of its first floating-point parameter."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def per_level(head: nn.Module, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The two outputs of a head that all levels share. Args: maps: (B, C, H_l, W_l) per level."""
    first, second = zip(*(head(x) for x in maps))
    return list(first), list(second)


def check_positive(user: str, **values: int) -> None:
    """Raises unless every value is at least 1."""
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{user}: {name} must be at least 1, got {value}")


def resized_size(size: Size, *, min_size: int, max_size: int) -> Size:
    """The largest size of the same shape with short side <= min_size and long side <= max_size, rounded half up."""
    h, w = size
    scale = min(max_size / max(h, w), min_size / min(h, w))
    return max(int(h * scale + 0.5), 1), max(int(w * scale + 0.5), 1)


def prepare_images(
    images: Sequence[Tensor],
    *,
    resize: bool = True,
    min_size: int = 800,
    max_size: int = 1333,
    accepted: tuple[int, int] | None = None,
    dtype: torch.dtype = torch.float32,
) -> ImageBatch:
    """Resizes, normalises, pads and stacks.

    Args:
        images: (3, H, W) each, RGB in [0, 1], of any sizes.
        resize: False keeps every size (small images of synthetic data).
        accepted: lowest and highest short side that stays as it is if the long side is within `max_size`: that of
            images whose augmentation has drawn their scale already.
        dtype: of the batch.
    """
    if isinstance(images, Tensor) and images.dim() == 4:
        images = list(images)
    if isinstance(images, Tensor) or not isinstance(images, Sequence) or len(images) == 0:
        raise ValueError("images must be a non-empty list of (3, H, W) tensors")
    prepared, sizes, padded_sizes = [], [], []
    for i, image in enumerate(images):
        if not isinstance(image, Tensor) or image.dim() != 3 or image.shape[0] != 3 or 0 in image.shape:
            raise ValueError(f"images[{i}] must be a (3, H, W) tensor, got {_describe(image)}")
        if not image.is_floating_point():
            raise ValueError(f"images[{i}] must hold floats in [0, 1], got {image.dtype}; divide it by 255")
        x = at_least_float32(image)
        size = (x.shape[1], x.shape[2])
        drawn = accepted is not None and accepted[0] <= min(size) <= accepted[1] and max(size) <= max_size
        if resize and not drawn and (target := resized_size(size, min_size=min_size, max_size=max_size)) != size:
            x = F.interpolate(x[None] * 255, size=target, mode="bilinear", align_corners=False)[0]
            x = x.round() / 255  # the published pipeline resizes integers
            size = target
        mean, std = (x.new_tensor(v)[:, None, None] for v in (imagenet.MEAN, imagenet.STD))
        prepared.append((x - mean) / std)
        sizes.append(size)
        padded_sizes.append((_round_up(size[0]), _round_up(size[1])))
    H, W = (max(size[axis] for size in padded_sizes) for axis in (0, 1))
    batch = torch.zeros(len(images), 3, H, W, dtype=dtype, device=prepared[0].device)
    for canvas, x in zip(batch, prepared):
        canvas[:, : x.shape[1], : x.shape[2]] = x
    return ImageBatch(batch, sizes, padded_sizes, [(image.shape[1], image.shape[2]) for image in images])


def check_batch(batch: Tensor) -> None:
    """Raises unless `batch` is what `forward_raw` takes."""
    if not isinstance(batch, Tensor) or batch.dim() != 4 or batch.shape[1] != 3 or not batch.is_floating_point():
        raise ValueError(f"forward_raw takes a normalised (B, 3, H, W) float batch, got {_describe(batch)}")


def _round_up(side: int) -> int:
    return -(-side // PAD_MULTIPLE) * PAD_MULTIPLE


class Objects(NamedTuple):
    """The objects of one image of a batch. G objects."""

    boxes: Tensor  # (G, 4), float32 at least, in pixels of the resized image
    labels: Tensor  # (G,) int64
    masks: Tensor | None  # (G, H, W), at the size and on the device GIVEN: resized and moved where a loss needs them


def prepare_targets(
    targets: Sequence[Mapping[str, Tensor]] | None, batch: ImageBatch, *, num_classes: int, masks: bool = False
) -> list[Objects]:
    """Checks the targets and moves the boxes to the pixels of the batch.

    Args:
        targets: per image `boxes` (G, 4) xyxy in pixels of the image given, `labels` (G,) in 0..num_classes - 1 and,
            if `masks`, `masks` (G, H, W) bool. G may be 0. Objects outside their image are left out.
    """
    if targets is None or isinstance(targets, Mapping):
        raise ValueError("training needs targets: a list of one dict per image with boxes and labels")
    if len(targets) != len(batch.sizes):
        raise ValueError(f"targets must be one dict per image, got {len(targets)} for {len(batch.sizes)} images")
    device, dtype = batch.images.device, wide(batch.images.dtype)
    prepared = []
    for i, target in enumerate(targets):
        _check_target(target, f"targets[{i}]", batch.original_sizes[i], num_classes, masks)
        x_scale, y_scale = batch.scale(i)
        boxes = target["boxes"].to(device, dtype).reshape(-1, 4)
        boxes = boxes * boxes.new_tensor((x_scale, y_scale, x_scale, y_scale))
        boxes = clip_boxes_to_image(boxes, batch.sizes[i])
        inside = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        prepared.append(
            Objects(
                boxes[inside],
                target["labels"].to(device).long().reshape(-1)[inside],
                (target["masks"] if inside.all() else target["masks"][inside.to(target["masks"].device)])
                if masks
                else None,
            )
        )
    return prepared


def _check_target(target: Mapping[str, Tensor], name: str, size: Size, num_classes: int, masks: bool) -> None:
    if not isinstance(target, Mapping):
        raise ValueError(f"{name} must be a dict with boxes and labels, got {_describe(target)}")
    for key in ("boxes", "labels", "masks") if masks else ("boxes", "labels"):
        if not isinstance(target.get(key), Tensor):
            raise ValueError(f"{name} needs a tensor {key!r}, got {_describe(target.get(key))}")
    boxes, labels = target["boxes"], target["labels"]
    G = len(labels) if labels.dim() == 1 else -1
    if G < 0 or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"{name}['labels'] must be (N,) integers, got {_describe(labels)}")
    if boxes.shape != (G, 4) and not (G == 0 and boxes.numel() == 0):
        raise ValueError(f"{name}['boxes'] must be ({G}, 4) like the {G} labels, got {_describe(boxes)}")
    if not boxes.is_floating_point():
        raise ValueError(f"{name}['boxes'] must be floats (xyxy pixels), got {boxes.dtype}")
    if masks and (target["masks"].shape != (G, *size) or target["masks"].dtype not in (torch.bool, torch.uint8)):
        raise ValueError(
            f"{name}['masks'] must be ({G}, {size[0]}, {size[1]}) bool like the image, got {_describe(target['masks'])}"
        )
    if G == 0:
        return
    bad = ~(torch.isfinite(boxes).all(dim=1) & (boxes[:, 2:] > boxes[:, :2]).all(dim=1))
    if bad.any():
        k = int(bad.nonzero()[0])
        raise ValueError(
            f"{name}['boxes'] must be xyxy with x1 < x2 and y1 < y2, box {k} is {boxes[k].tolist()}; "
            "convert xywh boxes and drop empty ones"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"{name}['labels'] must be in 0..{num_classes - 1}, got {low}..{high}; "
            "map category ids to contiguous classes from 0, or set num_classes"
        )


def _describe(value: object) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def to_original(boxes: Tensor, batch: ImageBatch, index: int) -> Tensor:
    """(N, 4) boxes of image `index` of the batch, in pixels of the image given."""
    x_scale, y_scale = batch.scale(index)
    return clip_boxes_to_image(
        boxes / boxes.new_tensor((x_scale, y_scale, x_scale, y_scale)), batch.original_sizes[index]
    )
