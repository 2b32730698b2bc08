"""What the kernels' cases share: where they run, how near they must come, and fences around memory.

These files are run by tests/test_triton_interpreter.py in a process of its own, as TRITON_INTERPRET must be set before
Triton is imported; on a machine with a GPU the same cases run compiled.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Largest error over the largest value: a few roundings of the result, and of a gradient that is kept in between.
TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}
FENCE = 4096


def random(seed: int, *shapes: Sequence[int], scale: float = 1.0) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(tuple(shape), generator=g, dtype=torch.float64) for shape in shapes]


def fenced(t: Tensor) -> Tensor:
    """A copy with NaN before and after it in memory: what is read there shows in the result."""
    buffer = torch.full((t.numel() + 2 * FENCE,), float("nan"), dtype=t.dtype, device=t.device)
    inner = buffer[FENCE:-FENCE].view(t.shape)
    inner.copy_(t)
    return inner


@contextmanager
def fenced_outputs() -> Iterator[None]:
    """Outputs of kernels get marks before and after them, checked at the end; they start as NaN, or 0 as asked for."""
    buffers: list[Tensor] = []

    def allocate(fill: float) -> Callable:
        def make(shape: Any, *, dtype: torch.dtype, device: Any) -> Tensor:
            count = torch.Size(shape).numel()
            buffer = torch.full((count + 2 * FENCE,), 7.0, dtype=dtype, device=device)
            buffers.append(buffer)
            inner = buffer[FENCE : FENCE + count].view(tuple(shape))
            return inner.fill_(fill)

        return make

    with mock.patch("torch.empty", allocate(float("nan"))), mock.patch("torch.zeros", allocate(0.0)):
        yield
    assert buffers, "no output was allocated by torch.empty or torch.zeros"
    for buffer in buffers:
        assert (buffer[:FENCE] == 7).all()
        assert (buffer[-FENCE:] == 7).all()


def agree(ours: Tensor, exact: Tensor, dtype: torch.dtype, what: str = "", slack: float = 1) -> None:
    """Near, and NaN at the same places."""
    ours, exact = ours.detach().cpu().double(), exact.detach()
    assert torch.equal(ours.isnan(), exact.isnan()), f"{what}: NaN at other places"
    error = (ours - exact).nan_to_num().abs().max() if exact.numel() else torch.zeros(())
    scale = exact.nan_to_num().abs().max() if exact.numel() else torch.ones(())
    assert error <= slack * TOLERANCE[dtype] * scale.clamp(min=1e-2), f"{what}: {error} of {scale}"


def check(
    operator: Callable, reference: Callable, inputs: Sequence[Tensor], dtypes: Any, seed: int = 0, slack: float = 1
) -> None:
    """Forward and gradients of every input, in fenced memory, against the reference in float64.

    Args:
        operator, reference: take the inputs.
        inputs: float64.
        dtypes: of the inputs, or of each.
        slack: factor on the tolerance, where the inputs lose digits themselves.
    """
    each = list(dtypes) if isinstance(dtypes, Sequence) else [dtypes] * len(inputs)
    rounded = [t.to(dtype) for t, dtype in zip(inputs, each, strict=True)]
    leaves = [fenced(t.to(DEVICE)).requires_grad_() for t in rounded]
    exact_leaves = [t.double().requires_grad_() for t in rounded]
    exact = reference(*exact_leaves)
    grad = random(seed + 1, exact.shape)[0].to(each[0])
    exact_grads = torch.autograd.grad(exact, exact_leaves, grad.double())
    with fenced_outputs():
        out = operator(*leaves)
        grads = torch.autograd.grad(out, leaves, fenced(grad.to(DEVICE)))
    assert out.dtype == each[0]
    agree(out, exact, each[0], "forward", slack)
    for i, (ours, theirs) in enumerate(zip(grads, exact_grads, strict=True)):
        assert ours.dtype == each[i]
        agree(ours, theirs, torch.bfloat16 if torch.bfloat16 in each else each[i], f"gradient {i}", slack)


def compiles_and_exports(function: Callable, inputs: Sequence[Tensor], operator: str) -> None:
    """One graph each, with our operator in it, and the same result."""
    inputs = [t.to(DEVICE, torch.float32) for t in inputs]
    leaves = [[t.clone().requires_grad_() for t in inputs] for _ in range(2)]
    results = []
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for run, args in zip((function, compiled), leaves):
        out = run(*args)
        results.append((out, *torch.autograd.grad(out.square().sum(), args)))
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)

    class Module(torch.nn.Module):
        def forward(self, *args: Tensor) -> Tensor:
            return function(*args)

    program = torch.export.export(Module(), tuple(inputs))
    assert f"litevit.{operator}" in program.graph_module.code
    torch.testing.assert_close(program.module()(*inputs), results[0][0].detach())
