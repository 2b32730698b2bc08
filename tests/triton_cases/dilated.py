"""The dilated sum's kernels against PyTorch's convolutions in float64."""

from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from litevit.layers.rasa import RecursiveAtrousSelfAttention
from litevit.ops.triton import dilated
from litevit.ops.triton.dilated import dilated_sum, dilated_sum_backward
from triton_cases.harness import DEVICE, DTYPES, check, compiles_and_exports, random


def total(x: Tensor, weight: Tensor, rates: list[int]) -> Tensor:
    planes = x.permute(0, 3, 1, 2)
    maps = [F.silu(F.conv2d(planes, weight, padding=r, dilation=r, groups=weight.shape[0])) for r in rates]
    return torch.stack(maps).sum(0).permute(0, 2, 3, 1)


def operators(*rates: int) -> list:
    return [lambda x, w: dilated_sum(x, w, rates), lambda x, w: total(x, w, list(rates))]


def inputs(seed: int, B: int, H: int, W: int, C: int) -> list[Tensor]:
    return random(seed, (B, H, W, C), (C, 1, 3, 3), scale=0.7)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "rates"), [((2, 7, 5, 6), (1, 3, 5)), ((1, 1, 9, 33), (2,)), ((1, 3, 2, 1), (1, 7))])
def test_against_float64(shape, rates, dtype):
    check(*operators(*rates), inputs(0, *shape), dtype)


def test_float64_and_mixed_dtypes():
    check(*operators(1, 3), inputs(1, 1, 3, 4, 2), torch.float64)
    check(*operators(1), inputs(2, 1, 3, 4, 2), [torch.bfloat16, torch.float32])


def test_several_tiles_a_program(monkeypatch):
    """More tiles than programs in the sum of the weight's gradient."""
    monkeypatch.setattr(dilated, "_MAX_PARTS", 2)
    monkeypatch.setattr(dilated, "rows_and_channels", lambda C: (8, 4))
    check(*operators(1, 2), inputs(3, 1, 5, 7, 6), torch.float32)


def test_large_and_nan_values():
    x, weight = inputs(4, 1, 4, 5, 3)
    x[0, 1] *= 300  # exp(-z) overflows
    x[0, 3, 4, 1] = float("nan")
    check(*operators(1, 2), [x, weight], torch.float32)


def test_registration():
    x, weight = (t.to(DEVICE).requires_grad_() for t in inputs(5, 1, 3, 2, 2))
    torch.library.opcheck(dilated_sum, (x, weight, [1, 2]))
    g = torch.ones_like(x).detach()
    torch.library.opcheck(dilated_sum_backward, (g, x.detach(), weight.detach(), [1, 2]))
    assert torch.autograd.gradcheck(lambda a, b: dilated_sum(a, b, [1, 2]), (x, weight), fast_mode=True)


def ours(x: Tensor, weight: Tensor) -> Tensor:
    return dilated_sum(x, weight, [1, 2])


def test_compile_and_export():
    compiles_and_exports(ours, inputs(6, 1, 3, 4, 2), "dilated_silu_sum")


def test_in_the_place_of_the_layers_own():
    torch.manual_seed(0)
    layer = RecursiveAtrousSelfAttention(4, 2, sr_ratio=2).to(DEVICE)
    x = torch.randn(1, 5, 4, 4, device=DEVICE)
    exact = layer(x)

    def dilated(x, weight, rates):
        return dilated_sum(x, weight, list(rates))

    with mock.patch("litevit.layers.rasa.dilated_silu_sum", dilated), torch.profiler.profile() as profile:
        out = layer(x)
    assert any("dilated_silu_sum" in event.name for event in profile.events())
    torch.testing.assert_close(out, exact, atol=1e-5, rtol=1e-4)


def test_empty_batch():
    x, weight = torch.zeros(0, 4, 4, 2, device=DEVICE), torch.ones(2, 1, 3, 3, device=DEVICE, requires_grad=True)
    assert (torch.autograd.grad(dilated_sum(x, weight, [1]).sum(), weight)[0] == 0).all()


def test_inputs_that_do_not_match():
    """Without a word the kernels would read outside of the weight or of the gradient."""
    x, weight = torch.zeros(2, 4, 4, 6, device=DEVICE), torch.zeros(6, 1, 3, 3, device=DEVICE)
    wrong = [(x[0], weight, [1]), (x, weight[:5], [1]), (x, weight[..., :2], [1]), (x, weight.long(), [1])]
    for a, b, rates in wrong:
        with pytest.raises(ValueError, match=r"x (must be|and weight must be)"):
            dilated_sum(a, b, rates)
        with pytest.raises(ValueError, match=r"x (must be|and weight must be)"):
            dilated_sum_backward(a, a, b, rates)
    for rates in ([], [1, 0]):
        with pytest.raises(ValueError, match="dilations >= 1"):
            dilated_sum(x, weight, rates)
    with pytest.raises(ValueError, match=r"grad must be \(2, 4, 4, 6\)"):
        dilated_sum_backward(x[:1], x, weight, [1])
    if DEVICE == "cuda":
        with pytest.raises(ValueError, match="on one device"):
            dilated_sum(x, weight.cpu(), [1])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_random_shapes(seed):
    g = torch.Generator().manual_seed(seed)
    B, H, W, C = (int(torch.randint(low, high, (), generator=g)) for low, high in ((1, 3), (1, 12), (1, 12), (1, 70)))
    rates = torch.randint(1, 6, (int(torch.randint(1, 4, (), generator=g)),), generator=g).tolist()
    check(*operators(*rates), inputs(seed, B, H, W, C), DTYPES[seed % 3], seed)
