"""SegFormer's head (arXiv:2105.15203, sec. 3.2): every map projected, brought to stride 4, fused by one 1x1 layer.

Published with LVT on ADE20K (mmseg 0.11). Official checkpoints hold an unused `conv_seg`; here it does not exist.
B images, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from litevit.ops.resize import resize_bilinear
from litevit.tasks.detection import backbone_features
from litevit.tasks.segmentation import IGNORE, SegmentationTest, Segmenter

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
        self.fuse = Conv2dNormActivation(
            len(in_channels) * channels, channels, 1, inplace=False
        )  # hooks may hold its input
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


class SegFormer(Segmenter):
    """Semantic segmentation on any backbone with four maps (SegFormer's head, arXiv:2105.15203).

    Args:
        backbone: see `litevit.create_backbone`; published with LVT and `out_norms="segmentation"`.
        config: see `SegFormerConfig`.
    """

    def __init__(self, backbone: nn.Module, config: SegFormerConfig):
        channels = [f.channels for f in backbone_features(backbone, user="SegFormer")]
        head = SegFormerHead(channels, config.head_channels, config.num_classes, dropout=config.dropout)
        super().__init__(backbone, config, head=head)
