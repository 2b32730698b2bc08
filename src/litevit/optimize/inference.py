"""Folding for inference: the same function with fewer operations."""

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from litevit.layers.attention import Attention, RelativeAttention
from litevit.layers.compiled_norm import CompiledLayerNorm
from litevit.layers.conv_ffn import ConvFFN
from litevit.layers.csa import ConvolutionalSelfAttention
from litevit.layers.deformable_merging import DeformableTokenMerging
from litevit.layers.hilo import HiLo
from litevit.layers.rasa import RecursiveAtrousSelfAttention
from litevit.ops.linear import pack_when_used
from litevit.optimize.native import kernels

NATIVE = (Attention, HiLo, RecursiveAtrousSelfAttention, ConvolutionalSelfAttention, ConvFFN)  # have C++ kernels


def optimize_for_inference(model: nn.Module) -> nn.Module:
    """A copy of a model that computes the same function with fewer operations; the model itself is not touched.

    BatchNorm after token merging is folded into the merging's kernel, and the relative biases of the grid that the
    tables are made for are looked up once, as are those of the last other grid. DropPath and Dropout go.

    On a CPU with a C++ compiler more is compiled. With AVX-512 on Linux: attention, convolutional self-attention,
    LayerNorm and, in bfloat16, depthwise convolutions run in litevit's own kernels, made here at the first call on a
    machine (5 seconds) and kept in the cache folder. On other processors the LayerNorms of large maps and LVT's
    convolutional self-attention become loops that PyTorch's compiler makes when they first run: 1 to 2 seconds a
    LayerNorm, 10 to 20 for an LVT in all, kept on disk.

    Args:
        model: any model or backbone of litevit, trained; it may be in training mode.

    Returns:
        The folded copy, in evaluation mode, its parameters without gradients. Its BatchNorms are gone: it can neither
        be trained on nor take a checkpoint. Outputs agree to rounding (float32: about 1e-6 of their scale).

    Raises:
        TypeError: this is no model.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"optimize_for_inference takes a model (litevit.create_model makes one), got {model!r}")
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    on_cpu = all(p.device.type == "cpu" for p in folded.parameters())
    for module in folded.modules():
        if isinstance(module, DeformableTokenMerging) and isinstance(module.norm, nn.BatchNorm2d):
            _fold_norm(module)
        elif type(module) is nn.Linear:
            pack_when_used(module.weight)
        elif type(module) is nn.LayerNorm and len(module.normalized_shape) == 1 and module.bias is not None:
            module.__class__ = CompiledLayerNorm
        elif isinstance(module, ConvolutionalSelfAttention):
            module.compiled = True
        if isinstance(module, NATIVE):
            module.native = on_cpu and kernels.available()
        if isinstance(module, RelativeAttention):
            module.remember()
        for name, child in module.named_children():
            if type(child).__name__ == "DropPath" or isinstance(child, nn.Dropout):
                setattr(module, name, nn.Identity())
    return folded


def _fold_norm(merging: DeformableTokenMerging) -> None:
    norm: nn.BatchNorm2d = merging.norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        merging.proj.weight, merging.proj.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    # The product reads the kernel tap by tap: in this memory format that is a view, else a copy at every call.
    kernel = weight.detach().contiguous(memory_format=torch.channels_last)
    merging.proj.weight = nn.Parameter(kernel, requires_grad=False)
    merging.proj.bias = nn.Parameter(bias.detach(), requires_grad=False)
    merging.norm = nn.Identity()  # type: ignore[assignment]
