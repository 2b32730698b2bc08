"""Mask R-CNN with FPN (arXiv:1703.06870) as LIT and LITv2 were trained with it: mmdetection 2.11 and 3.2 behaviour."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from litevit.ops.boxes import paste_masks
from litevit.tasks.detection import (
    ImageBatch,
    check_positive,
    dtype_of,
    prepare_images,
    prepare_targets,
    to_original,
)
from litevit.tasks.two_stage import TwoStage


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


class MaskRCNN(TwoStage):
    """Any backbone of four maps, the pyramid P2..P6, region proposals, box and mask heads (arXiv:1703.06870).

    Training: `model(images, targets)` -> losses. Evaluation: `model(images)` -> `boxes`, `scores`, `labels`, `masks`
    per image.

    Args:
        backbone: see `litevit.create_backbone`.
        config: see `MaskRCNNConfig`.
    """

    def __init__(self, backbone: nn.Module, config: MaskRCNNConfig):
        check_positive("MaskRCNN", num_classes=config.num_classes, min_size=config.min_size, max_size=config.max_size)
        super().__init__(
            backbone,
            config,
            num_classes=config.num_classes,
            user="MaskRCNN",
            remove_empty=config.remove_empty_proposals,
        )

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
            dtype=dtype_of(self),
        )
        if not self.training:
            return self.detect(self.fpn(self.backbone(batch.images)), batch)
        objects = prepare_targets(targets, batch, num_classes=config.num_classes, masks=True)
        return self.region_losses(self.fpn(self.backbone(batch.images)), objects, batch)

    def detect(self, maps: Sequence[Tensor], batch: ImageBatch) -> list[dict[str, Tensor]]:
        """
        Args:
            maps: (B, C, H_l, W_l) of the pyramid.
            batch: what the images were made into.

        Returns:
            Detections in pixels of the images given, see `forward`.
        """
        detections, masks = self.find_regions(maps, batch)
        results = []
        for i, (found, probabilities) in enumerate(zip(detections, masks)):
            boxes = to_original(found.boxes, batch, i)
            with torch.no_grad():
                pasted = paste_masks(
                    probabilities, boxes, batch.original_sizes[i], threshold=self.config.mask_threshold
                )
            results.append({"boxes": boxes, "scores": found.scores, "labels": found.labels, "masks": pasted})
        return results
