"""Feed-forward networks in pieces give what they give whole."""

import copy

import pytest
import torch
from torch import nn

from litevit.layers.conv_ffn import ConvFFN
from litevit.layers.mlp import MLP
from litevit.ops import blocked_ffn
from litevit.ops import linear as ops_linear
from litevit.ops.linear import CPU_UNITS, is_emulated, linear


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocked_ffn, "MIN_BYTES", {"mlp": 0, "conv_ffn": 0})


def whole(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.enable_grad():  # the pieces are for inference
        return layer(x).detach()


# Bytes of a piece that make: all images at once, one image a piece, and rows of an image (17 = 5 + 5 + 5 + 2).
@pytest.mark.parametrize("block_bytes", [1 << 20, 4 * 17 * 5 * 32, 4 * 5 * 32 * 5, 1])
def test_conv_ffn_in_pieces(monkeypatch, block_bytes):
    monkeypatch.setattr(blocked_ffn, "BLOCK_BYTES", block_bytes)
    layer, x = ConvFFN(8, 32), torch.randn(3, 17, 5, 8)
    with torch.no_grad():
        assert blocked_ffn.pays(x, 32, layer.fc1, layer.dwconv, layer.fc2)
        torch.testing.assert_close(layer(x), whole(layer, x))
        strided = x.transpose(1, 2)
        torch.testing.assert_close(layer(strided), whole(layer, strided))


@pytest.mark.parametrize("shape", [(3, 7, 5, 8), (2, 101, 8), (300, 8)])
def test_mlp_in_pieces(monkeypatch, shape):
    monkeypatch.setattr(blocked_ffn, "BLOCK_BYTES", 1)  # 64 tokens a piece
    layer, x = MLP(8, 32), torch.randn(shape)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), whole(layer, x))


@pytest.mark.parametrize("pieces", [True, False])
@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("block_bytes", [1 << 20, 1])
def test_residual(monkeypatch, block_bytes, onednn, pieces):
    if onednn and not torch.backends.mkldnn.is_available():
        pytest.skip("PyTorch was built without oneDNN")
    monkeypatch.setattr(ops_linear, "ONEDNN_PRODUCTS", onednn)
    monkeypatch.setattr(blocked_ffn, "BLOCK_BYTES", block_bytes)
    if not pieces:
        monkeypatch.setattr(blocked_ffn, "pays", lambda *arguments: False)
    for layer in (MLP(8, 32), ConvFFN(8, 32)):
        x, residual = torch.randn(3, 17, 5, 8), torch.randn(3, 5, 17, 8).transpose(1, 2)
        expected, kept = whole(layer, x) + residual, residual.clone()
        with torch.no_grad():
            torch.testing.assert_close(layer(x, residual=residual), expected)
            torch.testing.assert_close(
                layer.bfloat16()(x.bfloat16(), residual.bfloat16()).float(), expected, atol=0.05, rtol=0.05
            )
        assert torch.equal(residual, kept)
        layer.float()
        torch.testing.assert_close(layer(x, residual=residual).detach(), expected, atol=0.02, rtol=0.02)


def test_who_does_not_get_pieces():
    layer, x = ConvFFN(8, 32), torch.zeros(1, 4, 4, 8)
    parts = layer.fc1, layer.dwconv, layer.fc2
    assert not blocked_ffn.pays(x, 32, *parts)  # gradients are on
    with torch.no_grad():
        assert not blocked_ffn.pays(x.bfloat16(), 32, *parts)  # not the dtype of the weights
        seen = []
        handle = layer.fc1.register_forward_hook(lambda module, inputs, output: seen.append(output))
        layer(x)
        assert seen, "a hook on fc1 must be called"
        handle.remove()
        assert blocked_ffn.pays(x, 32, *parts)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision_is_near_float32(dtype):
    layer, x = ConvFFN(16, 64), torch.randn(2, 6, 6, 16)
    low = copy.deepcopy(layer).to(dtype)
    exact = whole(layer, x)
    for context in (torch.no_grad(), torch.enable_grad()):
        with context:
            out = low(x.to(dtype))
        assert out.dtype == dtype
        assert (out.float() - exact).abs().max() / exact.std() < 0.05


def test_products_without_units_are_widened(monkeypatch):
    monkeypatch.setitem(CPU_UNITS, torch.bfloat16, False)
    layer = nn.Linear(64, 32).bfloat16()
    x = torch.randn(4, 64).bfloat16().requires_grad_()
    assert is_emulated(x)
    out = linear(layer, x)
    wide = nn.functional.linear(x.double(), layer.weight.double(), layer.bias.double())
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, wide.bfloat16(), rtol=0.01, atol=0.01)
    out.float().sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.bfloat16


def test_operators_are_registered_well():
    x, w1, b1, w2, b2 = torch.randn(2, 3, 3, 4), torch.randn(8, 4), torch.randn(8), torch.randn(4, 8), torch.randn(4)
    kernel, shift = torch.randn(8, 1, 3, 3), torch.randn(8)
    checks = ("test_schema", "test_faketensor")  # no autograd: they run in inference only
    for residual in (None, torch.randn_like(x)):
        torch.library.opcheck(torch.ops.litevit.mlp.default, (x, w1, b1, w2, b2, residual), test_utils=checks)
        arguments = (x, w1, b1, kernel, shift, w2, b2, residual)
        torch.library.opcheck(torch.ops.litevit.conv_ffn.default, arguments, test_utils=checks)
