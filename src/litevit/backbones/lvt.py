"""LVT, Lite Vision Transformer: convolutional self-attention first, recursive atrous self-attention after (CVPR 2022).

arXiv:2112.10809. Official: github.com/Chenglin-Yang/LVT. Differs: drop path works (the official code never passes the
rate on, so the published models were trained without).
Shapes: B batch, H x W grid, C channels. The stream is BHWC.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from litevit.backbones.family import Family
from litevit.layers.block import AttentionBlock
from litevit.layers.conv_ffn import ConvFFN
from litevit.layers.csa import ConvolutionalSelfAttention
from litevit.layers.features import FeatureSpec
from litevit.layers.mlp import MLP
from litevit.layers.out_norms import FIRST_NORMED, OutNorms
from litevit.layers.patch_embed import OverlapPatchEmbed
from litevit.layers.rasa import RecursiveAtrousSelfAttention
from litevit.layers.stage import Stage, check_config
from litevit.ops.grid import check_images
from litevit.ops.mix_token import swap_box


@dataclass(frozen=True, kw_only=True)
class LVTConfig:
    """The one published size. All tuples have one entry per stage."""

    embed_dims: tuple[int, ...] = (64, 64, 160, 256)
    depths: tuple[int, ...] = (2, 2, 2, 2)
    num_heads: tuple[int, ...] = (2, 2, 5, 8)
    mlp_ratios: tuple[int, ...] = (4, 8, 4, 4)
    mixers: tuple[Literal["csa", "rasa"], ...] = ("csa", "rasa", "rasa", "rasa")
    sr_ratios: tuple[int, ...] = (1, 4, 2, 1)  # RASA's reduction of keys and values
    rates: tuple[int, ...] | None = (1, 3, 5)  # RASA's dilations
    num_recursions: int = 2  # official: r_num
    patch_size: int = 4  # stride of the first embedding; its kernel is 2 * patch_size - 1
    in_chans: int = 3
    stage_norms: bool = False  # LayerNorm after each stage, also for the next one (official classification code, maps)
    drop_path_rate: float = 0.0
    out_norms: OutNorms = "none"  # LVT hands out its maps as they are, in every flavour


class LVT(nn.Module):
    """LVT backbone.

    Attributes:
        features: channels and stride of each map.
    """

    has_class_token = False

    def __init__(self, config: LVTConfig):
        super().__init__()
        c = config
        check_config(
            "LVT",
            {
                "embed_dims": c.embed_dims,
                "depths": c.depths,
                "num_heads": c.num_heads,
                "mlp_ratios": c.mlp_ratios,
                "mixers": c.mixers,
                "sr_ratios": c.sr_ratios,
            },
            drop_path_rate=c.drop_path_rate,
        )
        if c.out_norms not in FIRST_NORMED:
            raise ValueError(f"out_norms must be one of {tuple(FIRST_NORMED)}, got {c.out_norms!r}")
        self.config = config
        self.features = tuple(FeatureSpec(dim, c.patch_size * 2**i) for i, dim in enumerate(c.embed_dims))
        rates = torch.linspace(0, c.drop_path_rate, sum(c.depths), device="cpu").tolist()
        in_dims, strides = (c.in_chans, *c.embed_dims[:-1]), (c.patch_size, 2, 2, 2)
        self.embeds = nn.ModuleList(
            OverlapPatchEmbed(in_dim, dim, stride=stride) for in_dim, dim, stride in zip(in_dims, c.embed_dims, strides)
        )
        self.stages = nn.ModuleList(
            Stage([self._block(i, rates.pop(0)) for _ in range(depth)]) for i, depth in enumerate(c.depths)
        )
        # Official name: downstream_norms.
        self.stage_norms = nn.ModuleList(
            nn.LayerNorm(dim, eps=1e-5) if c.stage_norms else nn.Identity() for dim in c.embed_dims
        )
        self.init_weights()

    def _block(self, i: int, drop_path: float) -> nn.Module:
        c = self.config
        dim, heads, hidden = c.embed_dims[i], c.num_heads[i], c.embed_dims[i] * c.mlp_ratios[i]
        if c.mixers[i] == "csa":
            return AttentionBlock(dim, ConvolutionalSelfAttention(dim, heads), MLP(dim, hidden), drop_path=drop_path)
        if c.mixers[i] == "rasa":
            rasa = RecursiveAtrousSelfAttention(dim, heads, c.sr_ratios[i], c.rates, c.num_recursions)
            return AttentionBlock(dim, rasa, ConvFFN(dim, hidden), drop_path=drop_path)
        raise ValueError(f"LVT: mixers must be 'csa' or 'rasa', got {c.mixers[i]!r}")

    @torch.no_grad()
    def init_weights(self) -> None:
        """Official initialisation. CSA and RASA initialise themselves."""
        for module in self.modules():
            if isinstance(module, OverlapPatchEmbed):
                conv = module.proj
                nn.init.normal_(conv.weight, std=math.sqrt(2 / (conv.kernel_size[0] ** 2 * conv.out_channels)))
                nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
            elif isinstance(module, MLP):
                for linear in (module.fc1, module.fc2):
                    nn.init.trunc_normal_(linear.weight, std=0.02)
                    nn.init.zeros_(linear.bias)
            elif isinstance(module, ConvFFN):  # convolutions in the official code: PyTorch's default, biases too
                for layer in (module.fc1, module.dwconv, module.fc2):
                    layer.reset_parameters()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of storing its activations."""
        for stage in self.stages:
            stage.grad_checkpointing = enable  # type: ignore[assignment]

    def forward(self, images: Tensor, mix_box: Sequence[int] | Tensor | None = None) -> tuple[Tensor, ...]:
        """Maps of the four stages.

        Args:
            images: (B, in_chans, H, W), normalised, H and W >= 32.
            mix_box: MixToken between the first embedding and its blocks: (top, left, bottom, right) in cells of the
                last map; see `litevit.ops.mix_token`.

        Returns:
            4 x (B, C_i, H_i, W_i), H_i = ceil(H_{i-1} / 2).
        """
        check_images("LVT", images, in_chans=self.config.in_chans, least=6 * self.config.patch_size + 1)
        x = images.permute(0, 2, 3, 1)
        maps = []
        for i, (embed, stage, norm) in enumerate(zip(self.embeds, self.stages, self.stage_norms)):
            x = embed(x)
            if i == 0 and mix_box is not None:
                x = swap_box(x, mix_box, cell=self.features[-1].stride // self.features[0].stride)
            x = norm(stage(x))
            maps.append(x.permute(0, 3, 1, 2))
        return tuple(maps)


VARIANTS: dict[str, LVTConfig] = {
    "lvt": LVTConfig(),
}

FAMILY = Family(
    config=LVTConfig,
    model=LVT,
    variants=VARIANTS,
    dense=lambda config, out_norms: replace(config, out_norms=out_norms),
    crop_pct=0.96,
)
