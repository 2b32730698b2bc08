"""Folding for inference: the same function with fewer operations."""

import copy

from torch import nn
from torch.nn.utils.fusion import fuse_linear_bn_weights

from litevit.layers.deformable_merging import DeformableTokenMerging


def optimize_for_inference(model: nn.Module) -> nn.Module:
    """A copy of a model that computes the same function with fewer operations; the model itself is not touched."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"optimize_for_inference takes a model (litevit.create_model makes one), got {model!r}")
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    for module in folded.modules():
        if isinstance(module, DeformableTokenMerging) and isinstance(module.norm, nn.BatchNorm2d):
            _fold_norm(module)
    return folded


def optimize_for_training(model: nn.Module) -> nn.Module:
    """A copy of a model that computes the same function, faster in training."""
    return copy.deepcopy(model)


def _fold_norm(merging: DeformableTokenMerging) -> None:
    norm: nn.BatchNorm2d = merging.norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = fuse_linear_bn_weights(
        merging.proj.weight, merging.proj.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    merging.proj.weight = nn.Parameter(weight.detach(), requires_grad=False)
    merging.proj.bias = nn.Parameter(bias.detach(), requires_grad=False)
    merging.norm = nn.Identity()  # type: ignore[assignment]


