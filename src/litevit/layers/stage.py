"""What the backbones have in common: a stage, and the checks of what they are given."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Stage(nn.Module):
    """Entry (patch embedding or token merging), then blocks, at one resolution.

    What comes between the two (position tables, a class token, MixToken) is the backbone's own.
    """

    def __init__(self, embed: nn.Module, blocks: Sequence[nn.Module]):
        super().__init__()
        self.embed = embed
        self.blocks = nn.ModuleList(blocks)

    def run_blocks(self, x: Tensor, *, recompute: bool) -> Tensor:
        """Args: x: what `embed` gives; recompute: in the backward pass, instead of storing. Returns: as x."""
        for block in self.blocks:
            if recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)  # type: ignore[assignment]
            else:
                x = block(x)
        return x


def check_config(name: str, per_stage: dict[str, Sequence], *, drop_path_rate: float) -> None:
    """Raises ValueError when a per-stage field has not four entries or the rate is no rate."""
    for field, value in per_stage.items():
        if len(value) != 4:
            raise ValueError(f"{name}: {field} needs 4 entries, one per stage, got {len(value)}: {tuple(value)}")
    if not 0 <= drop_path_rate < 1:
        raise ValueError(f"{name}: drop_path_rate must be in [0, 1), got {drop_path_rate}")


def check_images(name: str, images: Tensor, *, in_chans: int, least: int) -> None:
    """Raises ValueError for anything but (B, in_chans, H, W) with H and W of at least `least` pixels."""
    if torch.compiler.is_compiling():  # a guard on the sizes would cost a graph
        return
    if images.ndim != 4 or images.shape[1] != in_chans or min(images.shape[2:]) < least:
        raise ValueError(
            f"{name}: images must be (B, {in_chans}, H, W) with H and W at least {least}, got {tuple(images.shape)}"
        )
