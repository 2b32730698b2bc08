"""A linear layer whose three products, forward and backward, run by oneDNN: training in float32 on the CPU.

Shapes: L rows, K input and N output features.
"""

from typing import Any

import torch
from torch import Tensor


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., K) @ weight.T (K, N) + bias."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


class OneDNNLinear(torch.autograd.Function):
    """x (..., K), weight (N, K), bias (N,) or None -> (..., N). All float32 on the CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        g = gradients[0]
        rows = g.reshape(-1, g.shape[-1])
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        x_gradient = weight_gradient = None
        if torch.is_grad_enabled():  # create_graph=True: operators that can be differentiated again
            x_gradient = g @ weight if wants_x else None
            weight_gradient = rows.t() @ x.reshape(-1, x.shape[-1]) if wants_weight else None
        else:
            rows = rows.contiguous()
            if wants_x:
                x_gradient = _product(rows, weight.t()).view(x.shape)
            if wants_weight:
                x_rows = x.reshape(-1, x.shape[-1])
                # oneDNN reorders its first operand: let that be the smaller one.
                if x_rows.shape[1] < rows.shape[1]:
                    weight_gradient = _product(x_rows.t(), rows.t()).t()
                else:
                    weight_gradient = _product(rows.t(), x_rows.t())
        return x_gradient, weight_gradient, rows.sum(0) if wants_bias else None
