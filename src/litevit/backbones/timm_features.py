"""A timm model as a backbone of a detector or segmenter."""

from typing import Any

import timm
from torch import Tensor, nn

from litevit.layers.features import FeatureSpec


class TimmBackbone(nn.Module):
    """A timm model as a backbone: its maps at strides 4, 8, 16 and 32."""

    has_class_token = False

    def __init__(self, name: str):
        super().__init__()
        self.trunk: Any
        try:
            try:  # Swin's kin take other sizes only when asked to
                self.trunk = timm.create_model(name, features_only=True, pretrained=False, strict_img_size=False)
            except TypeError:
                self.trunk = timm.create_model(name, features_only=True, pretrained=False)
        except RuntimeError as error:
            raise ValueError(f"timm cannot make feature maps of {name!r}: {error}") from error
        for module in self.trunk.modules():
            if isinstance(module, timm.layers.PatchEmbed):
                module.dynamic_img_pad = True  # type: ignore[misc]  # sides that patches do not divide
        self.channels_last = str(getattr(self.trunk, "output_fmt", "NCHW")).endswith("NHWC")
        strides = list(self.trunk.feature_info.reduction())
        if not {4, 8, 16, 32} <= set(strides):
            raise ValueError(f"{name}: a backbone needs maps at strides 4, 8, 16 and 32, timm gives {strides}")
        self.picked = [strides.index(s) for s in (4, 8, 16, 32)]
        channels = self.trunk.feature_info.channels()
        self.features = tuple(FeatureSpec(channels[i], strides[i]) for i in self.picked)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Passed on to timm."""
        self.trunk.set_grad_checkpointing(enable)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Args: images: (B, 3, H, W), normalised. Returns: 4 x (B, C_i, H_i, W_i)."""
        maps = self.trunk(images)
        return tuple(maps[i].permute(0, 3, 1, 2) if self.channels_last else maps[i] for i in self.picked)
