"""HiLo against a loop over queries written from the paper's equations (arXiv:2205.13213, sec. 3.1)."""

import doctest

import pytest
import torch
import torch.nn.functional as F

import litevit
from litevit.layers import hilo as hilo_file
from litevit.layers.hilo import HiLo


def attend(q: torch.Tensor, keys: list, values: list, scale: float) -> torch.Tensor:
    logits = torch.stack([scale * (q * k).sum() for k in keys])
    return (logits.softmax(0)[:, None] * torch.stack(values)).sum(0)


def loop(hilo: HiLo, x: torch.Tensor) -> torch.Tensor:
    """One image (H, W, C), one query at a time."""
    H, W, _ = x.shape
    s, D = hilo.window_size, hilo.head_dim
    h, w = -(-H // s), -(-W // s)
    padded = x.new_zeros(h * s, w * s, x.shape[2])
    padded[:H, :W] = x
    projected = F.linear(padded, hilo.in_proj.weight, hilo.in_proj.bias)
    out = x.new_zeros(H, W, hilo.dim)
    q_lo, qkv_hi = projected[..., : hilo.lo_dim], projected[..., hilo.lo_dim :]
    q_hi, k_hi, v_hi = qkv_hi.split(hilo.hi_dim, -1) if hilo.hi_heads else (None, None, None)
    if hilo.lo_heads:
        means = [padded[i * s : i * s + s, j * s : j * s + s].mean((0, 1)) for i in range(h) for j in range(w)]
        kv = [F.linear(m, hilo.lo_kv.weight, hilo.lo_kv.bias) for m in means]
    for y in range(H):
        for z in range(W):
            hi, lo = [], []
            window = [(y // s * s + a, z // s * s + b) for a in range(s) for b in range(s)]
            for n in range(hilo.hi_heads):
                part = slice(n * D, n * D + D)
                keys, values = [k_hi[p][part] for p in window], [v_hi[p][part] for p in window]
                hi.append(attend(q_hi[y, z, part], keys, values, hilo.scale))
            for n in range(hilo.lo_heads):
                part = slice(n * D, n * D + D)
                keys, values = [t[: hilo.lo_dim][part] for t in kv], [t[hilo.lo_dim :][part] for t in kv]
                lo.append(attend(q_lo[y, z, part], keys, values, hilo.scale))
            both = []
            if hi:
                both.append(F.linear(torch.cat(hi), hilo.hi_proj.weight, hilo.hi_proj.bias))
            if lo:
                both.append(F.linear(torch.cat(lo), hilo.lo_proj.weight, hilo.lo_proj.bias))
            out[y, z] = torch.cat(both)
    return out


@pytest.mark.parametrize(
    ("window", "alpha", "H", "W"),
    [(2, 0.5, 4, 6), (2, 0.5, 5, 3), (3, 0.25, 4, 5), (2, 0.0, 3, 4), (2, 1.0, 3, 5), (1, 0.3, 3, 2), (4, 0.75, 2, 3)],
)
@torch.no_grad()
def test_against_the_loop(window: int, alpha: float, H: int, W: int) -> None:
    torch.manual_seed(0)
    hilo = HiLo(16, 4, window_size=window, alpha=alpha, qkv_bias=True).double()
    x = torch.randn(2, H, W, 16, dtype=torch.float64)
    expected = torch.stack([loop(hilo, image) for image in x])
    torch.testing.assert_close(hilo(x), expected)
    torch.testing.assert_close(hilo(x.flatten(1, 2), H, W), expected.flatten(1, 2))


@torch.no_grad()
def test_the_authors_example() -> None:
    hilo = litevit.HiLo(dim=384, num_heads=12, window_size=2, alpha=0.5)
    tokens = torch.randn(64, 196, 384)
    out = hilo(tokens, 14, 14)
    assert out.shape == (64, 196, 384)
    assert hilo.flops(14, 14) == 83_467_776
    torch.testing.assert_close(hilo(tokens.view(64, 14, 14, 384)), out.view(64, 14, 14, 384))
    assert doctest.testmod(hilo_file, raise_on_error=True).attempted >= 4


@pytest.mark.parametrize(
    ("heads", "alpha", "lo"),
    [(12, 0.9, 10), (3, 0.3, 0), (12, 0.0, 0), (12, 1.0, 12), (12, 0.2, 2), (12, 0.7, 8), (16, 0.9, 14)],
)
def test_heads_are_truncated(heads: int, alpha: float, lo: int) -> None:
    hilo = HiLo(heads * 4, heads, alpha=alpha)
    assert (hilo.lo_heads, hilo.hi_heads) == (lo, heads - lo)
    assert hasattr(hilo, "lo_kv") == (lo > 0)
    assert hasattr(hilo, "hi_proj") == (lo < heads)


def test_without_padding() -> None:
    """The rule of the authors' stand-alone module."""
    with pytest.raises(ValueError, match=r"5 x 4 grid must be a multiple of window_size=2"):
        HiLo(8, 2, pad_windows=False)(torch.randn(1, 5, 4, 8))
    pure_lo = HiLo(8, 2, alpha=1.0, pad_windows=False)
    x = torch.randn(1, 5, 4, 8)
    changed = x.clone()
    changed[:, 4] += 1  # the last row: a query, but part of no window average
    torch.testing.assert_close(pure_lo(x)[:, :4], pure_lo(changed)[:, :4])
    assert not torch.allclose(pure_lo(x)[:, 4], pure_lo(changed)[:, 4])


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_gradient_reaches_every_parameter(alpha: float) -> None:
    hilo = HiLo(16, 4, window_size=2, alpha=alpha, qkv_bias=True)
    x = torch.randn(2, 5, 3, 16, requires_grad=True)
    hilo(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in hilo.parameters())
    assert (x.grad != 0).all()


@pytest.mark.parametrize(
    "kwargs", [{"dim": 10, "num_heads": 4}, {"dim": 8, "window_size": 0}, {"dim": 8, "alpha": 1.1}]
)
def test_wrong_arguments(kwargs: dict) -> None:
    with pytest.raises(ValueError, match="HiLo"):
        HiLo(**kwargs)


def test_wrong_token_count() -> None:
    with pytest.raises(ValueError, match=r"height \* width == L"):
        HiLo(8, 2)(torch.randn(1, 12, 8), 3, 3)
