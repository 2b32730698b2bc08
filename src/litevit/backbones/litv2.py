"""LITv2: convolutional FFN blocks early, HiLo attention late (NeurIPS 2022, arXiv:2205.13213).

Official: github.com/ziplab/LITv2 (Apache-2.0). Differs: any H x W (the official classifiers take one fixed square),
windows padded as the published detectors pad them. No position embedding of any kind.
Shapes: B batch, H x W grid, C channels. The stream is BHWC.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from litevit.backbones.family import Family
from litevit.layers.block import AttentionBlock, FeedForwardBlock
from litevit.layers.conv_ffn import ConvFFN
from litevit.layers.deformable_merging import DeformableTokenMerging
from litevit.layers.features import FeatureSpec
from litevit.layers.hilo import HiLo
from litevit.layers.out_norms import OutNorms, build_out_norms
from litevit.layers.patch_embed import PatchEmbed
from litevit.layers.stage import Stage, check_config
from litevit.ops.grid import check_images, pad_images


@dataclass(frozen=True, kw_only=True)
class LITv2Config:
    """LITv2-S by default. All tuples have one entry per stage."""

    embed_dim: int = 96  # C of stage 1; doubles at every stage
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)  # unused where there is no attention
    window_sizes: tuple[int, ...] = (0, 0, 2, 1)  # paper: s; official key: local_ws; 0 = no attention in the stage
    alpha: float = 0.9  # share of the heads given to Lo-Fi
    mlp_ratio: int = 4
    patch_size: int = 4
    in_chans: int = 3
    drop_path_rate: float = 0.0
    out_norms: OutNorms = "none"


class LITv2(nn.Module):
    """LITv2 backbone.

    Attributes:
        features: channels and stride of each map.
    """

    has_class_token = False

    def __init__(self, config: LITv2Config):
        super().__init__()
        c = config
        check_config(
            "LITv2",
            {"depths": c.depths, "num_heads": c.num_heads, "window_sizes": c.window_sizes},
            drop_path_rate=c.drop_path_rate,
        )
        self.config = config
        dims = [c.embed_dim * 2**i for i in range(4)]
        self.features = tuple(FeatureSpec(dim, c.patch_size * 2**i) for i, dim in enumerate(dims))
        rates = torch.linspace(0, c.drop_path_rate, sum(c.depths), device="cpu").tolist()
        self.embeds = nn.ModuleList(
            PatchEmbed(c.in_chans, dim, patch_size=c.patch_size) if i == 0 else DeformableTokenMerging(dims[i - 1], dim)
            for i, dim in enumerate(dims)
        )
        self.stages = nn.ModuleList(
            Stage([self._block(i, dim, rates.pop(0)) for _ in range(c.depths[i])]) for i, dim in enumerate(dims)
        )
        self.out_norms = build_out_norms(c.out_norms, dims)
        self.init_weights()

    def _block(self, i: int, dim: int, drop_path: float) -> nn.Module:
        c = self.config
        mlp = ConvFFN(dim, dim * c.mlp_ratio)
        if c.window_sizes[i] == 0:
            return FeedForwardBlock(dim, mlp, drop_path=drop_path)
        attn = HiLo(dim, c.num_heads[i], window_size=c.window_sizes[i], alpha=c.alpha, qkv_bias=True)
        return AttentionBlock(dim, attn, mlp, drop_path=drop_path)

    @torch.no_grad()
    def init_weights(self) -> None:
        """Official initialisation: Linear normal(0.02), biases 0; patch embedding keeps PyTorch's default."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():  # a convolution in the official code
            if isinstance(module, DeformableTokenMerging):
                module.reset_parameters()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of storing its activations."""
        for stage in self.stages:
            stage.grad_checkpointing = enable  # type: ignore[assignment]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Args: images: (B, in_chans, H, W), normalised, H and W >= 32. Returns: 4 x (B, C_i, H_i, W_i)."""
        p = self.config.patch_size
        check_images("LITv2", images, in_chans=self.config.in_chans, least=7 * p + 1)
        x = pad_images(images, p).permute(0, 2, 3, 1)
        maps = []
        for embed, stage, out_norm in zip(self.embeds, self.stages, self.out_norms):
            x = stage(embed(x))
            maps.append(out_norm(x).permute(0, 3, 1, 2))
        return tuple(maps)


LITV2_S = LITv2Config()
LITV2_M = replace(LITV2_S, depths=(2, 2, 18, 2))
LITV2_B = replace(LITV2_M, embed_dim=128, num_heads=(4, 8, 16, 32))

VARIANTS: dict[str, LITv2Config] = {
    "litv2_s": LITV2_S,
    "litv2_m": LITV2_M,
    "litv2_b": LITV2_B,
    "litv2_b_384": LITV2_B,  # trained at 384 x 384; no parameter depends on the image size
    # Figure 4 of the paper: alpha. Lo-Fi heads of stage 3: 0, 2, 4, 6, 8, 10, 12 of 12.
    "litv2_s_alpha_00": replace(LITV2_S, alpha=0.0),
    "litv2_s_alpha_02": replace(LITV2_S, alpha=0.2),
    "litv2_s_alpha_04": replace(LITV2_S, alpha=0.4),
    "litv2_s_alpha_05": replace(LITV2_S, alpha=0.5),
    "litv2_s_alpha_07": replace(LITV2_S, alpha=0.7),
    "litv2_s_alpha_09": replace(LITV2_S, alpha=0.9),
    "litv2_s_alpha_10": replace(LITV2_S, alpha=1.0),
}

FAMILY = Family(
    config=LITv2Config,
    model=LITv2,
    variants=VARIANTS,
    dense=lambda config, out_norms: replace(config, out_norms=out_norms),
)
