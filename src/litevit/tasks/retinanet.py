"""RetinaNet (arXiv:1708.02002) as LIT and LITv2 were trained with it: mmdetection 2.11 and 3.2 behaviour.

B images, A anchors per cell, K classes, N anchors of an image over all levels.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from litevit.layers.fpn import FPN
from litevit.ops.anchors import base_anchors, cells_inside, grid_anchors
from litevit.ops.assign import assign_by_iou
from litevit.ops.boxes import decode_boxes, encode_boxes, select_detections
from litevit.ops.precision import at_least_float32, wide
from litevit.tasks.detection import (
    ImageBatch,
    Objects,
    Size,
    backbone_features,
    check_batch,
    check_positive,
    dtype_of,
    per_level,
    prepare_images,
    prepare_targets,
    to_original,
)
from litevit.tasks.rpn import rows_per_anchor


@dataclass(frozen=True, kw_only=True)
class RetinaNetConfig:
    num_classes: int = 80
    channels: int = 256  # of the pyramid and of the head
    num_convs: int = 4  # of each tower of the head
    anchor_scales: tuple[float, ...] = (4.0, 4.0 * 2 ** (1 / 3), 4.0 * 2 ** (2 / 3))  # in strides
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # height / width
    positive_iou: float = 0.5
    negative_iou: float = 0.4
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    resize: bool = True  # False: images keep their size
    min_size: int = 800
    max_size: int = 1333
    # What the best `pre_nms` of a level are: (anchor, class) pairs (LITv2; mmdetection 3, torchvision) or anchors by
    # their best class, all of whose classes may then be detected (LIT; mmdetection 2.11).
    selection: Literal["pairs", "anchors"] = "pairs"
    pre_nms: int = 1000
    remove_empty_boxes: bool = True  # boxes without area, before the suppression; LIT keeps them
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    max_detections: int = 100


class RetinaNetHead(nn.Module):
    """Two towers without norm, shared by all levels: class logits and box deltas of A anchors."""

    def __init__(self, channels: int, *, num_anchors: int, num_classes: int, num_convs: int = 4):
        super().__init__()
        self.cls_convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(num_convs))
        self.box_convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(num_convs))
        self.cls_logits = nn.Conv2d(channels, num_anchors * num_classes, 3, padding=1)
        self.deltas = nn.Conv2d(channels, num_anchors * 4, 3, padding=1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
        assert self.cls_logits.bias is not None
        nn.init.constant_(self.cls_logits.bias, -math.log(99))  # every class starts at probability 0.01

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Args: x: (B, C, H, W), one level. Returns: logits (B, A * K, H, W) and deltas (B, 4A, H, W)."""
        cls, box = x, x
        for cls_conv, box_conv in zip(self.cls_convs, self.box_convs):
            cls, box = F.relu(cls_conv(cls)), F.relu(box_conv(box))
        return self.cls_logits(cls), self.deltas(box)


class RetinaNet(nn.Module):
    """Any backbone of four maps, the pyramid P3..P7 and one head (RetinaNet, arXiv:1708.02002).

    Training: `model(images, targets)` -> losses. Evaluation: `model(images)` -> `boxes`, `scores`, `labels` per image.

    Args:
        backbone: see `litevit.create_backbone`; its finest map is not used.
        config: see `RetinaNetConfig`.
    """

    def __init__(self, backbone: nn.Module, config: RetinaNetConfig):
        super().__init__()
        if config.selection not in ("pairs", "anchors"):
            raise ValueError(f'RetinaNet: selection must be "pairs" or "anchors", got {config.selection!r}')
        check_positive("RetinaNet", num_classes=config.num_classes, min_size=config.min_size, max_size=config.max_size)
        features = backbone_features(backbone, user="RetinaNet", rgb=True)[1:]  # the finest map is not used
        self.config = config
        coarsest = features[-1].stride
        self.strides = (*(f.stride for f in features), coarsest * 2, coarsest * 4)
        self.num_anchors = len(config.anchor_scales) * len(config.anchor_ratios)
        self.backbone = backbone
        self.fpn = FPN([f.channels for f in features], config.channels, extra="p6p7")
        self.head = RetinaNetHead(
            config.channels,
            num_anchors=self.num_anchors,
            num_classes=config.num_classes,
            num_convs=config.num_convs,
        )

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block of the backbone in the backward pass instead of storing its activations.

        Args:
            enable: False stores them again.
        """
        self.backbone.set_grad_checkpointing(enable)  # type: ignore[operator]

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """
        Args:
            images: (3, H, W) each, RGB in [0, 1], of any sizes.
            targets: for training, per image `boxes` (G, 4) xyxy in pixels and `labels` (G,); G may be 0.

        Returns:
            Training: `loss_cls`, `loss_box`. Evaluation: per image `boxes` (M, 4), `scores` (M,), `labels` (M,).
        """
        config = self.config
        batch = prepare_images(
            images,
            resize=config.resize,
            min_size=config.min_size,
            max_size=config.max_size,
            dtype=dtype_of(self),
        )
        if self.training:
            objects = prepare_targets(targets, batch, num_classes=config.num_classes)
            return self.loss(*self._head_maps(batch.images), objects, batch.padded_sizes)
        return self.postprocess(*self._head_maps(batch.images), batch)

    def _head_maps(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        return per_level(self.head, self.fpn(self.backbone(images)[1:]))

    def forward_raw(self, batch: Tensor) -> dict[str, Tensor]:
        """Every map before post-processing: C2.. of the backbone, F0.. of the pyramid, cls0.., reg0.. of the head.

        Args:
            batch: (B, 3, H, W), normalised and padded.

        Returns:
            Name -> (B, C, H_i, W_i): A * K channels of `cls`, 4A of `reg`.
        """
        check_batch(batch)
        backbone = self.backbone(batch)
        pyramid = self.fpn(backbone[1:])
        logits, deltas = per_level(self.head, pyramid)
        return {
            **{f"C{i}": x for i, x in enumerate(backbone, start=2)},
            **{f"F{i}": x for i, x in enumerate(pyramid)},
            **{f"cls{i}": x for i, x in enumerate(logits)},
            **{f"reg{i}": x for i, x in enumerate(deltas)},
        }

    def anchors(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Anchors of every level.

        Args:
            maps: (..., H_l, W_l) each, fine to coarse; they give sizes and device.

        Returns:
            (H_l * W_l * A, 4) per level: xyxy in pixels of the padded image.
        """
        config = self.config
        anchors = []
        for x, stride in zip(maps, self.strides, strict=True):
            base = base_anchors(stride, scales=config.anchor_scales, ratios=config.anchor_ratios)
            anchors.append(grid_anchors(base.to(x.device, wide(x.dtype)), (x.shape[-2], x.shape[-1]), stride))
        return anchors

    @torch.no_grad()
    def assign(self, maps: Sequence[Tensor], boxes: Tensor, padded_size: Size) -> tuple[Tensor, Tensor]:
        """What every anchor of one image is.

        Args:
            maps: as of `anchors`.
            boxes: (G, 4) of the truth, xyxy in pixels; G may be 0.
            padded_size: (H, W) of the image with its own padding; anchors beyond take no part.

        Returns:
            Of all N anchors: codes (N,) as in `assign_by_iou`, and whether it takes part (N,) bool.
        """
        inside = torch.cat(
            [
                cells_inside((x.shape[-2], x.shape[-1]), stride, padded_size, self.num_anchors)
                for x, stride in zip(maps, self.strides)
            ]
        ).to(boxes.device)
        codes = torch.full((len(inside),), -1, device=boxes.device)
        codes[inside], _ = assign_by_iou(
            torch.cat(self.anchors(maps))[inside],
            boxes,
            positive=self.config.positive_iou,
            negative=self.config.negative_iou,
            min_positive=0.0,
        )
        return codes, inside

    def loss(
        self,
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        objects: Sequence[Objects],
        padded_sizes: Sequence[Size],
    ) -> dict[str, Tensor]:
        """Focal loss of all anchors and L1 of the positives, over the number of positives of the batch.

        Args:
            logits, deltas: of the head.
            objects: of each image.
            padded_sizes: of each image with its own padding; anchors beyond take no part.

        Returns:
            `loss_cls` and `loss_box`, float32 without dimensions.
        """
        config = self.config
        anchors = torch.cat(self.anchors(logits))
        cls_loss = box_loss = anchors.new_zeros(())
        count = 0
        for i, (target, padded) in enumerate(zip(objects, padded_sizes, strict=True)):
            codes, _ = self.assign(logits, target.boxes, padded)
            used, positive = (codes >= 0).nonzero().flatten(), (codes > 0).nonzero().flatten()
            object_of = codes[positive] - 1
            truth = anchors.new_zeros(len(codes), config.num_classes)
            truth[positive, target.labels[object_of]] = 1
            logit = torch.cat([rows_per_anchor(x[i], config.num_classes) for x in logits])
            cls_loss = cls_loss + sigmoid_focal_loss(
                at_least_float32(logit[used]), truth[used], config.focal_alpha, config.focal_gamma, reduction="sum"
            )
            delta = at_least_float32(torch.cat([rows_per_anchor(x[i], 4) for x in deltas])[positive])
            goal = encode_boxes(anchors[positive], target.boxes[object_of])
            box_loss = box_loss + F.l1_loss(delta, goal, reduction="sum")
            count += max(len(positive), 1)
        return {"loss_cls": cls_loss / count, "loss_box": box_loss / count}

    def postprocess(
        self, logits: Sequence[Tensor], deltas: Sequence[Tensor], batch: ImageBatch
    ) -> list[dict[str, Tensor]]:
        """Detections of every image, in pixels of the images given.

        Args:
            logits: (B, A * K, H_l, W_l) per level.
            deltas: (B, 4A, H_l, W_l) per level.
            batch: what the images were made into.

        Returns:
            `boxes` (M, 4) xyxy, `scores` (M,) in [0, 1] and `labels` (M,) of each image, best first.
        """
        config = self.config
        anchors = self.anchors(logits)
        results = []
        for i, size in enumerate(batch.sizes):
            candidates = [
                self._candidates(rows_per_anchor(x[i], config.num_classes), rows_per_anchor(d[i], 4), anchor, size)
                for x, d, anchor in zip(logits, deltas, anchors)
            ]
            boxes, scores, labels = (torch.cat(parts) for parts in zip(*candidates))
            boxes, scores, labels = select_detections(
                to_original(boxes, batch, i),
                scores,
                labels,
                iou_threshold=config.nms_threshold,
                max_detections=config.max_detections,
                remove_empty=config.remove_empty_boxes,
            )
            results.append({"boxes": boxes, "scores": scores, "labels": labels})
        return results

    def _candidates(self, logits: Tensor, deltas: Tensor, anchors: Tensor, size: Size) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, scores and labels of one level of one image that enter the suppression.

        Args: logits: (n, K). deltas: (n, 4). anchors: (n, 4). size: height and width to clip to.
        """
        config = self.config
        logits = at_least_float32(logits)
        if config.selection == "anchors" and len(logits) > config.pre_nms:
            best = logits.amax(dim=1).nan_to_num(-math.inf).topk(config.pre_nms).indices
            logits, deltas, anchors = logits[best], deltas[best], anchors[best]
        # Thresholded as logits, with a margin for rounding: few pairs need a sigmoid. NaN is above nothing.
        floor = torch.logit(torch.tensor(config.score_threshold)).item() - 1e-3
        rows, labels = (logits > floor).nonzero(as_tuple=True)
        scores = logits[rows, labels].sigmoid()
        above = scores > config.score_threshold
        rows, labels, scores = rows[above], labels[above], scores[above]
        if config.selection == "pairs" and len(scores) > config.pre_nms:
            scores, best = scores.topk(config.pre_nms)
            rows, labels = rows[best], labels[best]
        return decode_boxes(at_least_float32(deltas[rows]), anchors[rows], clip_to=size), scores, labels
