"""Compiled fragments give what the layers give, and leave the layers alone where they cannot run."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import litevit
from litevit.layers.compiled_norm import CompiledLayerNorm
from litevit.layers.csa import ConvolutionalSelfAttention
from litevit.ops import csa_compiled, fragments

compiler = pytest.mark.skipif(not fragments.HAS_COMPILER, reason="no C++ compiler")


@pytest.fixture
def always(monkeypatch):
    """Fragments on small maps as well."""
    monkeypatch.setattr(fragments, "MIN_NUMEL", 0)
    monkeypatch.setattr(fragments, "HAS_COMPILER", True)


@compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_layer_norm(always, dtype):
    norm = nn.LayerNorm(40)
    norm.weight.normal_()
    norm.bias.normal_()
    norm.to(dtype)
    for shape in ((2, 5, 7, 40), (1, 40), (3, 40)):
        x = torch.randn(shape).to(dtype).mul_(3).add_(1)
        expected = F.layer_norm(x.double(), (40,), norm.weight.double(), norm.bias.double(), norm.eps)
        error = (fragments.layer_norm(x, norm.weight, norm.bias, norm.eps) - expected).abs().mean()
        assert error <= 1.1 * (norm(x) - expected).abs().mean() + 1e-7
    strided = torch.randn(2, 40, 9).to(dtype).transpose(1, 2)
    torch.testing.assert_close(fragments.layer_norm(strided, norm.weight, norm.bias, norm.eps), norm(strided))


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=[pytest.mark.slow, compiler])])
@torch.no_grad()
def test_csa_is_the_layer(monkeypatch, always, compiled):
    if not compiled:
        monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    for name, function in (("_WEIGHTS", csa_compiled._softmax), ("_MIX", csa_compiled._mix)):
        monkeypatch.setattr(csa_compiled, name, fragments.Fragment(function, dynamic=None))
    torch.manual_seed(0)
    csa = ConvolutionalSelfAttention(16, 2)
    csa.attn.weight.normal_()  # a softmax that is far from flat
    csa.attn.bias.normal_()
    csa.compiled = True
    for size in ((8, 8), (9, 8), (7, 13)) if compiled else ((8, 8), (9, 8), (8, 9), (7, 13), (1, 1), (1, 6), (5, 2)):
        x = torch.randn(2, *size, 16)
        torch.testing.assert_close(csa(x), csa.forward_whole(x), rtol=1e-5, atol=1e-5)
        strided = x.transpose(1, 2)
        torch.testing.assert_close(csa(strided), csa.forward_whole(strided), rtol=1e-5, atol=1e-5)
    assert len(csa_compiled._MIX.compiled) == 1  # it was this that ran


def _twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2 + 1


def test_without_a_compiler(monkeypatch):
    def broken(graph, inputs):
        raise RuntimeError("no compiler")

    compile_with = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **options: compile_with(f, backend=broken, **options))
    fragment = fragments.Fragment(_twice, dynamic=True)
    for _ in range(2):
        assert torch.equal(fragment("key", torch.ones(3)), torch.full((3,), 3.0))


def test_who_gets_fragments(always):
    x = torch.zeros(2, 4, 4, 8)
    assert not fragments.pays(x)  # gradients are on
    with torch.no_grad():
        assert fragments.pays(x)
        assert not fragments.pays(x.double())
        with torch.autocast("cpu", torch.bfloat16):
            assert not fragments.pays(x)


@torch.no_grad()
def test_only_optimised_models_compile(monkeypatch):
    model = litevit.create_model("lvt")
    fused = litevit.optimize_for_inference(model)
    for module, there in ((model, False), (fused, True)):
        assert any(isinstance(m, CompiledLayerNorm) for m in module.modules()) is there
        assert any(getattr(m, "compiled", False) for m in module.modules()) is there
    monkeypatch.setattr(fragments.Fragment, "__call__", lambda *args: pytest.fail("a small map was compiled for"))
    fused(torch.zeros(1, 3, 64, 64))
