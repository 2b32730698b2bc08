"""The loss in strips is the plain one: interpolate, then cross-entropy."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from litevit.ops import resized_cross_entropy as module
from litevit.ops.resized_cross_entropy import resized_cross_entropy


def plain(logits: Tensor, masks: Tensor) -> Tensor:
    logits = F.interpolate(logits, size=masks.shape[-2:], mode="bilinear", align_corners=False)
    return F.cross_entropy(logits, masks, ignore_index=255, reduction="sum")


def case(B: int, K: int, h: int, w: int, H: int, W: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    masks = torch.randint(0, K, (B, H, W))
    masks[:, : H // 3, : W // 2] = 255
    return torch.randn(B, K, h, w, dtype=dtype, requires_grad=True), masks


SIZES = [
    (2, 5, 8, 8, 32, 32),
    (1, 3, 7, 9, 50, 41),
    (3, 2, 1, 1, 5, 6),
    (2, 4, 6, 5, 7, 6),
    (1, 4, 8, 8, 8, 8),  # nothing to resize
    (1, 4, 8, 8, 5, 20),  # masks smaller than the logits
]


@pytest.mark.parametrize("strip", [1, 100, 2**18])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_loss_and_gradient(sizes, strip, monkeypatch):
    monkeypatch.setitem(module.STRIP_ELEMENTS, "cpu", strip)
    logits, masks = case(*sizes)
    loss, expected = resized_cross_entropy(logits, masks, ignore_index=255), plain(logits, masks)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    (gradient,), (reference,) = torch.autograd.grad(3 * loss, logits), torch.autograd.grad(3 * expected, logits)
    assert torch.allclose(gradient, reference, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        assert float(resized_cross_entropy(logits, masks, ignore_index=255)) == pytest.approx(
            float(loss.detach()), rel=1e-12
        )


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_float32_in_either_memory_format(memory_format):
    logits, masks = case(2, 20, 16, 12, 64, 48, torch.float32)
    loss = resized_cross_entropy(logits.contiguous(memory_format=memory_format), masks.byte(), ignore_index=255)
    exact = plain(logits.double(), masks)
    assert float(loss.detach()) == pytest.approx(float(exact.detach()), rel=1e-6)
    (gradient,), (reference,) = torch.autograd.grad(loss, logits), torch.autograd.grad(exact, logits)
    assert torch.allclose(gradient, reference, atol=1e-5)


def test_autocast_leaves_the_loss_in_float32():
    logits, masks = case(1, 6, 8, 8, 32, 32, torch.float32)
    half = logits.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = resized_cross_entropy(half, masks, ignore_index=255)
    loss.backward()
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(float(plain(half.float(), masks).detach()), rel=1e-6)
    assert half.grad is not None
    assert half.grad.dtype == torch.bfloat16


def test_nan_reaches_the_loss():
    """So that training stops on it."""
    logits, masks = case(1, 3, 4, 4, 16, 16, torch.float32)
    with torch.no_grad():
        logits[0, 1, 3, 3] = torch.nan
    assert bool(resized_cross_entropy(logits, masks, ignore_index=255).isnan())


def test_everything_ignored():
    logits, masks = case(1, 3, 4, 4, 16, 16, torch.float32)
    loss = resized_cross_entropy(logits, torch.full_like(masks, 255), ignore_index=255)
    assert float(loss.detach()) == 0
    assert not torch.autograd.grad(loss, logits)[0].any()


def test_the_large_map_is_never_made():
    """What autograd keeps is a quarter of the logits at the masks' size, not twice that size."""
    logits, masks = case(1, 8, 32, 32, 128, 128, torch.float32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        resized_cross_entropy(logits, masks, ignore_index=255)
    assert sum(kept) <= 8 * 32 * 128


def test_compiled():
    logits, masks = case(1, 3, 4, 4, 16, 16, torch.float32)
    compiled = torch.compile(resized_cross_entropy, backend="aot_eager", fullgraph=True)
    loss = compiled(logits, masks, ignore_index=255)
    assert float(loss.detach()) == pytest.approx(float(plain(logits, masks).detach()), rel=1e-6)
