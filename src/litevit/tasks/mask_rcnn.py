"""Mask R-CNN with FPN (arXiv:1703.06870) as LIT and LITv2 were trained with it: mmdetection 2.11 and 3.2 behaviour."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from litevit.layers.fpn import FPN
from litevit.ops.boxes import paste_masks
from litevit.tasks.detection import (
    ImageBatch,
    backbone_features,
    check_batch,
    check_positive,
    prepare_images,
    prepare_targets,
    to_original,
)
from litevit.tasks.roi_heads import RoIHeads
from litevit.tasks.rpn import RPN


@dataclass(frozen=True, kw_only=True)
class MaskRCNNConfig:
    num_classes: int = 80
    channels: int = 256  # of the pyramid and of all heads
    box_hidden: int = 1024  # width of the box head
    anchor_scales: tuple[float, ...] = (8.0,)  # in strides
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # height / width
    resize: bool = True  # False: images keep their size
    min_size: int = 800
    max_size: int = 1333
    pre_nms_train: int = 2000  # per level
    pre_nms_test: int = 1000
    rpn_nms_threshold: float = 0.7
    max_proposals: int = 1000  # per image, in training too
    remove_empty_proposals: bool = True  # proposals without area, before the suppression; LIT keeps them
    rpn_samples: int = 256  # anchors per image in the loss
    roi_samples: int = 512  # regions per image in the loss
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    max_detections: int = 100
    mask_threshold: float = 0.5


class MaskRCNN(nn.Module):
    """Any backbone of four maps, the pyramid P2..P6, region proposals, box and mask heads.

    Training: `model(images, targets)` -> losses. Evaluation: `model(images)` -> `boxes`, `scores`, `labels`, `masks`
    per image.
    """

    def __init__(self, backbone: nn.Module, config: MaskRCNNConfig):
        super().__init__()
        check_positive("MaskRCNN", num_classes=config.num_classes, min_size=config.min_size, max_size=config.max_size)
        features = backbone_features(backbone, user="MaskRCNN")
        strides = tuple(f.stride for f in features)
        self.config = config
        self.backbone = backbone
        self.fpn = FPN([f.channels for f in features], config.channels, extra="pool")
        self.rpn = RPN(
            config.channels,
            strides=(*strides, strides[-1] * 2),
            scales=config.anchor_scales,
            ratios=config.anchor_ratios,
            pre_nms_train=config.pre_nms_train,
            pre_nms_test=config.pre_nms_test,
            nms_threshold=config.rpn_nms_threshold,
            max_proposals=config.max_proposals,
            remove_empty=config.remove_empty_proposals,
            sampled=config.rpn_samples,
        )
        self.roi_heads = RoIHeads(
            config.channels,
            num_classes=config.num_classes,
            hidden=config.box_hidden,
            strides=strides,
            score_threshold=config.score_threshold,
            nms_threshold=config.nms_threshold,
            max_detections=config.max_detections,
            sampled=config.roi_samples,
        )

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block of the backbone in the backward pass instead of storing its activations."""
        self.backbone.set_grad_checkpointing(enable)  # type: ignore[operator]

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """
        Args:
            images: (3, H, W) each, RGB in [0, 1], of any sizes.
            targets: for training, per image `boxes` (G, 4) xyxy in pixels, `labels` (G,) and `masks` (G, H, W) bool;
                G may be 0.

        Returns:
            Training: `loss_rpn_cls`, `loss_rpn_box`, `loss_cls`, `loss_box`, `loss_mask`. Evaluation: per image
            `boxes` (M, 4), `scores` (M,), `labels` (M,) and `masks` (M, H, W) bool.
        """
        config = self.config
        batch = prepare_images(
            images,
            resize=config.resize,
            min_size=config.min_size,
            max_size=config.max_size,
            dtype=self.rpn.conv.weight.dtype,
        )
        if not self.training:
            return self.detect(self.fpn(self.backbone(batch.images)), batch)
        objects = prepare_targets(targets, batch, num_classes=config.num_classes, masks=True)
        maps = self.fpn(self.backbone(batch.images))
        logits, deltas = self.rpn(maps)
        losses = self.rpn.loss(logits, deltas, [o.boxes for o in objects], batch.padded_sizes)
        proposals = [boxes for boxes, _ in self.rpn.proposals(logits, deltas, batch.sizes)]
        return {**losses, **self.roi_heads.loss(maps, proposals, objects, batch.sizes)}

    def forward_raw(self, batch: Tensor) -> dict[str, Tensor]:
        """Every map before post-processing: C2.. of the backbone, F0.. of the pyramid, rpn_cls0.., rpn_reg0...

        Args:
            batch: (B, 3, H, W), normalised and padded.
        """
        check_batch(batch)
        backbone = self.backbone(batch)
        pyramid = self.fpn(backbone)
        logits, deltas = self.rpn(pyramid)
        return {
            **{f"C{i}": x for i, x in enumerate(backbone, start=2)},
            **{f"F{i}": x for i, x in enumerate(pyramid)},
            **{f"rpn_cls{i}": x for i, x in enumerate(logits)},
            **{f"rpn_reg{i}": x for i, x in enumerate(deltas)},
        }

    def detect(self, maps: Sequence[Tensor], batch: ImageBatch) -> list[dict[str, Tensor]]:
        """Args: maps: (B, C, H_l, W_l) of the pyramid. Returns: detections in pixels of the images given."""
        logits, deltas = self.rpn(maps)
        proposals = [boxes for boxes, _ in self.rpn.proposals(logits, deltas, batch.sizes)]
        detections = self.roi_heads.detect(maps, proposals, batch.sizes)
        masks = self.roi_heads.predict_masks(maps, detections)
        results = []
        for i, (found, probabilities) in enumerate(zip(detections, masks)):
            boxes = to_original(found.boxes, batch, i)
            with torch.no_grad():
                pasted = paste_masks(
                    probabilities, boxes, batch.original_sizes[i], threshold=self.config.mask_threshold
                )
            results.append({"boxes": boxes, "scores": found.scores, "labels": found.labels, "masks": pasted})
        return results
