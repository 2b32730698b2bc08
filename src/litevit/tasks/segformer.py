"""SegFormer's head (arXiv:2105.15203, sec. 3.2): every map projected, brought to stride 4, fused by one 1x1 layer.

Published with LVT on ADE20K (mmseg 0.11). Official checkpoints hold an unused `conv_seg`; here it does not exist.
B images, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from litevit.tasks.detection import backbone_features
from litevit.tasks.segmentation import (
    IGNORE,
    SegmentationTest,
    check_masks,
    resize_bilinear,
    segment,
    segmentation_loss,
)

ADE20K_TEST = SegmentationTest(multiple=32)


@dataclass(frozen=True, kw_only=True)
class SegFormerConfig:
    """The published LVT model."""

    num_classes: int = 150
    head_channels: int = 256
    dropout: float = 0.1  # of whole channels, before the classifier
    ignore_index: int = IGNORE
    test: SegmentationTest = ADE20K_TEST


class SegFormerHead(nn.Module):
    """All-MLP decoder."""

    def __init__(self, in_channels: Sequence[int], channels: int, num_classes: int, *, dropout: float = 0.1):
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(c, channels) for c in in_channels)  # official: linear_c1..4
        self.fuse = Conv2dNormActivation(len(in_channels) * channels, channels, 1)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, 1)  # official: linear_pred
        conv = self.fuse[0]
        assert isinstance(conv, nn.Conv2d)
        with torch.no_grad():
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Args: maps: (B, C_i, H_i, W_i), fine to coarse. Returns: logits (B, K, H_0, W_0)."""
        size = (maps[0].shape[-2], maps[0].shape[-1])
        projected = [
            resize_bilinear(project(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), size)
            for project, x in zip(self.projections, maps, strict=True)
        ]
        fused = self.fuse(torch.cat(projected[::-1], dim=1))  # coarse to fine, as the weights were trained
        return self.classifier(self.dropout(fused))


class SegFormer(nn.Module):
    """Semantic segmentation on any backbone with four maps.

    Args:
        backbone: see `litevit.create_backbone`; published with LVT and `out_norms="segmentation"`.
    """

    def __init__(self, backbone: nn.Module, config: SegFormerConfig):
        super().__init__()
        self.config = config
        self.backbone = backbone
        channels = [f.channels for f in backbone_features(backbone, user="SegFormer")]
        self.head = SegFormerHead(channels, config.head_channels, config.num_classes, dropout=config.dropout)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block of the backbone in the backward pass instead of storing its activations."""
        self.backbone.set_grad_checkpointing(enable)  # type: ignore[operator]

    def forward_raw(self, batch: Tensor) -> dict[str, Tensor]:
        """Every map before post-processing.

        Args:
            batch: (B, 3, H, W), normalised.

        Returns:
            `C2`..`C5` (backbone), `logits` (B, K, H/4, W/4).
        """
        features = self.backbone(batch)
        return {f"C{i + 2}": x for i, x in enumerate(features)} | {"logits": self.head(features)}

    def forward_head(self, images: Tensor) -> Tensor:
        """Args: images: (B, 3, H, W), normalised. Returns: logits (B, K, H/4, W/4)."""
        return self.head(self.backbone(images))

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
        """Class of every pixel. Args: image: (3, H, W) RGB in [0, 1], any size. Returns: (H, W) int64."""
        return segment(self.forward_head, image, test or self.config.test)
