"""Products by the library that the processor is fast in: the same values, and left alone where they must be."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from litevit.ops import linear as ops

onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch was built without oneDNN")


@pytest.fixture(params=[False, pytest.param(True, marks=onednn)], ids=["aten", "onednn"])
def library(request, monkeypatch):
    """Both libraries, whichever this processor would take."""
    monkeypatch.setattr(ops, "ONEDNN_PRODUCTS", request.param)


@pytest.mark.parametrize("then", ["", "gelu", "silu"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(64, 24), (2, 7, 9, 24), (3, 24), (0, 24)])
@torch.no_grad()
def test_product(library, shape, bias, then):
    x, weight, shift = torch.randn(shape), torch.randn(40, 24), torch.randn(40) if bias else None
    expected = F.linear(x.double(), weight.double(), None if shift is None else shift.double())
    expected = getattr(F, then)(expected) if then else expected
    act = {then: True} if then else {}
    torch.testing.assert_close(ops.product(x, weight, shift, **act), expected.float(), rtol=1e-5, atol=1e-5)
    strided = x.new_zeros(*shape[:-1], 48)[..., 7:31].copy_(x)
    torch.testing.assert_close(ops.product(strided, weight, shift, **act), expected.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_depthwise_convolution_and_gelu(library, dtype):
    conv = nn.Conv2d(16, 16, 3, padding=1, groups=16)
    x = torch.randn(2, 9, 7, 16).permute(0, 3, 1, 2)
    expected = F.gelu(conv(x))
    out = ops.conv2d(conv.to(dtype), x.to(dtype), gelu=True)
    assert out.dtype == dtype
    assert out.stride(1) == 1  # BHWC memory stays BHWC
    tolerance = 1e-6 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(out.float(), expected, rtol=tolerance, atol=tolerance)


@onednn
def test_who_keeps_atens_product(monkeypatch):
    monkeypatch.setattr(ops, "ONEDNN_PRODUCTS", True)
    x, weight = torch.randn(64, 8), torch.randn(8, 8)
    assert not ops.prefers_onednn(x, weight)  # a gradient may be wanted
    with torch.no_grad():
        assert ops.prefers_onednn(x, weight)
        assert not ops.prefers_onednn(x.double(), weight.double())
        assert not ops.prefers_onednn(x.bfloat16(), weight)
        with torch.autocast("cpu", torch.bfloat16):
            assert not ops.prefers_onednn(x, weight)
            assert ops.linear(nn.Linear(8, 8), x).dtype == torch.bfloat16
        with torch.backends.mkldnn.flags(enabled=False):
            assert not ops.prefers_onednn(x, weight)


@onednn
@torch.no_grad()
def test_hooks_wrong_widths_and_flops(monkeypatch):
    monkeypatch.setattr(ops, "ONEDNN_PRODUCTS", True)
    layer, x = nn.Linear(8, 16), torch.randn(64, 8)
    with FlopCounterMode(display=False) as counter:
        ops.linear(layer, x)
    assert counter.get_total_flops() == 2 * 64 * 8 * 16
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        ops.linear(layer, torch.randn(64, 9))
    seen = []
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    ops.linear(layer, x)
    assert len(seen) == 1


@onednn
@torch.no_grad()
def test_packed_weights_follow_the_weight(monkeypatch):
    monkeypatch.setattr(ops, "ONEDNN_PRODUCTS", True)
    layer, x = nn.Linear(24, 40).requires_grad_(False), torch.randn(64, 24)
    ops.pack_when_used(layer.weight)
    for factor in (1, 2, -3):
        layer.weight.mul_(factor)
        expected = F.linear(x, layer.weight, layer.bias)
        torch.testing.assert_close(ops.linear(layer, x), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ops.linear(layer, x[:40]), expected[:40], rtol=1e-5, atol=1e-5)
    layer.bfloat16()
    assert ops.linear(layer, x.bfloat16()).dtype == torch.bfloat16
    torch.testing.assert_close(ops.linear(layer, x.bfloat16()).float(), expected, rtol=5e-2, atol=5e-2 * 10)
    before = len(ops._PACKED)
    del layer
    assert len(ops._PACKED) == before - 1  # the copy goes with the weight


def gradients(x, weight, shift, factor, **options):
    leaves = [t for t in (x, weight, shift) if t is not None]
    return torch.autograd.grad((ops.product(x, weight, shift) * factor).sum(), leaves, **options)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("features", [(24, 40), (40, 24)])
@pytest.mark.parametrize("shape", [(64,), (2, 7, 9), (3,), (0,)])
def test_gradients(library, shape, features, bias):
    x, weight = torch.randn(*shape, features[0]), torch.randn(features[1], features[0])
    shift = torch.randn(features[1]) if bias else None
    factor = torch.randn(*shape, features[1])
    leaves = [None if t is None else t.requires_grad_() for t in (x, weight, shift)]
    doubles = [None if t is None else t.detach().double().requires_grad_() for t in leaves]
    for found, expected in zip(gradients(*leaves, factor), gradients(*doubles, factor.double()), strict=True):
        torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-4)
    for found, expected in zip(gradients(*leaves, 1.0), gradients(*doubles, 1.0), strict=True):  # an expanded gradient
        torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-4)


def test_only_the_gradients_that_are_wanted(library):
    x, weight, shift = torch.randn(64, 8), torch.randn(5, 8), torch.randn(5, requires_grad=True)
    out = ops.product(x, weight, shift)
    out.sum().backward()
    assert shift.grad is not None
    assert torch.equal(shift.grad, torch.full((5,), 64.0))
    assert x.grad is None
    assert weight.grad is None
    assert not ops.product(x, weight, None).requires_grad


def test_second_derivatives(library):
    x, weight = torch.randn(64, 8, requires_grad=True), torch.randn(5, 8, requires_grad=True)
    (first,) = torch.autograd.grad(ops.product(x, weight, None).pow(2).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.pow(2).sum(), weight)
    (expected,) = torch.autograd.grad((2 * x @ weight.t() @ weight).pow(2).sum(), weight)
    torch.testing.assert_close(second, expected, rtol=1e-4, atol=1e-3)


def test_function_transforms(library):
    x, weight = torch.randn(4, 64, 8), torch.randn(5, 8)

    def loss(weight, x):
        return ops.product(x, weight, None).sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weight, x)
    torch.testing.assert_close(each, x.sum(1, keepdim=True).expand(4, 5, 8))


@onednn
def test_training_takes_onednn(monkeypatch):
    monkeypatch.setattr(ops, "ONEDNN_PRODUCTS", True)
    x, weight = torch.randn(64, 8), nn.Parameter(torch.randn(8, 8))
    out = ops.product(x, weight, None)
    assert out.grad_fn is not None
    assert "OneDNNLinear" in out.grad_fn.name()
    with FlopCounterMode(display=False) as counter:
        ops.product(x.requires_grad_(), weight, None).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 64 * 8 * 8
    assert not ops.trains_on_onednn(x.double(), weight.double())
    assert not ops.trains_on_onednn(x.bfloat16(), weight.bfloat16())
    with torch.no_grad():
        assert not ops.trains_on_onednn(x, weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert not ops.trains_on_onednn(x, weight)
