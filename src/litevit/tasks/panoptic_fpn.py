"""Panoptic FPN (arXiv:1901.02446): Mask R-CNN and a semantic branch on one pyramid, fused by a rule.

Published with LVT on COCO (mmdet 2.17). T thing classes, S stuff classes; classes 0..T-1 are things, T..T+S-1 stuff.
The semantic branch knows S + 1 classes: 0..S-1 stuff, S any thing. Segment ids: T + s for stuff s, class + 1000 * k
for instance k = 1, 2, .. of an image; 0 is void.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litevit.ops.boxes import paste_masks
from litevit.ops.precision import at_least_float32
from litevit.tasks.detection import (
    PAD_MULTIPLE,
    ImageBatch,
    check_batch,
    dtype_of,
    prepare_images,
    prepare_targets,
    to_original,
)
from litevit.tasks.roi_heads import Detections
from litevit.tasks.segmentation import IGNORE, View, segmentation_loss, strips
from litevit.tasks.semantic_fpn import SemanticFPNHead
from litevit.tasks.two_stage import TwoStage

VOID = 0  # segment id of pixels without a segment
INSTANCE = 1000  # instance k of class c has the id c + INSTANCE * k


@dataclass(frozen=True, kw_only=True)
class PanopticFPNConfig:
    """The published LVT model."""

    num_things: int = 80
    num_stuff: int = 53
    channels: int = 96  # of the pyramid, the region proposals and the mask head
    box_hidden: int = 160  # width of the box head
    semantic_channels: int = 48
    semantic_groups: int = 12  # of GroupNorm in the semantic branch
    semantic_loss_weight: float = 0.5
    anchor_scales: tuple[float, ...] = (8.0,)  # in strides
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # height / width
    resize: bool = True  # False: images keep their size
    min_size: int = 800
    max_size: int = 1333
    train_min_sizes: tuple[int, int] = (640, 800)  # training images with a short side in between keep their size
    pre_nms_train: int = 2000  # per level
    pre_nms_test: int = 1000
    rpn_nms_threshold: float = 0.7
    max_proposals: int = 1000  # per image, in training too
    rpn_samples: int = 256  # anchors per image in the loss
    roi_samples: int = 512  # regions per image in the loss
    score_threshold: float = 0.6
    nms_threshold: float = 0.5  # between detections of any classes
    max_detections: int = 100
    mask_threshold: float = 0.5
    overlap_threshold: float = 0.5  # an instance covered by better ones to a larger share is left out
    min_stuff_area: int = 4096  # pixels of the image given; a stuff class with fewer is void


class PanopticFPN(TwoStage):
    """Any backbone of four maps, the pyramid P2..P6, region proposals, box, mask and semantic heads (arXiv:1901.02446).

    Training: `model(images, targets)` -> losses. Evaluation: `model(images)` -> a panoptic map per image.

    Args:
        backbone: see `litevit.create_backbone`.
        config: see `PanopticFPNConfig`; T things and S kinds of stuff.
    """

    def __init__(self, backbone: nn.Module, config: PanopticFPNConfig):
        if config.num_things < 1 or config.num_stuff < 0 or config.num_things + config.num_stuff > INSTANCE:
            raise ValueError(
                f"PanopticFPN: num_things must be at least 1 and num_things + num_stuff at most {INSTANCE}, "
                f"got {config.num_things} and {config.num_stuff}"
            )
        if config.num_stuff >= IGNORE:
            raise ValueError(f"PanopticFPN: num_stuff must be below {IGNORE} (ignore), got {config.num_stuff}")
        super().__init__(backbone, config, num_classes=config.num_things, user="PanopticFPN", class_agnostic_nms=True)
        self.semantic_head = SemanticFPNHead(
            config.channels,
            config.semantic_channels,
            config.num_stuff + 1,
            norm=partial(nn.GroupNorm, config.semantic_groups),
        )
        # The published model's box head starts larger than that of LIT's Mask R-CNN.
        for layer in self.roi_heads.box_head.children():
            assert isinstance(layer, nn.Linear)
            nn.init.xavier_normal_(layer.weight)

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict]:
        """
        Args:
            images: (3, H, W) each, RGB in [0, 1], of any sizes.
            targets: for training, per image `boxes` (G, 4) xyxy in pixels, `labels` (G,) in 0..T-1 and `masks`
                (G, H, W) bool of the things, G may be 0; and `semantic` (H, W): 0..S-1 stuff, S any thing, 255 ignore.

        Returns:
            Training: `loss_rpn_cls`, `loss_rpn_box`, `loss_cls`, `loss_box`, `loss_mask`, `loss_seg`.
            Evaluation, per image:
            `panoptic` (H, W) int64 segment ids, 0 = void;
            `segments_info`: a dict per segment: `id`, `category_id` in 0..T+S-1, `isthing`, `score` (stuff: the mean
            probability of the class where it wins at stride 4);
            `boxes` (M, 4), `scores` (M,), `labels` (M,), `masks` (M, H, W) bool: the instances before the fusion;
            `semantic` (H, W) int64 in 0..S, and `semantic_logits` (S + 1, h/4, w/4) of the resized, padded image.
        """
        config = self.config
        batch = prepare_images(
            images,
            resize=config.resize,
            min_size=config.min_size,
            max_size=config.max_size,
            accepted=config.train_min_sizes if self.training else None,
            dtype=dtype_of(self),
        )
        if not self.training:
            return self.detect(self.fpn(self.backbone(batch.images)), batch)
        objects = prepare_targets(targets, batch, num_classes=config.num_things, masks=True)
        semantic = self._semantic_targets(targets or (), batch)
        maps = self.fpn(self.backbone(batch.images))
        losses = self.region_losses(maps, objects, batch)
        loss_seg = segmentation_loss(self.semantic_head(maps[:4]), semantic)
        return {**losses, "loss_seg": config.semantic_loss_weight * loss_seg}

    def forward_raw(self, batch: Tensor) -> dict[str, Tensor]:
        """Every map before post-processing.

        Args:
            batch: (B, 3, H, W), normalised; padded with zeros to multiples of 32 if it is not.

        Returns:
            `C2`..`C5` (backbone), `F0`..`F4` (pyramid), `rpn_cls0`.., `rpn_reg0`.., and `seg` (B, S + 1, H/4, W/4).
        """
        check_batch(batch)
        H, W = batch.shape[-2:]
        batch = F.pad(batch, (0, -W % PAD_MULTIPLE, 0, -H % PAD_MULTIPLE))
        raw = super().forward_raw(batch)
        return {**raw, "seg": self.semantic_head([raw[f"F{i}"] for i in range(4)])}

    def detect(self, maps: Sequence[Tensor], batch: ImageBatch) -> list[dict]:
        """
        Args:
            maps: (B, C, H_l, W_l) of the pyramid.
            batch: what the images were made into.

        Returns:
            See `forward`.
        """
        detections, probabilities = self.find_regions(maps, batch)
        logits = _void_where_nan(self.semantic_head(maps[:4]))
        return panoptic_results(self.config, detections, probabilities, logits, batch)

    def _semantic_targets(self, targets: Sequence[Mapping[str, Tensor]], batch: ImageBatch) -> Tensor:
        """(B, H/4, W/4): the labels of every fourth pixel of the resized image (nearest), 255 in the padding."""
        B, _, H, W = batch.images.shape
        out = torch.full((B, H // 4, W // 4), IGNORE, dtype=torch.int64, device=batch.images.device)
        for i, target in enumerate(targets):
            labels, size = target.get("semantic"), batch.original_sizes[i]
            if not isinstance(labels, Tensor) or labels.shape != size or labels.is_floating_point():
                what = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
                raise ValueError(f"targets[{i}]['semantic'] must be {size} integers like the image, got {what}")
            low, high = (int(v) for v in torch.aminmax(labels.masked_fill(labels == IGNORE, 0)))
            if low < 0 or high > self.config.num_stuff:
                raise ValueError(
                    f"targets[{i}]['semantic'] must hold 0..{self.config.num_stuff - 1} (stuff), "
                    f"{self.config.num_stuff} (any thing) or {IGNORE} (ignore), got {low}..{high}; "
                    "semantic_target() makes it from classes of things and stuff"
                )
            rows, columns = (
                (torch.arange(0, new, 4, dtype=torch.float64) * (old / new)).long().to(labels.device)
                for new, old in zip(batch.sizes[i], size)
            )
            out[i, : len(rows), : len(columns)] = labels[rows[:, None], columns[None, :]].to(out)
        return out


@torch.no_grad()
def panoptic_results(
    config: PanopticFPNConfig,
    detections: Sequence[Detections],
    probabilities: Sequence[Tensor],
    logits: Tensor,
    batch: ImageBatch,
) -> list[dict]:
    """What `PanopticFPN` returns for each image, from its instances and semantic logits.

    Args:
        detections: in the batch's pixels.
        probabilities: (M_i, 28, 28), their masks.
        logits: (B, S + 1, h, w) of the padded batch.
    """
    padded = (batch.images.shape[-2], batch.images.shape[-1])
    results = []
    for i, found in enumerate(detections):
        size = batch.original_sizes[i]
        boxes = to_original(found.boxes, batch, i)
        masks = paste_masks(probabilities[i], boxes, size, threshold=config.mask_threshold)
        semantic = semantic_labels(View(logits[i : i + 1], padded, batch.sizes[i]), size)
        panoptic, segments = fuse(
            found.scores,
            found.labels,
            masks,
            semantic,
            num_things=config.num_things,
            num_stuff=config.num_stuff,
            overlap_threshold=config.overlap_threshold,
            min_stuff_area=config.min_stuff_area,
        )
        stuff_scores = _stuff_scores(logits[i], batch.sizes[i])
        for segment in segments:
            if not segment["isthing"]:
                segment["score"] = stuff_scores[segment["category_id"] - config.num_things]
        results.append(
            {
                "panoptic": panoptic,
                "segments_info": segments,
                "boxes": boxes,
                "scores": found.scores,
                "labels": found.labels,
                "masks": masks,
                "semantic": semantic,
                "semantic_logits": logits[i],
            }
        )
    return results


def semantic_target(classes: Tensor, *, num_things: int, num_stuff: int) -> Tensor:
    """Labels of the semantic branch from panoptic classes.

    Args:
        classes: any shape: 0..T-1 things, T..T+S-1 stuff, anything else is to be ignored.

    Returns:
        As `classes`, int64: 0..S-1 stuff, S any thing, 255 ignore.
    """
    stuff = torch.where(classes < num_things + num_stuff, classes.long() - num_things, IGNORE)
    out = torch.where(classes < num_things, num_stuff, stuff)
    return out.masked_fill(classes < 0, IGNORE)


def semantic_labels(view: View, size: tuple[int, int]) -> Tensor:
    """Args: view: logits of one image. Returns: (H, W) int64, the best class at `size`."""
    labels = torch.empty(size, dtype=torch.int64, device=view.logits.device)
    for first, last in strips(size, view.logits.shape[1]):
        labels[first:last] = view.rows(size, first, last)[0].argmax(0)
    return labels


def fuse(
    scores: Tensor,
    labels: Tensor,
    masks: Tensor,
    semantic: Tensor,
    *,
    num_things: int,
    num_stuff: int,
    overlap_threshold: float = 0.5,
    min_stuff_area: int = 4096,
) -> tuple[Tensor, list[dict]]:
    """One segment per pixel: instances by descending score, then stuff where none is.

    An instance takes the pixels that no better one has; it is left out when better ones cover more than
    `overlap_threshold` of it. Pixels that the semantic branch calls "any thing" without an instance are void.

    Args:
        scores, labels: (N,) of the instances.
        masks: (N, H, W) bool.
        semantic: (H, W) in 0..S.

    Returns:
        (H, W) int64 segment ids, and a dict per segment: `id`, `category_id`, `isthing`, `score` (stuff: 1).
    """
    panoptic = torch.where(semantic < num_stuff, semantic + num_things, VOID)
    taken = torch.zeros_like(semantic, dtype=torch.bool)
    segments: list[dict] = []
    area = masks.flatten(1).sum(1).tolist()
    for n in scores.argsort(descending=True, stable=True).tolist():
        if area[n] == 0:
            continue
        free = masks[n] & ~taken
        visible = int(free.sum())
        if visible == 0 or (area[n] - visible) / (area[n] + 1e-5) > overlap_threshold:
            continue
        taken |= free
        label = int(labels[n])
        segment_id = label + INSTANCE * (len(segments) + 1)
        panoptic[free] = segment_id
        segments.append({"id": segment_id, "category_id": label, "isthing": True, "score": float(scores[n])})
    areas = torch.bincount(semantic[~taken], minlength=num_stuff + 1)[:num_stuff]
    kept = areas >= min_stuff_area
    small = torch.cat((~kept, kept.new_zeros(1)))[semantic] & ~taken
    panoptic[small] = VOID
    for stuff in (kept & (areas > 0)).nonzero().flatten().tolist():
        category = num_things + stuff
        segments.append({"id": category, "category_id": category, "isthing": False, "score": 1.0})
    return panoptic, segments


def _void_where_nan(logits: Tensor) -> Tensor:
    """(B, S + 1, h, w) with cells of NaN turned to "any thing", which is void where no instance is."""
    broken = logits.isnan().any(dim=1)
    if not broken.any():
        return logits
    logits = logits.masked_fill(broken[:, None], 0.0)
    logits[:, -1].masked_fill_(broken, 100.0)
    return logits


def _stuff_scores(logits: Tensor, size: tuple[int, int]) -> list[float]:
    """Mean probability of every class over the cells where it is the best. Args: logits: (S + 1, h, w) at stride 4."""
    inside = at_least_float32(logits[:, : -(-size[0] // 4), : -(-size[1] // 4)]).softmax(0).flatten(1)
    best, winner = inside.max(0)
    total = best.new_zeros(len(logits)).index_add_(0, winner, best)
    cells = torch.bincount(winner, minlength=len(logits))
    return torch.where(cells > 0, total / cells.clamp(min=1), inside.amax(1)).tolist()
