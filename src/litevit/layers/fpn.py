"""Feature pyramid network (arXiv:1612.03144), as RetinaNet, Mask R-CNN, Semantic FPN and Panoptic FPN use it here."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool

ExtraLevels = Literal["none", "pool", "p6p7"]


class P6P7(ExtraFPNBlock):
    """Two coarser levels from the last backbone map.

    Differs from torchvision's `LastLevelP6P7`: no ReLU before P7, and P6 reads the backbone's map even when that has
    as many channels as the pyramid.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.p6 = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.p7 = nn.Conv2d(out_channels, out_channels, 3, stride=2, padding=1)

    def forward(self, results: list[Tensor], x: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        p6 = self.p6(x[-1])
        return [*results, p6, self.p7(p6)], [*names, "p6", "p7"]


class FPN(nn.Module):
    """Top-down pyramid: 1x1 laterals, nearest upsampling to the exact size, 3x3 outputs, no norm or activation."""

    def __init__(self, in_channels: Sequence[int], out_channels: int = 256, *, extra: ExtraLevels = "none"):
        """
        Args:
            in_channels: channels of the backbone maps, fine to coarse.
            extra: "pool" adds one level, every second cell of the last; "p6p7" adds two by strided convolutions.
        """
        super().__init__()
        blocks: ExtraFPNBlock | None
        if extra == "none":
            blocks = None
        elif extra == "pool":
            blocks = LastLevelMaxPool()
        elif extra == "p6p7":
            blocks = P6P7(in_channels[-1], out_channels)
        else:
            raise ValueError(f'FPN: extra must be "none", "pool" or "p6p7", got {extra!r}')
        self.pyramid = FeaturePyramidNetwork(list(in_channels), out_channels, extra_blocks=blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Args: maps: (B, C_i, H_i, W_i), fine to coarse. Returns: as many of `out_channels`, and the extra ones."""
        return tuple(self.pyramid(OrderedDict((str(i), x) for i, x in enumerate(maps))).values())
