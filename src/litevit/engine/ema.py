"""The moving average of the weights, kept by timm's `ModelEmaV3` on the model itself (before DDP wraps it)."""

import torch
from timm.utils import ModelEmaV3
from torch import nn


def create_ema(model: nn.Module, decay: float | None, *, fsdp: bool = False) -> ModelEmaV3 | None:
    """Averages parameters and floating buffers (BatchNorm's statistics) at a constant decay from the first step.

    Args:
        fsdp: model and average will be sharded the same way; called before either is, because sharded modules cannot
            be copied.
    """
    if decay is None:
        return None
    return ModelEmaV3(model, decay=decay, foreach=not fsdp)  # one call cannot take sharded and whole tensors


@torch.no_grad()
def all_finite(model: nn.Module) -> bool:
    return all(bool(torch.isfinite(p).all()) for p in model.state_dict().values() if p.is_floating_point())
