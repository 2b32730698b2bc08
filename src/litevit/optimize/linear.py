"""Products by oneDNN: linear layers in inference, and in float32 training, on CPUs with AVX-512.

`F.linear` in float32 goes to MKL on a CPU. On AMD's processors with AVX-512 oneDNN's products are faster, and an
activation or an addition costs less inside the product than after it. Shapes: L rows, C_in and C_out channels.
"""

import ctypes
import os
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from litevit.optimize.operators import LIBRARY, operator, sum_of_products, takes
from litevit.optimize.processor import prefers_onednn

MIN_ROWS = 32  # with fewer rows a call costs more than the product saves
PACK_ROWS = 1024  # with fewer rows oneDNN's order of the weight wins nothing
KEPT_BYTES = 3 << 20  # beyond, looking whether a weight is still the same costs what its order wins
_NAMES = {"none": "none", "gelu": "gelu", "silu": "swish"}
_same_bytes = ctypes.CDLL(None).memcmp if os.name == "posix" else None


class _Kept(NamedTuple):
    source: Tensor  # a copy of the weight that was packed
    made: Tensor


_KEPT: WeakIdKeyDictionary = WeakIdKeyDictionary()  # a weight -> _Kept; goes with the weight


def packed(weight: Tensor, rows: int) -> Tensor:
    """The weight as a product of so many rows wants it: in oneDNN's order where that pays, with many rows.

    A parameter's order is kept beside a copy of the weight it was made from, and every call compares all their bytes:
    whatever wrote to the weight, also through `.data`, is seen. Measured on a Xeon with AVX-512 (Emerald Rapids): a
    product is 4 to 8 % faster, comparing costs 0.1 to 1.5 % of it. Another tensor, such as a weight in training, which
    is new at every step, is brought into order for this call alone, where the product widens, in float32.
    """
    if rows < PACK_ROWS or not prefers_onednn() or not weight.is_contiguous():
        return weight
    reorder = torch.ops.mkldnn._reorder_linear_weight
    if type(weight) is not nn.Parameter:
        pays = weight.shape[0] >= 2 * weight.shape[1] and weight.dtype == torch.float32
        return reorder(weight.detach(), None) if pays else weight
    if _same_bytes is None or weight.nbytes > KEPT_BYTES:
        return weight
    kept = _KEPT.get(weight)
    if kept is None or kept.source.dtype != weight.dtype or not _same(kept.source, weight):
        source = weight.detach().clone()
        kept = _KEPT[weight] = _Kept(source, reorder(source, None))
    return kept.made


def _same(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    sizes = ctypes.c_void_p(a.data_ptr()), ctypes.c_void_p(b.data_ptr()), ctypes.c_size_t(a.nbytes)
    return _same_bytes is not None and _same_bytes(*sizes) == 0


def product(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    """activation(x @ weight.T + bias). Args: x: (..., C_in); weight: `packed` or not. Returns: (..., C_out)."""
    if not prefers_onednn() or x.device.type != "cpu" or x.numel() < MIN_ROWS * x.shape[-1]:
        return _activated(F.linear(x, weight, bias), activation)
    form = "none" if activation == "gelu" else ""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, _NAMES[activation], [], form)


def add_product(x: Tensor, weight: Tensor, bias: Tensor | None, added: Tensor) -> Tensor:
    """added + x @ weight.T + bias. Args: as `product`; added: (..., C_out)."""
    if not prefers_onednn() or x.numel() < MIN_ROWS * x.shape[-1]:
        return added + F.linear(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise.binary(x, added.contiguous(), weight, bias, "add")


def _activated(x: Tensor, activation: str) -> Tensor:
    return F.gelu(x) if activation == "gelu" else F.silu(x) if activation == "silu" else x


def _reference(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    return _activated(F.linear(x, weight, bias), activation)


def _kernel(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    rows = x.numel() // x.shape[-1]
    weight = packed(weight, rows) if rows >= MIN_ROWS else weight
    return product(x, weight, bias, activation).contiguous()


cpu_linear = operator(
    "cpu_linear(Tensor x, Tensor weight, Tensor? bias, str activation) -> Tensor",
    kernel=_kernel,
    reference=_reference,
    flops=lambda x, weight, bias, activation: sum_of_products(x, weight),
)


class OneDNNLinear(nn.Linear):
    """Linear by oneDNN, with the activation that follows it; replaces nn.Linear in inference. Exact to rounding."""

    def forward(self, x: Tensor, activation: str = "none") -> Tensor:
        """Args: x: (..., C_in); activation: "none", "gelu" or "silu". Returns: (..., C_out)."""
        if not takes(x, self.weight, self.bias) or x.shape[-1] != self.in_features:
            return _activated(super().forward(x), activation)
        return cpu_linear(x, self.weight, self.bias, activation)


# ------------------------------------------------------------ training


class _Product(torch.autograd.Function):
    """x (..., K), weight (N, K), bias (N,) or None -> (..., N): the three products of a linear layer by oneDNN."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # type: ignore[override]
        return cpu_linear(x, weight.detach(), bias, "none")  # no parameter: it is not kept packed

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, weight, bias, *_ = inputs
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad, needs = gradients[0], ctx.needs_input_grad
        rows, x_rows = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        grad_x = _Product.apply(grad, weight.t(), None) if needs[0] else None
        grad_weight = None
        if needs[1] and x_rows.shape[1] < rows.shape[1]:  # oneDNN reorders its first operand: let it be the smaller
            grad_weight = _Product.apply(x_rows.t(), rows.t(), None).t()  # type: ignore[attr-defined]
        elif needs[1]:
            grad_weight = _Product.apply(rows.t(), x_rows.t(), None)
        grad_bias = rows.sum(0) if ctx.has_bias and needs[2] else None
        return grad_x, grad_weight, grad_bias


def _setup(ctx: Any, inputs: tuple, output: Tensor) -> None:
    if inputs[3] != "none":
        raise RuntimeError("litevit::cpu_linear learns without an activation alone: activation='none'")
    _Product.setup_context(ctx, inputs, output)


torch.library.register_autograd(
    "litevit::cpu_linear",
    lambda ctx, grad: (*_Product.backward(ctx, grad), None),
    setup_context=_setup,
    lib=LIBRARY,
)


def trained_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias with its gradients, by oneDNN where it may: float32 on a CPU. Args: x: (..., C_in)."""
    plain = type(x) is Tensor and type(weight) in (Tensor, nn.Parameter) and x.dtype == weight.dtype == torch.float32
    serves = (
        plain
        and prefers_onednn()
        and x.device.type == weight.device.type == "cpu"
        and x.shape[-1] == weight.shape[1]
        and x.numel() >= MIN_ROWS * x.shape[-1]
        and not (torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.is_autocast_enabled("cpu"))
    )
    return _Product.apply(x, weight, bias) if serves else F.linear(x, weight, bias)  # type: ignore[return-value]


class TrainedLinear(nn.Linear):
    """Linear whose products, forward and backward, run by oneDNN; replaces nn.Linear in float32 training."""

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (..., C_in). Returns: (..., C_out)."""
        return trained_product(x, self.weight, self.bias)
