"""Small functions that Inductor compiles: inference on the CPU, in models that went through `optimize_for_inference`.

PyTorch takes three times as long for a LayerNorm over 64 channels as one compiled loop does (docs/performance.md).
Compiling costs seconds at the first call, so that only models which asked for it get there, with maps that repay it.
"""

import os
import shutil
from collections.abc import Callable, Hashable
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from litevit.ops.linear import is_emulated

HAS_COMPILER = shutil.which(os.environ.get("CXX", "g++")) is not None
MIN_NUMEL = 1 << 17  # below, a call costs as much as the loop
MAX_NORM_CHANNELS = 256  # with longer rows PyTorch's LayerNorm is as fast


def pays(x: Tensor) -> bool:
    """Whether to run fragments on x: inference on the CPU with a compiler, a map that is not small."""
    return (
        HAS_COMPILER
        and x.device.type == "cpu"
        and not torch.is_grad_enabled()
        and x.dtype in (torch.float32, torch.bfloat16)
        and not is_emulated(x)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and x.numel() >= MIN_NUMEL
    )


class Fragment:
    """A function compiled once per key, at its first call; it runs as it is where compiling fails.

    Args:
        function: of tensors and numbers, without closure.
        dynamic: as of `torch.compile`.
    """

    def __init__(self, function: Callable[..., Any], *, dynamic: bool | None):
        self.function = function
        self.dynamic = dynamic
        self.compiled: dict[Hashable, Callable[..., Any]] = {}

    def __call__(self, key: Hashable, *args: Any) -> Any:
        """Args: key: what the code may depend on (channels, dtype), its own compilation for each; args: given on."""
        if key not in self.compiled:
            # A code object of its own: the compiler counts recompilations per code object, and gives up after eight.
            own = FunctionType(self.function.__code__.replace(), self.function.__globals__)
            self.compiled[key] = torch.compile(own, dynamic=self.dynamic)
        try:
            return self.compiled[key](*args)
        except TorchDynamoException:
            self.compiled[key] = self.function
            return self.function(*args)


def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, weight.shape, weight, bias, eps)


_LAYER_NORM = Fragment(_layer_norm, dynamic=True)  # in the number of rows: parameters have fixed shapes


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """LayerNorm over the last axis. Args: x: (..., C); weight, bias: (C,), parameters. Returns: as x."""
    rows = x.reshape(-1, x.shape[-1])
    return _LAYER_NORM((x.shape[-1], x.dtype, eps), rows, weight, bias, eps).view(x.shape)
