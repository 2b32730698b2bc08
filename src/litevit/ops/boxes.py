"""Box coder, class-wise suppression and mask pasting. Boxes are xyxy pixels without "+1"; N boxes, H x W image."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image, nms

from litevit.ops.precision import at_least_float32

UNIT_STDS = (1.0, 1.0, 1.0, 1.0)
# A predicted side is at most 1000 / 16 times its anchor's, and at least 16 / 1000 of it
# (torchvision's coder has the upper bound alone).
MAX_LOG_SCALE = math.log(1000 / 16)
# Below this many boxes all groups are suppressed in one call, moved apart; above, one call per group.
ONE_CALL_LIMIT = 10_000


def encode_boxes(boxes: Tensor, targets: Tensor, *, stds: Sequence[float] = UNIT_STDS) -> Tensor:
    """Deltas (dx, dy, dw, dh) that move `boxes` onto `targets`. Both (N, 4); returns (N, 4)."""
    centre, size = (boxes[:, :2] + boxes[:, 2:]) * 0.5, boxes[:, 2:] - boxes[:, :2]
    target_centre, target_size = (targets[:, :2] + targets[:, 2:]) * 0.5, targets[:, 2:] - targets[:, :2]
    deltas = torch.cat(((target_centre - centre) / size, (target_size / size).log()), dim=1)
    return deltas / deltas.new_tensor(stds)


def decode_boxes(
    deltas: Tensor, boxes: Tensor, *, stds: Sequence[float] = UNIT_STDS, clip_to: tuple[int, int] | None = None
) -> Tensor:
    """Inverse of `encode_boxes`.

    Args:
        deltas: (..., 4).
        boxes: (..., 4), broadcast against `deltas`.
        clip_to: height and width to clip the result to.
    """
    deltas = deltas * deltas.new_tensor(stds)
    centre, size = (boxes[..., :2] + boxes[..., 2:]) * 0.5, boxes[..., 2:] - boxes[..., :2]
    centre = centre + size * deltas[..., :2]
    half = size * deltas[..., 2:].clamp(-MAX_LOG_SCALE, MAX_LOG_SCALE).exp() * 0.5
    decoded = torch.cat((centre - half, centre + half), dim=-1)
    return decoded if clip_to is None else clip_boxes_to_image(decoded, clip_to)


def is_box(boxes: Tensor, *, remove_empty: bool) -> Tensor:
    """(N,) bool: boxes with finite corners and, if `remove_empty`, a width and height above 0."""
    keep = torch.isfinite(boxes).all(dim=1)
    if remove_empty:
        keep &= (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    return keep


def grouped_nms(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    """Greedy suppression of boxes of the same group whose IoU exceeds the threshold.

    Args:
        boxes: (N, 4), finite.
        scores: (N,).
        groups: (N,) integers: class or pyramid level.

    Returns:
        Indices of the kept boxes, by descending score.
    """
    boxes, scores = at_least_float32(boxes), at_least_float32(scores)
    if len(boxes) == 0:
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    if len(boxes) < ONE_CALL_LIMIT:
        # Not torchvision's `batched_nms`: it shifts by the same rule, but only below other counts.
        return nms(boxes + (groups.to(boxes) * (boxes.max() + 1))[:, None], scores, iou_threshold)
    kept = []
    for group in groups.unique():
        index = (groups == group).nonzero().flatten()
        kept.append(index[nms(boxes[index], scores[index], iou_threshold)])
    joined = torch.cat(kept)
    return joined[scores[joined].argsort(descending=True, stable=True)]


def select_detections(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    *,
    iou_threshold: float,
    max_detections: int,
    class_agnostic: bool = False,
    remove_empty: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Suppresses and cuts the candidates of one image; boxes that are not finite never pass.

    Args:
        boxes: (N, 4).
        scores: (N,).
        labels: (N,).
        class_agnostic: classes suppress each other.
        remove_empty: drop boxes without area first.

    Returns:
        boxes, scores and labels by descending score, at most `max_detections`.
    """
    ok = is_box(boxes, remove_empty=remove_empty)
    boxes, scores, labels = boxes[ok], scores[ok], labels[ok]
    keep = grouped_nms(boxes, scores, torch.zeros_like(labels) if class_agnostic else labels, iou_threshold)
    keep = keep[:max_detections]
    return boxes[keep], scores[keep], labels[keep]


def paste_masks(
    masks: Tensor,
    boxes: Tensor,
    size: tuple[int, int],
    *,
    threshold: float | None = 0.5,
    window: bool = True,
) -> Tensor:
    """Draws box-sized masks into images: bilinear, pixel centres, zero outside the mask.

    The interpolation is separable (boxes are upright), so a mask is two small matrix products, not a `grid_sample`.

    Args:
        masks: (N, R, R) probabilities.
        boxes: (N, 4) pixels of the image.
        size: H and W of the image.
        threshold: pixels are `value >= threshold`; None returns the values.
        window: write only rows floor(y0) - 1 .. ceil(y1) + 1 (and columns alike). Without, the half texel beyond
            the box is kept too; it is below 0.5, except that a box without width then fills whole columns.

    Returns:
        (N, H, W) bool, or float32 without a threshold.
    """
    H, W = size
    N, R = masks.shape[0], masks.shape[-1]
    if masks.is_cuda:  # mask after mask took 46 of the 69 ms of a Mask R-CNN on an H200: the GPU waited for Python
        return _paste_together(masks.float(), boxes.float(), size, threshold, window)
    out = torch.zeros(N, H, W, dtype=torch.float32 if threshold is None else torch.bool, device=masks.device)
    masks, boxes = masks.float(), boxes.float()
    low = (boxes[:, :2].floor() - 1).clamp(min=0).tolist()
    high = (boxes[:, 2:].ceil() + 1).tolist()
    for i in range(N):
        x_from, y_from = (int(v) for v in low[i]) if window else (0, 0)
        x_to, y_to = (min(int(high[i][0]), W), min(int(high[i][1]), H)) if window else (W, H)
        if x_from >= x_to or y_from >= y_to:
            continue
        x0, y0, x1, y1 = boxes[i].unbind()
        rows = _hat_weights(y0, y1, y_from, y_to, R)
        columns = _hat_weights(x0, x1, x_from, x_to, R)
        pasted = rows @ masks[i] @ columns.T
        out[i, y_from:y_to, x_from:x_to] = pasted if threshold is None else pasted >= threshold
    return out


def _paste_together(
    masks: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float | None, window: bool, at_a_time: int = 32
) -> Tensor:
    """`paste_masks` for devices that want few and large operations: every mask over the whole image."""
    H, W = size
    N, R = masks.shape[0], masks.shape[-1]
    out = torch.zeros(N, H, W, dtype=torch.float32 if threshold is None else torch.bool, device=masks.device)
    y, x = (torch.arange(side, device=masks.device) for side in size)
    for i in range(0, N, at_a_time):
        part = slice(i, i + at_a_time)
        x0, y0, x1, y1 = boxes[part].unbind(1)
        rows, columns = _hat_weights(y0, y1, 0, H, R), _hat_weights(x0, x1, 0, W, R)
        pasted = rows @ masks[part] @ columns.mT
        if threshold is not None:
            pasted = pasted >= threshold
        if window:
            inside_y = (y >= y0.floor()[:, None] - 1) & (y < y1.ceil()[:, None] + 1)
            inside_x = (x >= x0.floor()[:, None] - 1) & (x < x1.ceil()[:, None] + 1)
            pasted = pasted.masked_fill(~(inside_y[:, :, None] & inside_x[:, None, :]), 0)
        out[part] = pasted
    return out


def _hat_weights(start: Tensor, stop: Tensor, first: int, last: int, resolution: int) -> Tensor:
    """(..., last - first, resolution): weights of masks' texels in pixels first .. last - 1 of sides start .. stop."""
    centres = torch.arange(first, last, device=start.device) + 0.5
    start, stop = start[..., None], stop[..., None]
    relative = (centres - start) / (stop - start) * 2 - 1
    relative = torch.where(torch.isinf(relative), 0.0, relative)  # a side of length 0 shows the mask's middle
    texel = ((relative + 1) * resolution - 1) / 2
    distance = (texel[..., None] - torch.arange(resolution, device=start.device)).abs()
    return (1 - distance).clamp(min=0).nan_to_num(0.0)
