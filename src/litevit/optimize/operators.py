"""CPU kernels as PyTorch operators: who calls one, and what others see of it.

Every kernel is a `litevit::cpu_...` operator with a reference, a plain function of the same result. The kernel runs
on a CPU; fake tensors see the reference's shapes; vmap calls the kernel sample by sample; FLOP counters count what it
stands for; the profiler shows its name. Twins call an operator only where `takes` says so, and run their plain layer
otherwise.
"""

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.flop_counter import register_flop_formula

from litevit.optimize.processor import multiplies_bfloat16

LIBRARY = torch.library.Library("litevit", "FRAGMENT")


def takes(x: Tensor, *others: Tensor | None) -> bool:
    """Whether a kernel may serve these tensors: eager inference on a CPU, of one dtype that the processor multiplies.

    The one place that decides while a model runs. Otherwise the plain layer runs: gradients, also forward ones,
    autocast (which casts between operators), a compiler or tracer (which has plans of its own), subclasses such as
    quantised or sharded tensors, another device.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.is_autocast_enabled("cpu"):
        return False
    if x.dtype is not torch.float32 and not (x.dtype is torch.bfloat16 and multiplies_bfloat16()):
        return False
    learns = torch.is_grad_enabled()
    for t in (x, *others):
        if t is None:
            continue
        if type(t) not in (Tensor, nn.Parameter) or t.dtype is not x.dtype or t.device.type != "cpu":
            return False
        if (learns and t.requires_grad) or t.numel() == 0 or t.is_neg():
            return False
        if forward_ad.unpack_dual(t).tangent is not None:  # a kernel would drop it without a word
            return False
    return True


def is_watched(module: nn.Module) -> bool:
    """Whether somebody wants to know of, or changes, the calls of a module."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
    )


HAS_TRITON = importlib.util.find_spec("triton") is not None


def takes_triton(x: Tensor, *others: Tensor) -> bool:
    """Whether a Triton operator may serve these tensors: plain ones on CUDA, not in a program to be exported."""
    plain = all(type(t) in (Tensor, nn.Parameter) for t in (x, *others))
    return HAS_TRITON and x.is_cuda and plain and not torch.compiler.is_exporting()


def operator(
    schema: str, *, kernel: Callable, reference: Callable, flops: Callable[..., int] | None = None
) -> Callable[..., Any]:
    """Registers a kernel under `litevit::` and returns the operator.

    Args:
        schema: "name(Tensor x, ...) -> Tensor", as `torch.library` wants it.
        kernel: runs on dense CPU tensors; what it returns is new and contiguous.
        reference: the same function of PyTorch's operators; its result may be a view.
        flops: from the shapes of the arguments to floating-point operations.
    """
    name = "litevit::" + schema[: schema.index("(")]
    LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    LIBRARY.impl(name, kernel, "CPU")
    made: Any = getattr(torch.ops.litevit, name.removeprefix("litevit::"))

    def fake(*args: Any) -> Any:
        out = reference(*args)
        if isinstance(out, Tensor):
            return out.new_empty(out.shape)
        return tuple(t.new_empty(t.shape) for t in out)

    def batched(info: Any, in_dims: Sequence[int | None], *args: Any) -> tuple[Any, Any]:
        samples = [
            made(*(a.select(dim, i) if isinstance(dim, int) else a for a, dim in zip(args, in_dims)))
            for i in range(info.batch_size)
        ]
        if isinstance(samples[0], Tensor):
            return torch.stack(samples), 0
        return tuple(torch.stack(parts) for parts in zip(*samples)), (0,) * len(samples[0])

    torch.library.register_fake(name, fake, lib=LIBRARY)
    torch.library.register_vmap(name, batched, lib=LIBRARY)
    if flops is not None:
        register_flop_formula(made)(lambda *args, out_shape=None, **kwargs: flops(*args))
    return made


def sum_of_products(x: Sequence[int], *weights: Sequence[int]) -> int:
    """FLOPs of products one after the other: x of shape (..., C) through matrices (O, C)."""
    rows = 1
    for side in x[:-1]:
        rows *= side
    return sum(2 * rows * w[0] * w[1] for w in weights)
