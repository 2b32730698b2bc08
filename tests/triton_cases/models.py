"""Whole backbones with the operators in the place of the layers' own functions, and what the benchmark compares."""

from contextlib import ExitStack
from unittest import mock

import pytest
import torch
from families import backbone

from litevit.bench.layers import TRITON
from litevit.ops.triton.dilated import dilated_sum
from litevit.ops.triton.merging import deformable_sample
from triton_cases.harness import DEVICE

OPERATORS = {
    "lit": {"deformable_sample"},
    "litv2": {"deformable_sample"},
    "lvt": {"dilated_silu_sum"},
}
ALL = set().union(*OPERATORS.values())
INSTEAD = {
    "deformable_merging.deformable_sample": deformable_sample,
    "rasa.dilated_silu_sum": lambda x, weight, rates: dilated_sum(x, weight, list(rates)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATORS)
def test_the_same_function(name):
    torch.manual_seed(0)
    model = backbone(name, "none").to(DEVICE).eval()
    for key, parameter in model.named_parameters():
        if ".offset." in key:  # zero at first, where the gradient of an offset has a kink
            torch.nn.init.normal_(parameter, std=0.05)
    images = torch.randn(1, 3, 70, 45, device=DEVICE)
    results = []
    for replaced in ({}, INSTEAD):
        with ExitStack() as stack:
            for place, function in replaced.items():
                stack.enter_context(mock.patch(f"litevit.layers.{place}", function))
            profile = stack.enter_context(torch.profiler.profile())
            maps = model(images)
            gradients = torch.autograd.grad(sum(m.square().mean() for m in maps), list(model.parameters()))
        names = {op for op in ALL if any(op in event.name for event in profile.events())}
        assert names == (OPERATORS[name] if replaced else set())
        results.append([*maps, *gradients])
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, atol=1e-4 * max(1e-2, a.abs().max().item()), rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "make"), TRITON, ids=[name for name, _ in TRITON])
def test_the_benchmark_compares_the_same_function(name, make):
    (_, plain, inputs), (_, triton, same) = make(1, torch.float32, torch.device(DEVICE))
    assert all(a is b for a, b in zip(inputs, same))
    torch.testing.assert_close(triton(*inputs), plain(*inputs), atol=1e-4, rtol=1e-4)
