"""Semantic FPN (arXiv:1901.02446): a pyramid, and branches that climb from every level to stride 4 and are summed.

Published with LIT and LITv2 on ADE20K (mmseg 0.13). B images, K classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from litevit.layers.fpn import FPN
from litevit.ops.resize import resize_bilinear
from litevit.tasks.detection import backbone_features
from litevit.tasks.segmentation import IGNORE, SegmentationTest, Segmenter

ADE20K_TEST = SegmentationTest()


@dataclass(frozen=True, kw_only=True)
class SemanticFPNConfig:
    """The published ADE20K models."""

    num_classes: int = 150
    fpn_channels: int = 256
    head_channels: int = 128
    dropout: float = 0.1  # of whole channels, before the classifier
    ignore_index: int = IGNORE
    test: SegmentationTest = ADE20K_TEST


class SemanticFPNHead(nn.Module):
    """Level i goes through max(1, i) blocks of convolution, norm and ReLU, each followed by x2 upsampling if i > 0."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        num_classes: int,
        *,
        dropout: float = 0.0,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        num_levels: int = 4,
    ):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.ModuleList(
                Conv2dNormActivation(in_channels if j == 0 else channels, channels, 3, norm_layer=norm, inplace=False)
                for j in range(max(1, level))
            )
            for level in range(num_levels)
        )
        self.upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, 1)  # official: conv_seg, conv_logits
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Kaiming normal (fan out) convolutions, normal(0.01) classifier."""
        for module in self.branches.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.classifier.weight, std=0.01)
        assert self.classifier.bias is not None
        nn.init.zeros_(self.classifier.bias)

    def forward_features(self, maps: Sequence[Tensor]) -> Tensor:
        """Args: maps: (B, C, H_i, W_i), strides 4, 8, 16, 32. Returns: (B, channels, H_0, W_0), at stride 4."""
        size = (maps[0].shape[-2], maps[0].shape[-1])
        total: Tensor | None = None
        for level, (x, blocks) in enumerate(zip(maps, self.branches, strict=True)):
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                x = block(x)
                if level > 0:
                    x = self.upsample(x)
            x = resize_bilinear(x, size)  # doubling a rounded-down size falls short
            total = x if total is None else total + x
        assert total is not None
        return total

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Args: as `forward_features`. Returns: logits (B, K, H_0, W_0)."""
        return self.classifier(self.dropout(self.forward_features(maps)))


class SemanticFPN(Segmenter):
    """Semantic segmentation on any backbone with four maps (Semantic FPN, arXiv:1901.02446).

    Args:
        backbone: see `litevit.create_backbone`; published with `out_norms="segmentation"`.
        config: see `SemanticFPNConfig`.
    """

    def __init__(self, backbone: nn.Module, config: SemanticFPNConfig):
        features = backbone_features(backbone, user="SemanticFPN")
        fpn = FPN([f.channels for f in features], config.fpn_channels)
        head = SemanticFPNHead(config.fpn_channels, config.head_channels, config.num_classes, dropout=config.dropout)
        super().__init__(backbone, config, head=head, fpn=fpn)

    def pyramid(self, features: Sequence[Tensor]) -> Sequence[Tensor]:
        """Args: features: the backbone's four maps. Returns: P2..P5, (B, C, H_i, W_i)."""
        return self.fpn(features)
