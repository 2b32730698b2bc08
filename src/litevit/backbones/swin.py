"""Swin-Ti with deformable token merging: table 3 of the LIT paper (arXiv:2105.14217).

The Swin Transformer is timm's. Replaced are the merging between its stages, and how windows are cut and put together:
timm's own slices and views pin the map's size in a compiled graph.
Shapes: B batch, H x W grid, C channels, N heads, s window side, L = s * s tokens, h x w windows.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from timm.models.swin_transformer import PatchMerging, SwinTransformerBlock, WindowAttention
from torch import Tensor, nn

from litevit.backbones.family import Family
from litevit.layers.deformable_merging import DeformableTokenMerging
from litevit.layers.features import FeatureSpec
from litevit.layers.out_norms import OutNorms, build_out_norms
from litevit.layers.patch_embed import PatchEmbed
from litevit.layers.stage import Stage, check_config
from litevit.ops.grid import check_images, pad_images
from litevit.ops.heads import attend_windows, merge_heads
from litevit.ops.shifted_windows import apart_mask, cut_windows, join_windows


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


class ShiftedWindowAttention(WindowAttention):
    """timm's attention inside windows, on an axis of windows of its own."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Args: x: (B, h*w, L, C); mask: (h*w, L, L), added to the logits. Returns: as x."""
        N = self.num_heads
        q, k, v = self.qkv(x).unflatten(-1, (3, N, x.shape[-1] // N)).permute(3, 0, 1, 4, 2, 5).unbind(0)  # B h*w N L D
        bias = self._get_rel_pos_bias()  # 1 N L L
        bias = (bias if mask is None else bias + mask[:, None]).to(q.dtype)
        return self.proj(merge_heads(attend_windows(q, k, v, bias)))


class SwinBlock(SwinTransformerBlock):
    """timm's block at any map size.

    Args:
        shift: of the windows, in tokens; 0 does not move them.
    """

    def __init__(self, dim: int, *, num_heads: int, window_size: int, shift: int, drop_path: float):
        super().__init__(
            dim,
            input_resolution=(window_size, window_size),  # no mask is made beforehand
            num_heads=num_heads,
            window_size=window_size,
            drop_path=drop_path,
        )
        self.attn = ShiftedWindowAttention(dim, num_heads, window_size=window_size)
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (B, H, W, C). Returns: (B, H, W, C)."""
        _, H, W, _ = x.shape
        s, shift = self.window_size[0], self.shift
        windows = cut_windows(self.norm1(x), s, shift)
        attended = self.attn(windows, apart_mask(x, s, shift) if shift else None)
        x = x + self.drop_path1(join_windows(attended, s, shift, H, W))
        return x + self.drop_path2(self.mlp(self.norm2(x)))


class Swin(nn.Module):
    """Swin Transformer as a backbone, optionally with deformable token merging.

    Attributes:
        features: channels and stride of each map.
    """

    has_class_token = False
    no_decay = ("relative_position_bias_table",)

    def __init__(self, config: SwinConfig):
        super().__init__()
        c = config
        check_config("Swin", {"depths": c.depths, "num_heads": c.num_heads}, drop_path_rate=c.drop_path_rate)
        if c.merging not in ("deformable", "linear"):
            raise ValueError(f"Swin: merging must be 'deformable' or 'linear', got {c.merging!r}")
        self.config = config
        dims = [c.embed_dim * 2**i for i in range(4)]
        self.features = tuple(FeatureSpec(dim, 4 * 2**i) for i, dim in enumerate(dims))
        rates = torch.linspace(0, c.drop_path_rate, sum(c.depths), device="cpu").tolist()
        self.embeds = nn.ModuleList(self._entry(i, dims) for i in range(4))
        self.stages = nn.ModuleList(
            Stage([self._block(i, j, dim, rates.pop(0)) for j in range(c.depths[i])]) for i, dim in enumerate(dims)
        )
        self.out_norms = build_out_norms(c.out_norms, dims)
        self.init_weights()

    def _entry(self, i: int, dims: list[int]) -> nn.Module:
        if i == 0:
            return PatchEmbed(self.config.in_chans, dims[0], patch_size=4)
        kind = DeformableTokenMerging if self.config.merging == "deformable" else PatchMerging
        return kind(dims[i - 1], dims[i])

    def _block(self, i: int, j: int, dim: int, drop_path: float) -> SwinBlock:
        s = self.config.window_size
        # Every other block moves its windows by half; not where the last map of a 224 pixel image is one window.
        shift = s // 2 if j % 2 and 224 // self.features[i].stride > s else 0
        return SwinBlock(dim, num_heads=self.config.num_heads[i], window_size=s, shift=shift, drop_path=drop_path)

    @torch.no_grad()
    def init_weights(self) -> None:
        """As timm: Linear normal(0.02), biases 0; convolutions and token merging keep PyTorch's default."""
        for block in self.stages.modules():
            if isinstance(block, nn.Linear):
                nn.init.trunc_normal_(block.weight, std=0.02)
                if block.bias is not None:
                    nn.init.zeros_(block.bias)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of storing its activations."""
        for stage in self.stages:
            stage.grad_checkpointing = enable  # type: ignore[assignment]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Args: images: (B, in_chans, H, W), normalised, H and W >= 32. Returns: 4 x (B, C_i, H_i, W_i)."""
        check_images("Swin", images, in_chans=self.config.in_chans, least=29)
        x = pad_images(images, 4).permute(0, 2, 3, 1)
        maps = []
        for embed, stage, out_norm in zip(self.embeds, self.stages, self.out_norms):
            x = stage(embed(x))
            maps.append(out_norm(x).permute(0, 3, 1, 2))
        return tuple(maps)


SWIN_TI_DTM = SwinConfig()

VARIANTS: dict[str, SwinConfig] = {
    "swin_ti_dtm": SWIN_TI_DTM,
    "swin_ti": replace(SWIN_TI_DTM, merging="linear"),
}

FAMILY = Family(
    config=SwinConfig,
    model=Swin,
    variants=VARIANTS,
    dense=lambda config, out_norms: replace(config, out_norms=out_norms),
)
