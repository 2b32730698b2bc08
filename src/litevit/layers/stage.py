"""What the backbones have in common: a stage of blocks, and the checks of their configs."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Stage(nn.Module):
    """The blocks of one resolution.

    Attributes:
        grad_checkpointing: recompute each block in the backward pass instead of storing its activations.
    """

    def __init__(self, blocks: Sequence[nn.Module]):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.grad_checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: what the stage's entry gives. Returns: as x."""
        for block in self.blocks:
            if self.grad_checkpointing and torch.is_grad_enabled():
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
