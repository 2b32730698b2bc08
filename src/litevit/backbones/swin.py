"""Swin-Ti with deformable token merging: table 3 of the LIT paper (arXiv:2105.14217).

The Swin Transformer is timm's; only the merging between its stages is replaced.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from torch import Tensor, nn

from litevit.layers.deformable_merging import DeformableTokenMerging
from litevit.layers.features import FeatureSpec
from litevit.layers.out_norms import OutNorms, build_out_norms
from litevit.layers.stage import check_config, check_images


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


def _one_graph_attention(block: SwinTransformerBlock, x: Tensor) -> Tensor:
    """timm's `block._attn` for any map size in one graph, which timm's own slices and views would pin.

    Args: x: (B, H, W, C). Returns: (B, H, W, C).
    """
    _, H, W, C = x.shape
    s, shift, N = block.window_size[0], block.shift_size[0], block.attn.num_heads
    real_h, real_w = (H + s - 1) // s, (W + s - 1) // s
    # The exporter takes an axis of length 1 for a constant: a lone window gets an empty neighbour, which nobody sees.
    h: Any = torch.sym_max(real_h, 2)
    w: Any = torch.sym_max(real_w, 2)
    x = torch.roll(x, (-shift, -shift), (1, 2))
    x = F.pad(x, (0, 0, 0, w * s - W, 0, h * s - H))
    windows = _cut_windows(x.permute(0, 3, 1, 2), s)  # B h*w s*s C
    q, k, v = block.attn.qkv(windows).unflatten(-1, (3, N, C // N)).permute(3, 0, 1, 4, 2, 5).unbind(0)  # B h*w N L D
    bias = block.attn._get_rel_pos_bias()[0]  # N L L
    if shift:
        # Tokens that the roll brought together from opposite borders do not see each other.
        rows, columns = _regions(h * s, real_h * s, block, x), _regions(w * s, real_w * s, block, x)
        region = _cut_windows((3 * rows[:, None] + columns)[None, None], s)[0, :, :, 0]  # h*w L
        apart = region[:, None, :, None] != region[:, None, None, :]
        bias = bias + -100.0 * apart.to(x.dtype)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    out = block.attn.proj(out.transpose(2, 3).flatten(3))  # B h*w L C
    depth = out.permute(0, 3, 2, 1).flatten(1, 2).unflatten(2, (h, w))  # B C*L h w
    out = F.pixel_shuffle(depth, s).permute(0, 2, 3, 1)
    out = out.index_select(1, torch.arange(H, device=x.device)).index_select(2, torch.arange(W, device=x.device))
    return torch.roll(out, (shift, shift), (1, 2))


def _regions(length: int, real: int, block: SwinTransformerBlock, x: Tensor) -> Tensor:
    """0 before the last window, 1 in it, 2 in what the roll moved there. Returns: (length,), in x's dtype."""
    place = torch.arange(length, device=x.device)
    in_last, moved = place >= real - block.window_size[0], place >= real - block.shift_size[0]
    return in_last.to(x.dtype) + moved.to(x.dtype)


def _cut_windows(x: Tensor, s: int) -> Tensor:
    """Args: x: (B, C, h*s, w*s). Returns: (B, h*w, s*s, C)."""
    return F.pixel_unshuffle(x, s).unflatten(1, (x.shape[1], s * s)).flatten(3).permute(0, 3, 2, 1)


class Swin(nn.Module):
    """timm's Swin Transformer as a backbone, optionally with deformable token merging.

    Attributes:
        features: channels and stride of each map.
    """

    has_class_token = False

    def __init__(self, config: SwinConfig):
        super().__init__()
        c = config
        check_config("Swin", {"depths": c.depths, "num_heads": c.num_heads}, drop_path_rate=c.drop_path_rate)
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
        check_images("Swin", images, in_chans=self.config.in_chans, least=29)
        H, W = images.shape[-2:]
        if torch.compiler.is_compiling() or H % 4 or W % 4:
            images = F.pad(images, (0, (W + 3) // 4 * 4 - W, 0, (H + 3) // 4 * 4 - H))
        # The norm and projection of timm's patch embedding, whose messages pin the size in a compiled graph.
        embed: Any = self.trunk.patch_embed
        x = embed.norm(embed.proj(images).permute(0, 2, 3, 1))
        maps = []
        for layer, out_norm in zip(self.trunk.layers, self.out_norms):
            x = self._one_graph(layer, x) if torch.compiler.is_compiling() else layer(x)
            maps.append(out_norm(x).permute(0, 3, 1, 2))
        return tuple(maps)

    def _one_graph(self, layer: nn.Module, x: Tensor) -> Tensor:
        x = layer.downsample(x)  # type: ignore[operator]
        for block in layer.blocks:  # type: ignore[union-attr]
            x = x + block.drop_path1(_one_graph_attention(block, block.norm1(x)))
            x = x + block.drop_path2(block.mlp(block.norm2(x)))
        return x


SWIN_TI_DTM = SwinConfig()

VARIANTS: dict[str, SwinConfig] = {
    "swin_ti_dtm": SWIN_TI_DTM,
    "swin_ti": replace(SWIN_TI_DTM, merging="linear"),
}
