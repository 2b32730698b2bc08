"""Optimizers and the published parameter groups."""

from typing import Any

import torch
from torch import nn

from litevit.engine.config import OptimConfig

# Multi-dimensional parameters that the official code lists as free of weight decay: LIT's tables (S/M/B) and the class
# token (LIT-Ti, LVT). LIT-Ti's position embeddings are not on its list, so they are decayed.
NO_DECAY_PARTS = ("relative_position_bias_table", "cls_token")


def param_groups(
    model: nn.Module, *, lr: float, weight_decay: float, offset_lr: float | None = None
) -> list[dict[str, Any]]:
    """The groups the LIT, LITv2 and LVT papers train with.

    A parameter is free of weight decay if it has one dimension, is a bias, or is listed above. That test comes first,
    so only the weights of deformable merging's offset convolutions get `offset_lr`; their biases train at `lr`.

    Args:
        offset_lr: None trains the offset convolutions like everything else.

    Returns:
        The groups that have members, each with `name` ("decay", "no_decay", "offset"), `params`, `lr`, `weight_decay`.
    """
    members: dict[str, list[nn.Parameter]] = {"decay": [], "no_decay": [], "offset": []}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim <= 1 or name.endswith(".bias") or any(part in name for part in NO_DECAY_PARTS):
            members["no_decay"].append(parameter)
        elif offset_lr is not None and name.endswith("offset.weight"):
            members["offset"].append(parameter)
        else:
            members["decay"].append(parameter)
    rates = {"decay": lr, "no_decay": lr, "offset": lr if offset_lr is None else offset_lr}
    decays = {"decay": weight_decay, "no_decay": 0.0, "offset": weight_decay}
    return [
        {"name": name, "params": params, "lr": rates[name], "weight_decay": decays[name]}
        for name, params in members.items()
        if params
    ]


def scaled_lr(config: OptimConfig, batch_size: int) -> float:
    """The base learning rate of a run: linear in the total batch when the recipe says what batch its rate is for."""
    return config.lr if config.lr_batch is None else config.lr * batch_size / config.lr_batch


def create_optimizer(groups: list[dict[str, Any]], config: OptimConfig) -> torch.optim.Optimizer:
    lr = max(group["lr"] for group in groups)
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=config.momentum)
    return torch.optim.AdamW(groups, lr=lr, betas=config.betas, eps=config.eps)
