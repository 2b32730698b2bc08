"""Swin-Ti with deformable token merging: table 3 of the LIT paper (arXiv:2105.14217).

The Swin Transformer is timm's; only the merging between its stages is replaced.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from litevit.layers.deformable_merging import DeformableTokenMerging
from litevit.layers.features import FeatureSpec
from litevit.layers.out_norms import OutNorms, build_out_norms, check_stages


@dataclass(frozen=True, kw_only=True)
class SwinConfig:
    """Swin-Ti by default."""

    embed_dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    window_size: int = 7
    merging: Literal["deformable", "linear"] = "deformable"
    in_chans: int = 3
    drop_path_rate: float = 0.0
    out_norms: OutNorms = "none"


class Swin(nn.Module):
    """timm's Swin Transformer as a backbone, optionally with deformable token merging.

    Attributes:
        features: channels and stride of each map.
    """

    has_class_token = False

    def __init__(self, config: SwinConfig):
        super().__init__()
        c = config
        check_stages("Swin", {"depths": c.depths, "num_heads": c.num_heads})
        self.config = config
        self.trunk = SwinTransformer(
            in_chans=c.in_chans,
            num_classes=0,
            embed_dim=c.embed_dim,
            depths=c.depths,
            num_heads=c.num_heads,
            window_size=c.window_size,
            drop_path_rate=c.drop_path_rate,
            strict_img_size=False,
        )
        self.trunk.norm = nn.Identity()  # the classifier has its own
        dims = [c.embed_dim * 2**i for i in range(4)]
        if c.merging == "deformable":
            for i in range(1, 4):
                self.trunk.layers[i].downsample = DeformableTokenMerging(dims[i - 1], dims[i])
        self.features = tuple(FeatureSpec(dim, 4 * 2**i) for i, dim in enumerate(dims))
        self.out_norms = build_out_norms(c.out_norms, dims)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of storing its activations."""
        self.trunk.set_grad_checkpointing(enable)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Args: images: (B, in_chans, H, W), normalised, H and W >= 32. Returns: 4 x (B, C_i, H_i, W_i)."""
        H, W = images.shape[-2:]
        if torch.compiler.is_compiling() or H % 4 or W % 4:
            images = F.pad(images, (0, (W + 3) // 4 * 4 - W, 0, (H + 3) // 4 * 4 - H))
        x = self.trunk.patch_embed(images)
        maps = []
        for layer, out_norm in zip(self.trunk.layers, self.out_norms):
            x = layer(x)
            maps.append(out_norm(x).permute(0, 3, 1, 2))
        return tuple(maps)


SWIN_TI_DTM = SwinConfig()

VARIANTS: dict[str, SwinConfig] = {
    "swin_ti_dtm": SWIN_TI_DTM,
    "swin_ti": replace(SWIN_TI_DTM, merging="linear"),
}
