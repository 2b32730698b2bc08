"""Optimizers and the published parameter groups."""

from typing import Any

import torch
from torch import nn

from litevit.engine.config import OptimConfig


def undecayed(model: nn.Module) -> set[str]:
    """Names of parameters of several dimensions that train without weight decay.

    Backbones and classifiers list parts of names as `no_decay`.
    """
    found: set[str] = set()
    for path, module in model.named_modules():
        if parts := getattr(module, "no_decay", ()):
            names = (f"{path}.{name}".lstrip(".") for name, _ in module.named_parameters())
            found |= {name for name in names if any(part in name for part in parts)}
    return found


def param_groups(
    model: nn.Module, *, lr: float, weight_decay: float, offset_lr: float | None = None
) -> list[dict[str, Any]]:
    """The groups the LIT, LITv2 and LVT papers train with.

    A parameter is free of weight decay if it has one dimension, is a bias, or is among `undecayed(model)`. That test
    comes first, so only the weights of deformable merging's offset convolutions get `offset_lr`; their biases train at
    `lr`.

    Args:
        offset_lr: None trains the offset convolutions like everything else.

    Returns:
        The groups that have members, each with `name` ("decay", "no_decay", "offset"), `params`, `lr`, `weight_decay`.
    """
    members: dict[str, list[nn.Parameter]] = {"decay": [], "no_decay": [], "offset": []}
    listed = getattr(model, "no_weight_decay", None)  # a timm model's
    without = set(listed()) if callable(listed) else undecayed(model)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim <= 1 or name.endswith(".bias") or name in without:
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
