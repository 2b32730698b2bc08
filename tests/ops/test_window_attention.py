"""Window attention against a plain loop."""

import pytest
import torch
from torch import Tensor

from litevit.ops.window_attention import window_attention


def loop(qkv: Tensor, N: int, s: int, scale: float) -> Tensor:
    B, H, W, E = qkv.shape
    D = E // (3 * N)
    out = torch.zeros(B, H, W, N * D, dtype=qkv.dtype)
    parts = qkv.view(B, H, W, 3, N, D)
    for b in range(B):
        for y in range(0, H, s):
            for x in range(0, W, s):
                for n in range(N):
                    q, k, v = (parts[b, y : y + s, x : x + s, i, n].reshape(s * s, D) for i in range(3))
                    mixed = (scale * q @ k.T).softmax(-1) @ v
                    out[b, y : y + s, x : x + s, n * D : (n + 1) * D] = mixed.view(s, s, D)
    return out


@pytest.mark.parametrize(("H", "W", "s", "N"), [(4, 6, 2, 3), (8, 4, 4, 2), (3, 9, 3, 1), (2, 3, 1, 2)])
def test_follows_the_equation(H, W, s, N):
    qkv = torch.randn(2, H, W, 3 * N * 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    out = window_attention(qkv, num_heads=N, window_size=s, scale=0.3)
    torch.testing.assert_close(out, loop(qkv, N, s, 0.3))


def test_takes_a_slice_of_a_wider_projection():
    wide = torch.randn(1, 4, 4, 10 + 24, dtype=torch.float64)
    out = window_attention(wide[..., 10:], num_heads=2, window_size=2, scale=1.0)
    torch.testing.assert_close(out, loop(wide[..., 10:].contiguous(), 2, 2, 1.0))


def test_gradients():
    qkv = torch.randn(1, 2, 4, 3 * 2 * 2, dtype=torch.float64, requires_grad=True)
    function = lambda x: window_attention(x, num_heads=2, window_size=2, scale=0.7)  # noqa: E731
    assert torch.autograd.gradcheck(function, [qkv])


def test_large_logits_do_not_overflow():
    qkv = 200 * torch.randn(1, 4, 4, 3 * 8)
    out = window_attention(qkv, num_heads=1, window_size=2, scale=1.0)
    assert out.isfinite().all()
    torch.testing.assert_close(out.double(), loop(qkv.double(), 1, 2, 1.0), atol=1e-2, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision(dtype):
    qkv = torch.randn(1, 4, 4, 3 * 2 * 8).to(dtype)
    out = window_attention(qkv, num_heads=2, window_size=2, scale=0.35)
    assert out.dtype == dtype
    assert (out.double() - loop(qkv.double(), 2, 2, 0.35)).abs().max() < 0.03


def test_a_nan_stays_in_its_window():
    qkv = torch.randn(1, 4, 4, 3 * 8)
    qkv[0, 0, 0] = float("nan")
    out = window_attention(qkv, num_heads=1, window_size=2, scale=1.0)
    assert not out[0, 2:].isnan().any()
    assert out[0, 0, 0].isnan().all()


def test_wrong_input():
    with pytest.raises(ValueError, match="must be a multiple of window_size"):
        window_attention(torch.zeros(1, 3, 2, 6), num_heads=1, window_size=2, scale=1.0)
