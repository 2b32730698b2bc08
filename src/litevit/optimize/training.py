"""`optimize_for_training`: a copy of a model that trains faster."""

import copy

import torch
from torch import nn

from litevit.layers.csa import ConvolutionalSelfAttention
from litevit.layers.deformable_merging import DeformableTokenMerging
from litevit.optimize.csa import TrainedCSA
from litevit.optimize.entries import SampledMerging
from litevit.optimize.inference import Twin, replace
from litevit.optimize.linear import TrainedLinear
from litevit.optimize.operators import HAS_TRITON
from litevit.optimize.processor import prefers_onednn

TWINS: dict[type[nn.Module], Twin] = {
    nn.Linear: Twin(TrainedLinear, prefers_onednn),
    ConvolutionalSelfAttention: Twin(TrainedCSA, prefers_onednn),
    DeformableTokenMerging: Twin(SampledMerging, lambda: HAS_TRITON and torch.cuda.is_available()),
}


def optimize_for_training(model: nn.Module) -> nn.Module:
    """A copy of a model that computes the same function, with the same gradients, faster; the model is not touched.

    On a CPU with AVX-512 linear layers in float32 run on oneDNN's products, forward and backward; on CUDA token
    merging samples by a Triton kernel. Elsewhere the copy is as it was. Nothing is absorbed: every module is
    called, hooks fire, and state-dict keys, parameters and the mode stay, so that checkpoints and optimizers do not
    see a difference. Make it before the optimizer: its parameters are new tensors.

    Args:
        model: any model.

    Returns:
        The copy, in the model's mode and on its device.

    Raises:
        TypeError: this is no model.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"optimize_for_training takes a model (litevit.create_model makes one), got {model!r}")
    return replace(copy.deepcopy(model), TWINS)
