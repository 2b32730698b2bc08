"""Window attention's kernel against softmax(q k^T) v on cut windows, in float64."""

from unittest import mock

import pytest
import torch
from torch import Tensor

from litevit.layers.hilo import HiLo
from litevit.ops.triton.windows import attend_windows, attend_windows_backward
from triton_cases.harness import DEVICE, DTYPES, check, compiles_and_exports, random


def attend(qkv: Tensor, N: int, s: int, scale: float) -> Tensor:
    B, H, W, E = qkv.shape
    cut = qkv.view(B, H // s, s, W // s, s, 3, N, E // (3 * N)).permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(5, 6)
    q, k, v = cut.unbind(0)  # B h w N s*s D
    out = (scale * q @ k.transpose(-1, -2)).softmax(-1) @ v
    return out.unflatten(4, (s, s)).permute(0, 1, 4, 2, 5, 3, 6).reshape(B, H, W, E // 3)


def operators(N: int, s: int, scale: float = 0.3) -> list:
    return [lambda qkv: attend_windows(qkv, N, s, scale), lambda qkv: attend(qkv, N, s, scale)]


# B, windows down, windows across, N, D, s
SHAPES = [(2, 3, 2, 2, 8, 2), (1, 1, 2, 1, 5, 4), (1, 2, 1, 3, 3, 3), (1, 2, 3, 1, 33, 2), (1, 3, 1, 2, 4, 1)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_against_float64(shape, dtype):
    B, h, w, N, D, s = shape
    check(*operators(N, s), random(0, (B, h * s, w * s, 3 * N * D)), dtype)


def test_float64():
    check(*operators(2, 2, 0.123456789), random(1, (1, 4, 6, 3 * 2 * 4)), torch.float64)


def test_large_logits():
    # Logits reach thousands, where float32 steps by 2e-4: so do the weights. (On an H200 the error was 2.1e-5.)
    check(*operators(1, 2, 1.0), random(2, (1, 4, 4, 3 * 8), scale=20), torch.float32, slack=10)


def test_a_nan_stays_in_its_window():
    (qkv,) = random(3, (1, 4, 6, 3 * 2 * 4))
    qkv[0, 0, 0, 9] = float("nan")  # a key of the first window
    qkv[0, 3, 5, 2] = float("nan")  # a query of the last
    qkv[0, 0, 4, 17] = float("nan")  # a value
    check(*operators(2, 2), [qkv], torch.float32)


def test_infinite_logits():
    (qkv,) = random(4, (1, 2, 6, 3 * 4))
    qkv[..., :4] = qkv[..., :4].abs()
    qkv[0, 0, 0, 4:8] = -float("inf")  # weight 0
    qkv[0, 1, 3, 4:8] = float("inf")  # softmax of inf is NaN
    qkv[0, :, 4:, 4:8] = -float("inf")  # of nothing but -inf too
    rounded = qkv.float()
    out = attend_windows(rounded.to(DEVICE), 1, 2, 0.5).cpu()
    torch.testing.assert_close(out.double(), attend(rounded.double(), 1, 2, 0.5), equal_nan=True, atol=1e-5, rtol=1e-5)


def test_takes_a_slice_of_a_wider_projection():
    """As HiLo hands it over: rows further apart than they are wide."""
    (wide,) = random(5, (2, 4, 4, 7 + 24))
    f, exact = operators(2, 2)
    check(lambda t: f(t[..., 7:]), lambda t: exact(t[..., 7:].contiguous()), [wide], torch.float32)
    transposed = wide[..., 7:].float().to(DEVICE).transpose(1, 2)  # rows are columns
    agreed = attend(transposed.cpu().double().contiguous(), 2, 2, 0.3)
    torch.testing.assert_close(f(transposed).cpu().double(), agreed, atol=1e-5, rtol=1e-5)


def test_registration():
    qkv = random(6, (1, 4, 2, 3 * 2 * 3))[0].to(DEVICE).requires_grad_()
    torch.library.opcheck(attend_windows, (qkv, 2, 2, 0.4))
    g = torch.ones(1, 4, 2, 6, dtype=qkv.dtype, device=DEVICE)
    torch.library.opcheck(attend_windows_backward, (g, qkv.detach(), 2, 2, 0.4))
    assert torch.autograd.gradcheck(lambda t: attend_windows(t, 2, 2, 0.4), (qkv,), fast_mode=True)


def ours(qkv: Tensor) -> Tensor:
    return attend_windows(qkv, 2, 2, 0.3)


def test_compile_and_export():
    compiles_and_exports(ours, random(7, (1, 4, 4, 24)), "window_attention")


def test_an_operator_is_not_cast_by_autocast():
    qkv = random(8, (1, 4, 4, 24))[0].float().to(DEVICE).requires_grad_()
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        out = ours(qkv)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.cpu(), attend(qkv.cpu(), 2, 2, 0.3), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("s", [2, 4])
def test_in_the_place_of_the_layers_own(s):
    torch.manual_seed(0)
    layer = HiLo(12, num_heads=2, window_size=s, alpha=0.5).to(DEVICE)
    x = torch.randn(1, 5, 7, 12, device=DEVICE)
    exact = layer(x)

    def windows(qkv, *, num_heads, window_size, scale):
        return attend_windows(qkv, num_heads, window_size, scale)

    with mock.patch("litevit.layers.hilo.window_attention", windows), torch.profiler.profile() as profile:
        out = layer(x)
    assert any("window_attention" in event.name for event in profile.events())
    torch.testing.assert_close(out, exact, atol=1e-5, rtol=1e-4)


def test_refuses_a_grid_that_windows_do_not_fill():
    with pytest.raises(ValueError, match="a 3 x 4 grid must be a multiple of window_size=2"):
        ours(torch.zeros(1, 3, 4, 24, device=DEVICE))


def test_empty_batch():
    assert attend_windows(torch.zeros(0, 4, 4, 24, device=DEVICE), 2, 2, 0.3).shape == (0, 4, 4, 8)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(24))
def test_random_shapes(seed):
    g = torch.Generator().manual_seed(seed)
    bounds = ((1, 4), (1, 6), (1, 6), (1, 5), (1, 65), (1, 5))
    B, h, w, N, D, s = (int(torch.randint(*b, (), generator=g)) for b in bounds)
    check(*operators(N, s, D**-0.5), random(seed, (B, h * s, w * s, 3 * N * D)), DTYPES[seed % 3], seed)
