"""LVT, Lite Vision Transformer: convolutional self-attention first, recursive atrous self-attention after (CVPR 2022).

arXiv:2112.10809. Official: github.com/Chenglin-Yang/LVT. Differs: drop path works (the official code never passes the
rate on, so the published models were trained without).
Shapes: B batch, H x W grid, C channels. The stream is BHWC.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from litevit.layers.compiled_norm import add_and_norm
from litevit.layers.conv_ffn import ConvFFN
from litevit.layers.csa import ConvolutionalSelfAttention
from litevit.layers.features import FeatureSpec
from litevit.layers.mlp import MLP
from litevit.layers.out_norms import FIRST_NORMED, OutNorms
from litevit.layers.rasa import RecursiveAtrousSelfAttention
from litevit.layers.stage import Stage, check_config, check_images
from litevit.ops.linear import conv2d
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


class OverlapPatchEmbed(nn.Module):
    """Strided convolution whose kernel reaches into the neighbouring patches, then LayerNorm."""

    def __init__(self, in_dim: int, dim: int, *, stride: int):
        super().__init__()
        kernel = max(3, 2 * stride - 1)
        self.proj = nn.Conv2d(in_dim, dim, kernel, stride=stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(dim, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (B, H, W, C_in). Returns: (B, ceil(H/stride), ceil(W/stride), C)."""
        return self.norm(conv2d(self.proj, x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class LVTBlock(nn.Module):
    """x + Mixer(LN(x)), then x + MLP(LN(x))."""

    def __init__(self, dim: int, attn: nn.Module, mlp: nn.Module, *, drop_path: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-5)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=1e-5)
        self.mlp = mlp
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (B, H, W, C). Returns: (B, H, W, C)."""
        x, normed = add_and_norm(self.norm2, x, self.drop_path(self.attn(self.norm1(x))))
        if isinstance(self.drop_path, nn.Identity):
            return self.mlp(normed, residual=x)  # one pass less over the map
        return x + self.drop_path(self.mlp(normed))


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
        self.grad_checkpointing = False
        self.features = tuple(FeatureSpec(dim, c.patch_size * 2**i) for i, dim in enumerate(c.embed_dims))
        rates = torch.linspace(0, c.drop_path_rate, sum(c.depths), device="cpu").tolist()
        stages = []
        for i, dim in enumerate(c.embed_dims):
            in_dim, stride = (c.in_chans, c.patch_size) if i == 0 else (c.embed_dims[i - 1], 2)
            blocks = [self._block(i, rates.pop(0)) for _ in range(c.depths[i])]
            stages.append(Stage(OverlapPatchEmbed(in_dim, dim, stride=stride), blocks))
        self.stages = nn.ModuleList(stages)
        # Official name: downstream_norms.
        self.stage_norms = nn.ModuleList(
            nn.LayerNorm(dim, eps=1e-5) if c.stage_norms else nn.Identity() for dim in c.embed_dims
        )
        self.init_weights()

    def _block(self, i: int, drop_path: float) -> nn.Module:
        c = self.config
        dim, heads, hidden = c.embed_dims[i], c.num_heads[i], c.embed_dims[i] * c.mlp_ratios[i]
        if c.mixers[i] == "csa":
            return LVTBlock(dim, ConvolutionalSelfAttention(dim, heads), MLP(dim, hidden), drop_path=drop_path)
        if c.mixers[i] == "rasa":
            rasa = RecursiveAtrousSelfAttention(dim, heads, c.sr_ratios[i], c.rates, c.num_recursions)
            return LVTBlock(dim, rasa, ConvFFN(dim, hidden), drop_path=drop_path)
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
        self.grad_checkpointing = enable

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
        for i, (stage, norm) in enumerate(zip(self.stages, self.stage_norms)):
            x = stage.embed(x)  # type: ignore[operator]
            if i == 0 and mix_box is not None:
                x = swap_box(x, mix_box, cell=self.features[-1].stride // self.features[0].stride)
            x = stage.run_blocks(x, recompute=self.grad_checkpointing)  # type: ignore[operator]
            x = norm(x)
            maps.append(x.permute(0, 3, 1, 2))
        return tuple(maps)


VARIANTS: dict[str, LVTConfig] = {
    "lvt": LVTConfig(),
}
