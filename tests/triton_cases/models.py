"""Whole backbones under the switch: the same maps and gradients as with PyTorch's kernels alone."""

import pytest
import torch
from families import backbone

from litevit.ops import kernels
from triton_cases.harness import DEVICE

OPERATORS = {
    "lit": {"deformable_sample"},
    "litv2": {"deformable_sample", "window_attention"},
    "litv2_ws4": {"deformable_sample", "window_attention"},
    "lvt": {"csa_mix", "dilated_silu_sum"},
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
    for choice in kernels.KERNELS:
        with kernels.use(choice), torch.profiler.profile() as profile:
            maps = model(images)
            gradients = torch.autograd.grad(sum(m.square().mean() for m in maps), list(model.parameters()))
        names = {op for op in OPERATORS[name] if any(op in event.name for event in profile.events())}
        assert names == (OPERATORS[name] if choice == "triton" else set())
        results.append([*maps, *gradients])
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, atol=1e-4 * max(1e-2, a.abs().max().item()), rtol=1e-3)
