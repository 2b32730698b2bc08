"""CSA in strips gives what the layer gives whole: odd sizes, one and many strips, lower precision, compiled."""

import pytest
import torch

from litevit.layers.csa import ConvolutionalSelfAttention
from litevit.ops import csa_strips


def layer() -> ConvolutionalSelfAttention:
    torch.manual_seed(0)
    csa = ConvolutionalSelfAttention(16, 2)
    with torch.no_grad():
        csa.attn.weight.normal_()  # a softmax that is far from flat
        csa.attn.bias.normal_()
        csa.proj.bias.normal_()
    return csa


def whole(csa: ConvolutionalSelfAttention, x: torch.Tensor) -> torch.Tensor:
    with torch.enable_grad():  # strips are for inference
        return csa(x).detach()


@pytest.mark.parametrize("strip_bytes", [1 << 22, 1])
@pytest.mark.parametrize("size", [(8, 8), (9, 8), (8, 9), (7, 13), (1, 1), (1, 6), (5, 2)])
@torch.no_grad()
def test_strips_are_the_layer(monkeypatch, size, strip_bytes):
    monkeypatch.setattr(csa_strips, "STRIP_BYTES", strip_bytes)
    csa, x = layer(), torch.randn(2, *size, 16)
    assert csa_strips.pays(x, csa.attn, csa.proj)
    torch.testing.assert_close(csa(x), whole(csa, x), rtol=1e-5, atol=1e-5)
    strided = x.transpose(1, 2)
    torch.testing.assert_close(csa(strided), whole(csa, strided), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_lower_precision(dtype):
    csa, x = layer(), torch.randn(2, 9, 10, 16)
    expected = csa(x)
    out = csa.to(dtype)(x.to(dtype))
    assert out.dtype == dtype
    scale = expected.abs().max().item()
    torch.testing.assert_close(out.float(), expected, rtol=0, atol=(2e-2 if dtype == torch.bfloat16 else 3e-3) * scale)


@torch.no_grad()
def test_a_pixel_reaches_its_windows_only():
    csa, x = layer(), torch.randn(1, 8, 8, 16)
    before = csa(x)
    x[0, 3, 3] = float("nan")
    assert csa(x).isnan().any(-1)[0].nonzero().amin(0).tolist() == [1, 1]
    changed = csa(x).isnan().any(-1)[0]
    assert changed[:6, :6].any()
    assert not changed[6:].any()
    assert not changed[:, 6:].any()
    assert torch.equal(csa(x)[0, 6:], before[0, 6:])


def test_who_does_not_get_strips():
    csa, x = layer(), torch.zeros(1, 4, 4, 16)
    parts = csa.attn, csa.proj
    assert not csa_strips.pays(x, *parts)  # gradients are on
    with torch.no_grad():
        assert not csa_strips.pays(x.double(), *parts)
        assert not csa_strips.pays(x.bfloat16(), *parts)  # not the dtype of the weights
        with torch.autocast("cpu", torch.bfloat16):
            assert not csa_strips.pays(x, *parts)
        handle = csa.attn.register_forward_hook(lambda module, inputs, output: None)
        assert not csa_strips.pays(x, *parts)
        handle.remove()
        assert csa_strips.pays(x, *parts)


@torch.no_grad()
def test_compiled_takes_it_whole():
    torch._dynamo.reset()
    csa = layer()
    compiled = torch.compile(csa, backend="aot_eager", fullgraph=True, dynamic=True)
    for size in ((8, 10), (9, 7)):
        x = torch.randn(2, *size, 16)
        torch.testing.assert_close(compiled(x), csa(x))
