"""Token labelling: a soft label for every patch token, from label maps made once per image (arXiv:2104.10858).

The published LVT was trained so, with the package tlt 0.1.0. Its crop of the label maps is transposed against the
image's crop (it passes (y, x) where (x, y) is read); here the label crop is right unless `transposed_crop` asks for the
published behaviour.
Shapes: B batch, K classes, k kept classes per cell, Y x X cells of a label map, h x w grid of tokens, L = h * w.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from litevit.ops.mix_token import box_area


class TokenLabels(NamedTuple):
    """Targets of one batch. Every row is a distribution up to the smoothing."""

    truth: Tensor  # (B, K): the smoothed true class
    cls: Tensor  # (B, K): what the label map says about the whole crop
    tokens: Tensor  # (B, L, K): what it says about each token, row by row


class LabelMaps(NamedTuple):
    """Label maps of one batch, already flipped and warped as the images, not yet cropped."""

    scores: Tensor  # (B, k, Y, X)
    classes: Tensor  # (B, k, Y, X), int64
    crop: Tensor  # (B, 4): top, left, height, width of the image's crop, as fractions of the whole
    truth: Tensor  # (B,), int64


def unpack_label_maps(packed: Tensor) -> LabelMaps:
    """Reads the published layout of a batch.

    Args:
        packed: (B, 3, k, Y, X): scores, class ids, and a slice with the crop at [0, 0, :4] and the true class at
            [0, 0, 5].
    """
    row = packed[:, 2, 0, 0]
    return LabelMaps(packed[:, 0], packed[:, 1].long(), row[:, :4], row[:, 5].long())


def _smooth(labels: Tensor, smoothing: float) -> Tensor:
    """t -> t * on + off, with off = smoothing / K and on = 1 - smoothing (so that a one-hot row sums to 1)."""
    return labels * (1 - smoothing) + smoothing / labels.shape[-1]


def hard_labels(truth: Tensor, *, num_classes: int, num_tokens: int, smoothing: float = 0.1) -> TokenLabels:
    """Targets without label maps: the smoothed true class everywhere. Args: truth: (B,), int64."""
    rows = _smooth(F.one_hot(truth, num_classes).float(), smoothing)
    return TokenLabels(rows, rows, rows[:, None].expand(-1, num_tokens, -1))


def token_labels(
    maps: LabelMaps,
    *,
    num_classes: int,
    grid: tuple[int, int],
    smoothing: float = 0.1,
    transposed_crop: bool = False,
) -> TokenLabels:
    """Targets from label maps: RoIAlign of the crop to the token grid, and to one cell for the class token.

    Args:
        maps: see `LabelMaps`.
        grid: (h, w) of the tokens; 7 x 7 at 224 pixels.
        transposed_crop: reproduce tlt 0.1.0, which exchanges the two axes of the crop.
    """
    B, _, Y, X = maps.scores.shape
    dense = maps.scores.new_zeros(B, num_classes, Y, X).scatter_(1, maps.classes, maps.scores)
    top, left, height, width = maps.crop.unbind(1)
    if transposed_crop:
        top, left, height, width = left, top, width, height
    corners = torch.stack([left * X, top * Y, (left + width) * X, (top + height) * Y], 1) - 0.5
    rois = torch.cat([torch.arange(B, device=corners.device, dtype=corners.dtype)[:, None], corners], 1)
    tokens = roi_align(dense, rois, grid).flatten(2).transpose(1, 2)  # B L K
    whole = roi_align(dense, rois, (1, 1)).flatten(1)  # B K
    return TokenLabels(
        _smooth(F.one_hot(maps.truth, num_classes).to(dense.dtype), smoothing),
        _smooth_soft(whole.softmax(-1), smoothing),
        _smooth_soft(tokens.softmax(-1), smoothing),
    )


def _smooth_soft(labels: Tensor, smoothing: float) -> Tensor:
    """As published: soft labels are scaled by the on value of a smoothed one-hot row, so their rows sum to 1 + off."""
    off = smoothing / labels.shape[-1]
    return labels * (1 - smoothing + off) + off


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over rows of -sum(target * log softmax(logits)), in float32. Args: logits, target: (..., K)."""
    return -(target * logits.float().log_softmax(-1)).sum(-1).mean()


def token_label_losses(
    cls_logits: Tensor,
    aux_logits: Tensor,
    labels: TokenLabels,
    *,
    mix_box: Sequence[int] | Tensor | None = None,
    cls_weight: float = 1.0,
    dense_weight: float = 0.5,
    ground_truth: bool = False,
) -> dict[str, Tensor]:
    """Losses of `LVTClassifier(images, mix_box, return_tokens=True)`.

    Args:
        cls_logits: (B, K), mixed as the images are.
        aux_logits: (B, L, K), unmixed.
        labels: of the images before mixing.
        mix_box: the one given to the model; the class target is mixed by the box's share of the grid.
        ground_truth: official `--ground-truth`: pull the class target towards the true class, by 0.5 where the label
            map agrees with it and 0.1 where not.

    Returns:
        `loss_cls` and `loss_tokens`, weighted; their sum is the published loss.
    """
    target = labels.cls
    if ground_truth:
        agrees = labels.cls.argmax(-1) == labels.truth.argmax(-1)
        share = torch.where(agrees, 0.5, 0.9)[:, None].to(target.dtype)
        target = share * labels.cls + (1 - share) * labels.truth
    if mix_box is not None:
        lam = 1 - box_area(mix_box).to(target.device) / aux_logits.shape[1]
        target = lam * target + (1 - lam) * target.flip(0)
    return {
        "loss_cls": cls_weight * soft_cross_entropy(cls_logits, target),
        "loss_tokens": dense_weight * soft_cross_entropy(aux_logits, labels.tokens),
    }
