"""LIT: MLP blocks early, attention late, deformable token merging between (AAAI 2022, arXiv:2105.14217).

Official: github.com/ziplab/LIT (Apache-2.0). Differs: any H x W (the official classifiers take one fixed square);
position tables are resized by comparing the grid of the stage itself.
The same skeleton with attention in every stage and uniform merging is PVT; see `pvt.py`.
Shapes: B batch, H x W grid, C channels. The stream is BHWC; with a class token, stage 4 is (B, 1 + H * W, C).
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from litevit.backbones.family import Family
from litevit.layers.attention import Attention, RelativeAttention
from litevit.layers.block import AttentionBlock, FeedForwardBlock
from litevit.layers.deformable_merging import DeformableTokenMerging
from litevit.layers.features import FeatureSpec
from litevit.layers.mlp import MLP
from litevit.layers.out_norms import OutNorms, build_out_norms
from litevit.layers.patch_embed import LinearMerging, PatchEmbed
from litevit.layers.position import AbsolutePosition
from litevit.layers.stage import Stage, check_config
from litevit.ops.grid import check_images, pad_images

# Nominal image sizes the relative tables of each flavour are made for (grids: size // 16 and size // 32).
TABLE_SIZE: dict[str, int] = {"none": 224, "detection": 800, "segmentation": 512}


@dataclass(frozen=True, kw_only=True)
class LITConfig:
    """LIT-S by default; the first table of the paper. All tuples have one entry per stage."""

    embed_dims: tuple[int, ...] = (96, 192, 384, 768)
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)  # unused where there is no attention
    mlp_ratios: tuple[int, ...] = (4, 4, 4, 4)
    attention: tuple[bool, ...] = (False, False, True, True)  # False: pure MLP blocks
    sr_ratios: tuple[int, ...] = (1, 1, 1, 1)  # PVT's spatial reduction of keys; 1 is full attention
    merging: Literal["deformable", "conv", "linear"] = "deformable"  # entry of stages 2-4; conv: PVT's, linear: Swin's
    position: Literal["relative", "absolute"] = "relative"
    class_token: bool = False  # stage 4 only; with position="absolute"
    patch_size: int = 4
    in_chans: int = 3
    norm_eps: float = 1e-5  # of the blocks and the final norm; patch embedding and output norms: 1e-5
    table_size: int | None = None  # image size the position tables are made for; None: 224, 800 or 512 by out_norms
    drop_path_rate: float = 0.0
    out_norms: OutNorms = "none"


class LIT(nn.Module):
    """LIT backbone.

    Attributes:
        features: channels and stride of each map.
        has_class_token: whether `forward(..., class_token=True)` is there.
    """

    # Official list for LIT-S/M/B (tables) and LIT-Ti (class token). LIT-Ti's positions are not on it, so they decay.
    no_decay = ("relative_position_bias_table", "cls_token")

    def __init__(self, config: LITConfig):
        super().__init__()
        c = config
        check_config(
            "LIT",
            {
                "embed_dims": c.embed_dims,
                "depths": c.depths,
                "num_heads": c.num_heads,
                "mlp_ratios": c.mlp_ratios,
                "attention": c.attention,
                "sr_ratios": c.sr_ratios,
            },
            drop_path_rate=c.drop_path_rate,
        )
        if c.out_norms not in TABLE_SIZE:
            raise ValueError(f"out_norms must be one of {tuple(TABLE_SIZE)}, got {c.out_norms!r}")
        if c.position not in ("relative", "absolute"):
            raise ValueError(f"LIT: position must be 'relative' or 'absolute', got {c.position!r}")
        if c.class_token and c.position != "absolute":
            raise ValueError("LIT: class_token=True needs position='absolute', got position='relative'")
        if c.class_token and not c.attention[3]:
            raise ValueError("LIT: class_token=True needs attention in stage 4, by which alone it sees the image")
        if c.position == "relative" and any(r > 1 for r in c.sr_ratios):
            raise ValueError(f"LIT: sr_ratios > 1 need position='absolute', got sr_ratios={c.sr_ratios}")
        self.config = config
        self.has_class_token = c.class_token
        self.features = tuple(FeatureSpec(dim, c.patch_size * 2**i) for i, dim in enumerate(c.embed_dims))
        table_size = c.table_size or (TABLE_SIZE[c.out_norms] if c.position == "relative" else 224)
        if table_size < 8 * c.patch_size:
            raise ValueError(f"LIT: table_size must be at least {8 * c.patch_size}, the last stride, got {table_size}")
        self.grids = tuple((table_size // f.stride, table_size // f.stride) for f in self.features)

        rates = torch.linspace(0, c.drop_path_rate, sum(c.depths), device="cpu").tolist()
        self.embeds = nn.ModuleList(self._entry(i) for i in range(4))
        self.stages = nn.ModuleList(
            Stage([self._block(i, rates.pop(0)) for _ in range(depth)]) for i, depth in enumerate(c.depths)
        )
        if c.position == "absolute":
            # The table of stage 4 has a first row for the class token, whether or not there is one.
            self.positions = nn.ModuleList(
                AbsolutePosition(dim, grid_size=grid, class_row=i == 3)
                for i, (dim, grid) in enumerate(zip(c.embed_dims, self.grids))
            )
        if c.class_token:
            self.cls_token = nn.Parameter(torch.empty(1, 1, c.embed_dims[-1]))
        # LIT-Ti and PVT hand out their maps as they are, in every flavour.
        self.out_norms = build_out_norms(c.out_norms if c.position == "relative" else "none", c.embed_dims)
        self.init_weights()

    def _entry(self, i: int) -> nn.Module:
        c = self.config
        if i == 0:
            return PatchEmbed(c.in_chans, c.embed_dims[0], patch_size=c.patch_size)
        dims = c.embed_dims[i - 1], c.embed_dims[i]
        if c.merging == "deformable":
            return DeformableTokenMerging(*dims)
        if c.merging == "conv":
            return PatchEmbed(*dims, patch_size=2)
        if c.merging == "linear":
            return LinearMerging(*dims)
        raise ValueError(f"LIT: merging must be 'deformable', 'conv' or 'linear', got {c.merging!r}")

    def _block(self, i: int, drop_path: float) -> nn.Module:
        c = self.config
        dim = c.embed_dims[i]
        mlp = MLP(dim, dim * c.mlp_ratios[i])
        if not c.attention[i]:
            return FeedForwardBlock(dim, mlp, drop_path=drop_path, norm_eps=c.norm_eps)
        attn = (
            RelativeAttention(dim, num_heads=c.num_heads[i], grid_size=self.grids[i])
            if c.position == "relative"
            else Attention(dim, num_heads=c.num_heads[i], sr_ratio=c.sr_ratios[i])
        )
        return AttentionBlock(dim, attn, mlp, drop_path=drop_path, norm_eps=c.norm_eps)

    @torch.no_grad()
    def init_weights(self) -> None:
        """Official initialisation: Linear and tables normal(0.02), biases 0; convolutions keep PyTorch's default."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():  # a convolution in the official code
            if isinstance(module, DeformableTokenMerging):
                module.reset_parameters()
        if self.has_class_token:
            nn.init.trunc_normal_(self.cls_token, std=0.02)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of storing its activations."""
        for stage in self.stages:
            stage.grad_checkpointing = enable  # type: ignore[assignment]

    def forward(
        self, images: Tensor, class_token: bool = False
    ) -> tuple[Tensor, ...] | tuple[tuple[Tensor, ...], Tensor]:
        """
        Args:
            images: (B, in_chans, H, W), normalised, H and W >= 32.
            class_token: return it as well; only with `LITConfig.class_token`.

        Returns:
            The maps, 4 x (B, C_i, H_i, W_i); or the maps and the class token, (B, C_4).
        """
        p = self.config.patch_size
        pads = self.config.position == "relative"  # LIT-Ti and PVT drop what does not fill a patch, LIT-S/M/B pad
        check_images("LIT", images, in_chans=self.config.in_chans, least=7 * p + 1 if pads else 8 * p)
        if class_token and not self.has_class_token:
            raise ValueError("LIT: this backbone has no class token; its config needs class_token=True")
        x = (pad_images(images, p) if pads else images).permute(0, 2, 3, 1)
        maps, token = [], None
        for i, (embed, stage, out_norm) in enumerate(zip(self.embeds, self.stages, self.out_norms)):
            x = embed(x)
            B, H, W, C = x.shape
            with_token = self.has_class_token and i == 3
            if self.config.position == "absolute":
                x = self.positions[i](x, self.cls_token) if with_token else self.positions[i](x)
            x = stage(x)
            if with_token:
                token, x = x[:, 0], x[:, 1:].view(B, H, W, C)
            maps.append(out_norm(x).permute(0, 3, 1, 2))
        if class_token:
            assert token is not None
            return tuple(maps), token
        return tuple(maps)


LIT_TI = LITConfig(
    embed_dims=(64, 128, 320, 512),
    depths=(3, 4, 6, 3),
    num_heads=(1, 2, 5, 8),
    mlp_ratios=(8, 8, 4, 4),
    position="absolute",
    class_token=True,
    norm_eps=1e-6,
)
LIT_S = LITConfig()
LIT_M = replace(LIT_S, depths=(2, 2, 18, 2))
LIT_B = replace(LIT_M, embed_dims=(128, 256, 512, 1024), num_heads=(4, 8, 16, 32))

VARIANTS: dict[str, LITConfig] = {
    "lit_ti": LIT_TI,
    "lit_s": LIT_S,
    "lit_m": LIT_M,
    "lit_b": LIT_B,
    # Table 2 of the paper: the architecture alone, with the merging of the model it is compared with.
    "lit_ti_uniform": replace(LIT_TI, merging="conv"),  # against PVT-S
    "lit_s_uniform": replace(LIT_S, merging="linear"),  # against Swin-Ti
}

# A backbone that hands out maps has no class token.
FAMILY = Family(
    config=LITConfig,
    model=LIT,
    variants=VARIANTS,
    dense=lambda config, out_norms: replace(config, class_token=False, out_norms=out_norms),
)
