"""Detectors with their post-processing at fixed shapes: the same selection as `postprocess` and `detect` make.

Every choice of "all that ..." becomes the best N with a mark of who counts, so that shapes depend on the batch and the
image size alone. B images of one size, K classes, n anchors of a level, P candidates, R proposals, D detections.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from litevit.deploy.compare import MASK_PIXELS, SetRules, compare_detections
from litevit.deploy.graph import Difference, Graph
from litevit.ops.anchors import base_anchors, grid_anchors
from litevit.ops.batched_nms import batched_nms
from litevit.ops.boxes import decode_boxes
from litevit.tasks.detection import PAD_MULTIPLE, ImageBatch, per_level
from litevit.tasks.mask_rcnn import MaskRCNN
from litevit.tasks.panoptic_fpn import PanopticFPN
from litevit.tasks.retinanet import RetinaNet
from litevit.tasks.roi_heads import BOX_STDS, RoIHeads, roi_levels

NOBODY = -1.0  # score of who does not count; scores are probabilities
NO_LABEL = -1


class RetinaNetGraph(Graph):
    """`boxes` (B, D, 4) xyxy pixels of the images given, `scores` (B, D), `labels` (B, D), `count` (B,): the first
    `count` of an image are its detections, by descending score."""

    def __init__(self, model: RetinaNet):
        super().__init__(model, "detection", ("boxes", "scores", "labels", "count"))
        self.rules = SetRules.of(model.config)
        self.bases = _bases(model.strides, model.config.anchor_scales, model.config.anchor_ratios)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        model: Any = self.model
        config = model.config
        H, W = images.shape[-2:]
        parts = []
        for x, d, base, stride in zip(*model._head_maps(pad_to_multiple(images)), self.bases, model.strides):
            logits, deltas = rows(x, config.num_classes).float(), rows(d, 4).float()
            parts.append(self._candidates(logits, deltas, _anchors(base, x, stride)))
        boxes, scores, labels = (torch.cat(part, 1) for part in zip(*parts))
        boxes, scores = clip(boxes, H, W), scores
        return select(
            boxes,
            scores,
            labels,
            iou_threshold=config.nms_threshold,
            max_detections=config.max_detections,
            remove_empty=config.remove_empty_boxes,
        )

    def _candidates(self, logits: Tensor, deltas: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of one level. Args: logits: (B, n, K). deltas: (B, n, 4). anchors: (n, 4). Returns: (B, P, ...) each."""
        config: Any = self.model.config
        K, pre_nms = config.num_classes, config.pre_nms
        if config.selection == "anchors":
            best, index = padded_topk(logits.amax(2).sigmoid(), pre_nms)
            logits, deltas, anchors = pick(logits, index), pick(deltas, index), anchors[index]
            scores = logits.sigmoid()
            scores = torch.where((scores > config.score_threshold) & (best >= 0)[..., None], scores, NOBODY)
            boxes = decode_boxes(deltas, anchors)
            boxes = boxes[:, :, None].expand(-1, -1, K, -1).flatten(1, 2)
            labels = torch.arange(K, device=logits.device).expand(scores.shape).flatten(1)
            return boxes, scores.flatten(1), labels
        scores = logits.flatten(1).sigmoid()
        scores, index = padded_topk(torch.where(scores > config.score_threshold, scores, NOBODY), pre_nms)
        row = index // K
        return decode_boxes(pick(deltas, row), anchors[row]), scores, index - row * K

    @torch.no_grad()
    def reference(self, images: Tensor) -> dict[str, Tensor]:
        model: Any = self.model
        padded = pad_to_multiple(images)
        return stack_detections(model.postprocess(*model._head_maps(padded), as_batch(images, padded)), self.rules)

    def compare(self, found: dict[str, Tensor], ours: dict[str, Tensor], exact: dict[str, Tensor]) -> list[Difference]:
        return compare_detections(found, ours, exact, self.rules)


class TwoStageGraph(Graph):
    """What Mask R-CNN and Panoptic FPN share: proposals, box head, mask head."""

    def __init__(self, model: MaskRCNN | PanopticFPN, task: str, names: tuple[str, ...]):
        super().__init__(model, task, names)
        self.rules = SetRules.of(model.config, class_agnostic=model.roi_heads.class_agnostic_nms)
        self.bases = _bases(model.rpn.strides, model.rpn.scales, model.rpn.ratios)

    def detect(self, maps: Sequence[Tensor], size: tuple[Any, Any]) -> tuple[Tensor, ...]:
        """`boxes`, `scores`, `labels`, `count` as `RetinaNetGraph`'s, and the mask of each: (B, D, 28, 28) in 0..1.

        Args:
            maps: (B, C, H_l, W_l) of the pyramid.
            size: height and width of the images.
        """
        heads: RoIHeads = self.model.roi_heads  # type: ignore[assignment]
        proposals, valid = self._proposals(maps, size)
        B, R, _ = proposals.shape
        logits, deltas = heads.box_head(roi_features(maps, proposals, heads.strides, heads.box_size))
        scores = logits.float().softmax(1)[:, :-1].unflatten(0, (B, R))  # B R K
        scores = torch.where((scores > heads.score_threshold) & valid[..., None], scores, NOBODY)
        # Probabilities sum to 1: at most so many classes of a proposal pass.
        K = heads.num_classes
        most = min(K, math.ceil(1 / heads.score_threshold)) if heads.score_threshold > 0 else K
        scores, labels = scores.topk(most, 2)
        deltas = deltas.float().unflatten(0, (B, R)).unflatten(2, (K, 4))
        deltas = deltas.gather(2, labels[..., None].expand(-1, -1, -1, 4))
        boxes = clip(decode_boxes(deltas, proposals[:, :, None].float(), stds=BOX_STDS), *size)
        boxes, scores, labels, count = select(
            boxes.flatten(1, 2),
            scores.flatten(1),
            labels.flatten(1),
            iou_threshold=heads.nms_threshold,
            max_detections=heads.max_detections,
            class_agnostic=heads.class_agnostic_nms,
        )
        assert heads.mask_head is not None
        masks = heads.mask_head(roi_features(maps, boxes, heads.strides, heads.mask_size))  # B*D K h w
        chosen = labels.clamp(min=0).flatten()[:, None, None, None].expand(-1, 1, *masks.shape[-2:])
        masks = masks.gather(1, chosen).float().sigmoid().unflatten(0, (B, heads.max_detections)).flatten(2, 3)
        return boxes, scores, labels, count, masks

    def _proposals(self, maps: Sequence[Tensor], size: tuple[Any, Any]) -> tuple[Tensor, Tensor]:
        """(B, R, 4), and which of them count (B, R)."""
        rpn: Any = self.model.rpn
        parts = []
        for level, (x, d, base) in enumerate(zip(*per_level(rpn, maps), self.bases)):
            anchors = _anchors(base, x, rpn.strides[level])
            scores, index = padded_topk(rows(x, 1).flatten(1).float().sigmoid(), rpn.pre_nms_test)
            boxes = decode_boxes(pick(rows(d, 4).float(), index), anchors[index])
            parts.append((clip(boxes, *size), scores, torch.full_like(index, level)))
        boxes, scores, groups = (torch.cat(part, 1) for part in zip(*parts))
        boxes, scores, _, count = select(
            boxes,
            scores,
            groups,
            iou_threshold=rpn.nms_threshold,
            max_detections=rpn.max_proposals,
            remove_empty=rpn.remove_empty,
        )
        return boxes, torch.arange(rpn.max_proposals, device=boxes.device) < count[:, None]

    def maps(self, padded: Tensor) -> Sequence[Tensor]:
        model: Any = self.model
        return model.fpn(model.backbone(padded))

    def drawn(self, masks: Tensor, boxes: Tensor, labels: Tensor, size: tuple[Any, Any]) -> Tensor:
        """(B, D, H, W) bool of `detect`'s masks."""
        config: Any = self.model.config
        return paste(masks, boxes, size, threshold=config.mask_threshold) & (labels >= 0)[..., None, None]

    @torch.no_grad()
    def compare(self, found: dict[str, Tensor], ours: dict[str, Tensor], exact: dict[str, Tensor]) -> list[Difference]:
        out = compare_detections(found, ours, exact, self.rules)
        masks = found["masks"]
        size = (masks.shape[2], masks.shape[3])
        drawn = self.drawn(found["mask_probabilities"], found["boxes"], found["labels"], size)
        lost = float((drawn ^ masks.bool()).sum()) / max(float((drawn | masks.bool()).sum()), 1.0)
        return [*out, Difference("mask_probabilities", lost, MASK_PIXELS)]


class MaskRCNNGraph(TwoStageGraph):
    """As `RetinaNetGraph`, with `masks` (B, D, H, W) bool, and `mask_probabilities` (B, D, 28, 28) that they are
    drawn from, for who draws them at another size."""

    def __init__(self, model: MaskRCNN):
        names = ("boxes", "scores", "labels", "count", "masks", "mask_probabilities")
        super().__init__(model, "instance segmentation", names)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        size = (images.shape[2], images.shape[3])
        boxes, scores, labels, count, small = self.detect(self.maps(pad_to_multiple(images)), size)
        return boxes, scores, labels, count, self.drawn(small, boxes, labels, size), small

    @torch.no_grad()
    def reference(self, images: Tensor) -> dict[str, Tensor]:
        model: Any = self.model
        padded = pad_to_multiple(images)
        return stack_detections(model.detect(self.maps(padded), as_batch(images, padded)), self.rules)


# --------------------------------------------------------------- the pieces


def pad_to_multiple(images: Tensor) -> Tensor:
    """Zeros at the right and bottom, as the published pipeline pads. Args: images: (B, 3, H, W)."""
    H, W = images.shape[-2:]
    m = PAD_MULTIPLE
    return F.pad(images, (0, (W + m - 1) // m * m - W, 0, (H + m - 1) // m * m - H))


def as_batch(images: Tensor, padded: Tensor) -> ImageBatch:
    """What the model's own post-processing takes: images that keep their size."""
    size, own = (images.shape[2], images.shape[3]), (padded.shape[2], padded.shape[3])
    n = len(images)
    return ImageBatch(padded, [size] * n, [own] * n, [size] * n)


def rows(x: Tensor, width: int) -> Tensor:
    """(B, A * width, H, W) map -> (B, H * W * A, width), in the order of the anchors."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, width)


def _bases(strides: Sequence[int], scales: Sequence[float], ratios: Sequence[float]) -> list[Tensor]:
    return [base_anchors(stride, scales=scales, ratios=ratios) for stride in strides]


def _anchors(base: Tensor, x: Tensor, stride: int) -> Tensor:
    return grid_anchors(base.to(x.device), (x.shape[-2], x.shape[-1]), stride)


def padded_topk(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The best `count` of each row and where they are; rows with fewer are filled up with `NOBODY` at 0.

    Args:
        scores: (B, n), probabilities or `NOBODY`.
    """
    scores = torch.where(scores >= 0, scores, NOBODY)  # NaN is nobody
    best, index = F.pad(scores, (0, count), value=NOBODY).topk(count, 1)
    return best, torch.where(best >= 0, index, 0)


def pick(x: Tensor, index: Tensor) -> Tensor:
    """Args: x: (B, n, C). index: (B, P). Returns: (B, P, C)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))


def clip(boxes: Tensor, H: Any, W: Any) -> Tensor:
    """Args: boxes: (..., 4). Returns: the same within the image."""
    x, y = boxes[..., 0::2].clamp(min=0, max=W), boxes[..., 1::2].clamp(min=0, max=H)
    return torch.stack((x, y), -1).flatten(-2)


def select(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor,
    *,
    iou_threshold: float,
    max_detections: int,
    class_agnostic: bool = False,
    remove_empty: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Suppression within groups, then the best: `litevit.ops.boxes.select_detections` of a batch.

    Args:
        boxes: (B, P, 4).
        scores: (B, P), `NOBODY` where there is no candidate.
        groups: (B, P) int64.

    Returns:
        boxes (B, D, 4), scores (B, D), groups (B, D) and count (B,); rows from `count` on are 0, groups `NO_LABEL`.
    """
    ok = boxes.isfinite().all(2) & (scores >= 0)
    if remove_empty:
        ok = ok & (boxes[..., 2:] > boxes[..., :2]).all(2)
    boxes = torch.where(ok[..., None], boxes, 0.0)
    scores = torch.where(ok, scores, NOBODY)
    apart = boxes
    if not class_agnostic:  # groups are moved apart
        step = boxes.amax((1, 2)) + 1
        apart = boxes + (groups.to(boxes.dtype) * step[:, None])[..., None]
    keep = batched_nms(apart, scores, iou_threshold)
    best, index = padded_topk(torch.where(keep, scores, NOBODY), max_detections)
    counts = best >= 0
    return (
        torch.where(counts[..., None], pick(boxes, index), 0.0),
        torch.where(counts, best, 0.0),
        torch.where(counts, groups.gather(1, index), NO_LABEL),
        counts.sum(1),
    )


def roi_features(maps: Sequence[Tensor], boxes: Tensor, strides: Sequence[int], size: int) -> Tensor:
    """`litevit.tasks.roi_heads.roi_features` without sorting regions by level.

    A level sees the regions of others as empty boxes, which cost nothing.

    Args:
        boxes: (B, R, 4).

    Returns:
        (B * R, C, size, size).
    """
    B, R, _ = boxes.shape
    image = torch.arange(B, device=boxes.device, dtype=boxes.dtype)[:, None, None].expand(-1, R, 1)
    rois = torch.cat((image, boxes), 2).flatten(0, 1).float()
    maps = maps[: len(strides)]  # coarser ones are for proposals alone
    levels = roi_levels(rois, len(maps))[:, None]
    total: Tensor | None = None
    for level, (x, stride) in enumerate(zip(maps, strides, strict=True)):
        mine = torch.cat((rois[:, :1], torch.where(levels == level, rois[:, 1:], 0.0)), 1)
        bins = roi_align(x.float(), mine, size, 1 / stride, sampling_ratio=0, aligned=True)
        bins = torch.where((levels == level)[..., None, None], bins, 0.0)
        total = bins if total is None else total + bins
    assert total is not None
    return total.to(maps[0].dtype)


def paste(masks: Tensor, boxes: Tensor, size: tuple[Any, Any], *, threshold: float) -> Tensor:
    """`litevit.ops.boxes.paste_masks` for all masks at once.

    Args:
        masks: (B, D, R, R) probabilities.
        boxes: (B, D, 4).
        size: H and W.

    Returns:
        (B, D, H, W) bool.
    """
    low, high = boxes[..., :2].floor() - 1, boxes[..., 2:].ceil() + 1
    columns, in_x = _weights(boxes[..., 0], boxes[..., 2], low[..., 0], high[..., 0], size[1], masks.shape[-1])
    rows_, in_y = _weights(boxes[..., 1], boxes[..., 3], low[..., 1], high[..., 1], size[0], masks.shape[-1])
    pasted = rows_ @ masks @ columns.transpose(2, 3)
    return (pasted >= threshold) & in_y[..., :, None] & in_x[..., None, :]


def _weights(start: Tensor, stop: Tensor, low: Tensor, high: Tensor, length: Any, R: int) -> tuple[Tensor, Tensor]:
    """(B, D, length, R) weights of a mask's texels in pixels, and (B, D, length) whether the pixel is written."""
    pixels = torch.arange(length, device=start.device, dtype=start.dtype)
    side = stop - start
    relative = (pixels + 0.5 - start[..., None]) / side[..., None] * 2 - 1
    relative = torch.where(
        (side == 0)[..., None], torch.where(pixels + 0.5 == start[..., None], torch.nan, 0.0), relative
    )
    texel = ((relative + 1) * R - 1) / 2
    distance = (texel[..., None] - torch.arange(R, device=start.device)).abs()
    weights = (1 - distance).clamp(min=0)
    inside = (pixels >= low[..., None]) & (pixels < high[..., None])
    return torch.where(weights.isnan(), 0.0, weights), inside


def stack_detections(found: Sequence[dict[str, Any]], rules: SetRules) -> dict[str, Tensor]:
    """A model's list of detections as a file gives them."""
    D = rules.max_detections
    out: dict[str, list[Tensor]] = {}
    for one in found:
        n = len(one["scores"])
        for key in ("boxes", "scores", "labels", "masks"):
            if key in one:
                value = NO_LABEL if key == "labels" else 0
                pads = (0, 0) * (one[key].dim() - 1) + (0, D - n)
                out.setdefault(key, []).append(F.pad(one[key], pads, value=value))
        out.setdefault("count", []).append(torch.tensor(n))
    return {key: torch.stack(values) for key, values in out.items()}
