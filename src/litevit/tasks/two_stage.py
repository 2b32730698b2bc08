"""What Mask R-CNN and Panoptic FPN share: pyramid P2..P6, region proposals, box and mask heads, and their losses."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from litevit.layers.fpn import FPN
from litevit.tasks.detection import ImageBatch, Objects, backbone_features, check_batch, per_level
from litevit.tasks.roi_heads import Detections, Losses, RoIHeads
from litevit.tasks.rpn import RPN


class TwoStage(nn.Module):
    """Backbone, pyramid, proposals and regions. A base class, so that the keys of the published files stay flat.

    Args:
        backbone: module with `features`.
        config: with the fields that `MaskRCNNConfig` and `PanopticFPNConfig` share.
        num_classes: of the regions.
        user: name for errors.
        remove_empty: proposals without area go before the suppression.
        class_agnostic_nms: detections of any classes suppress each other.
    """

    def __init__(
        self,
        backbone: nn.Module,
        config: Any,
        *,
        num_classes: int,
        user: str,
        remove_empty: bool = True,
        class_agnostic_nms: bool = False,
    ):
        super().__init__()
        features = backbone_features(backbone, user=user, rgb=True)
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
            remove_empty=remove_empty,
            sampled=config.rpn_samples,
        )
        self.roi_heads = RoIHeads(
            config.channels,
            num_classes=num_classes,
            hidden=config.box_hidden,
            strides=strides,
            score_threshold=config.score_threshold,
            nms_threshold=config.nms_threshold,
            max_detections=config.max_detections,
            class_agnostic_nms=class_agnostic_nms,
            sampled=config.roi_samples,
        )

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block of the backbone in the backward pass instead of storing its activations.

        Args:
            enable: False stores them again.
        """
        self.backbone.set_grad_checkpointing(enable)  # type: ignore[operator]

    def region_losses(self, maps: Sequence[Tensor], objects: Sequence[Objects], batch: ImageBatch) -> dict[str, Tensor]:
        """Args: maps: (B, C, H_l, W_l) of the pyramid. Returns: losses of proposals, classes, boxes and masks."""
        logits, deltas = per_level(self.rpn, maps)
        losses = self.rpn.loss(logits, deltas, [o.boxes for o in objects], batch.padded_sizes)
        proposals = [boxes for boxes, _ in self.rpn.proposals(logits, deltas, batch.sizes)]
        regions: Losses = self.roi_heads(maps, proposals, batch.sizes, objects)
        assert regions.mask is not None
        return {**losses, "loss_cls": regions.cls, "loss_box": regions.box, "loss_mask": regions.mask}

    def find_regions(self, maps: Sequence[Tensor], batch: ImageBatch) -> tuple[list[Detections], list[Tensor]]:
        """Detections of each image, in the batch's pixels, and their masks (M_i, 28, 28), probabilities."""
        logits, deltas = per_level(self.rpn, maps)
        proposals = [boxes for boxes, _ in self.rpn.proposals(logits, deltas, batch.sizes)]
        return self.roi_heads(maps, proposals, batch.sizes)

    def forward_raw(self, batch: Tensor) -> dict[str, Tensor]:
        """Every map before post-processing: C2.. of the backbone, F0.. of the pyramid, rpn_cls0.., rpn_reg0...

        Args:
            batch: (B, 3, H, W), normalised and padded.
        """
        check_batch(batch)
        features = self.backbone(batch)
        pyramid = self.fpn(features)
        logits, deltas = per_level(self.rpn, pyramid)
        return {
            **{f"C{i}": x for i, x in enumerate(features, start=2)},
            **{f"F{i}": x for i, x in enumerate(pyramid)},
            **{f"rpn_cls{i}": x for i, x in enumerate(logits)},
            **{f"rpn_reg{i}": x for i, x in enumerate(deltas)},
        }
