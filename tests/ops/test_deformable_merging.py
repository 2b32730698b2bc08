"""Deformable merging against a plain loop over the equation, in every back end."""

import math

import pytest
import torch
from torch import Tensor

from merging import FORMS, merge


def loop(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Equation by equation: bilinear reads at (2y + i + dy, 2x + j + dx), zero outside, then one product."""
    B, H, W, C = x.shape
    h, w = H // 2, W // 2
    out = torch.zeros(B, h, w, weight.shape[0], dtype=x.dtype)
    for b in range(B):
        for y in range(h):
            for c in range(w):
                total = bias.clone()
                for t in range(4):
                    py = 2 * y + t // 2 + float(offset[b, y, c, 2 * t])
                    px = 2 * c + t % 2 + float(offset[b, y, c, 2 * t + 1])
                    y0, x0 = math.floor(py), math.floor(px)
                    value = torch.zeros(C, dtype=x.dtype)
                    for yy, wy in ((y0, 1 - (py - y0)), (y0 + 1, py - y0)):
                        for xx, wx in ((x0, 1 - (px - x0)), (x0 + 1, px - x0)):
                            if 0 <= yy < H and 0 <= xx < W:
                                value = value + wy * wx * x[b, yy, xx]
                    total = total + weight[:, :, t // 2, t % 2] @ value
                out[b, y, c] = total
    return out


def case(H: int, W: int, spread: float, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    shapes = [(2, H, W, 3), (2, H // 2, W // 2, 8), (5, 3, 2, 2), (5,)]
    x, offset, weight, bias = (torch.randn(s, generator=g, dtype=dtype) for s in shapes)
    return [x, offset * spread, weight, bias]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("H", "W", "spread"), [(6, 4, 1.0), (5, 7, 2.0), (2, 2, 0.3), (3, 9, 30.0)])
def test_follows_the_equation(form, H, W, spread):
    arguments = case(H, W, spread)
    torch.testing.assert_close(merge(*arguments, form=form), loop(*arguments))


def test_zero_offsets_are_a_strided_convolution():
    x, offset, weight, bias = case(6, 8, 0.0)
    plain = torch.nn.functional.conv2d(x.permute(0, 3, 1, 2), weight, bias, stride=2).permute(0, 2, 3, 1)
    torch.testing.assert_close(merge(x, offset, weight, bias), plain)


@pytest.mark.parametrize("form", ["gather", "taps"])
def test_offsets_far_outside_read_zero(form):
    x, offset, weight, bias = case(6, 4, 1.0)
    for far in (1e4, -1e4, 3e9, -3e9):
        out = merge(x, torch.full_like(offset, far), weight, bias, form=form)
        torch.testing.assert_close(out, bias.expand_as(out))


@pytest.mark.parametrize("form", ["gather", "taps"])
def test_gradients(form):
    arguments = [t.requires_grad_() for t in case(3, 4, 0.7, seed=3)]
    function = lambda *a: merge(*a, form=form)  # noqa: E731
    assert torch.autograd.gradcheck(function, arguments, atol=1e-6, fast_mode=True)


def test_gradients_agree_with_torchvision():
    grads = []
    for form in ("gather", "torchvision"):
        arguments = [t.requires_grad_() for t in case(8, 6, 2.0, seed=1)]
        merge(*arguments, form=form).sin().sum().backward()
        grads.append([t.grad for t in arguments])
    for ours, theirs in zip(*grads):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_lower_precision_is_near_float64(dtype):
    x, offset, weight, bias = (t.to(dtype) for t in case(10, 12, 1.0))
    exact = loop(x.double(), offset.double(), weight.double(), bias.double())
    out = merge(x, offset, weight, bias)
    assert out.dtype == dtype
    worst = (out.double() - exact).abs().max() / exact.std()
    assert worst < {torch.float32: 1e-5, torch.bfloat16: 0.03, torch.float16: 0.005}[dtype]


def test_a_nan_stays_where_it_is_read():
    x, offset, weight, bias = case(8, 8, 0.0)
    x[0, 0, 0] = float("nan")
    out = merge(x, offset, weight, bias)
    assert out[0, 0, 0].isnan().all()
    assert not out[:, 2:].isnan().any()
    assert not out[1].isnan().any()
