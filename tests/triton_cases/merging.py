"""Deformable merging's sampling kernel against the equation in float64."""

from unittest import mock

import pytest
import torch
from torch import Tensor

from litevit.layers.deformable_merging import DeformableTokenMerging
from litevit.ops.deformable_sampling import deformable_sample as plain_sample
from litevit.ops.triton.merging import deformable_sample, deformable_sample_backward
from triton_cases.harness import DEVICE, DTYPES, check, compiles_and_exports, random


def sample(x: Tensor, offset: Tensor) -> Tensor:
    """Corner by corner in a map with a frame of true zeros; a point outside (-1, H) x (-1, W), or NaN, reads zeros."""
    B, H, W, C = x.shape
    _, h, w, _ = offset.shape
    framed = torch.nn.functional.pad(x, (0, 0, 1, 1, 1, 1))
    batch = torch.arange(B).view(B, 1, 1)
    taps = []
    for t in range(4):
        py = 2 * torch.arange(h).view(h, 1) + t // 2 + offset[..., 2 * t]
        px = 2 * torch.arange(w) + t % 2 + offset[..., 2 * t + 1]
        inside = (py > -1) & (py < H) & (px > -1) & (px < W)
        py, px = torch.where(inside, py, 0), torch.where(inside, px, 0)
        y, x0 = py.detach().floor().long(), px.detach().floor().long()
        value = torch.zeros(B, h, w, C, dtype=x.dtype)
        for dy, wy in ((0, 1 - (py - y)), (1, py - y)):
            for dx, wx in ((0, 1 - (px - x0)), (1, px - x0)):
                exists = (y + dy >= 0) & (y + dy < H) & (x0 + dx >= 0) & (x0 + dx < W) & inside
                corner = framed[batch, y + dy + 1, x0 + dx + 1] * (wy * wx)[..., None]
                value = value + torch.where(exists[..., None], corner, 0)
        taps.append(value)
    return torch.cat(taps, -1)


def inputs(seed: int, B: int, H: int, W: int, C: int, spread: float) -> list[Tensor]:
    x, offset = random(seed, (B, H, W, C), (B, H // 2, W // 2, 8))
    return [x, offset * spread]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 7, 5, 6), (1, 2, 2, 1), (1, 3, 8, 33), (1, 4, 4, 136)])
def test_against_float64(shape, dtype):
    check(deformable_sample, sample, inputs(0, *shape, 1.5), dtype)


def test_float64_and_mixed_dtypes():
    check(deformable_sample, sample, inputs(1, 2, 5, 6, 3, 1.0), torch.float64)
    check(deformable_sample, sample, inputs(2, 1, 5, 6, 3, 1.0), [torch.float32, torch.bfloat16])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_far_and_not_finite_offsets_read_nothing(dtype):
    x, offset = inputs(3, 2, 6, 7, 4, 1.0)
    far = torch.tensor([1e6, -1e6, float("inf"), -float("inf"), float("nan"), 3e9, -1.0, 6.0])
    hit = torch.rand(offset.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    offset = torch.where(hit, far[torch.randint(8, offset.shape, generator=torch.Generator().manual_seed(1))], offset)
    check(deformable_sample, sample, [x, offset], dtype)
    everywhere = deformable_sample(x.float().to(DEVICE), torch.full_like(offset, float("nan")).float().to(DEVICE))
    assert (everywhere == 0).all()


def test_a_nan_pixel_shows_where_it_is_read():
    x, offset = inputs(4, 1, 6, 6, 3, 1.0)
    x[0, 0, 0, 1] = x[0, 3, 2] = x[0, 5, 5, 0] = float("nan")
    check(deformable_sample, sample, [x, offset], torch.float32)


def test_empty_batch():
    x, offset = torch.zeros(0, 4, 4, 3, device=DEVICE, requires_grad=True), torch.zeros(0, 2, 2, 8, device=DEVICE)
    out = deformable_sample(x, offset)
    assert out.shape == (0, 2, 2, 12)
    assert torch.autograd.grad(out.sum(), x)[0].shape == x.shape


def test_registration():
    x, offset = (t.to(DEVICE).requires_grad_() for t in inputs(5, 1, 5, 4, 3, 0.7))
    torch.library.opcheck(deformable_sample, (x, offset))
    g = torch.ones(1, 2, 2, 12, dtype=x.dtype, device=DEVICE)
    torch.library.opcheck(deformable_sample_backward, (g, x.detach(), offset.detach()))
    assert torch.autograd.gradcheck(deformable_sample, (x, offset), fast_mode=True, nondet_tol=1e-9)


def arguments() -> list[Tensor]:
    return [t.float().to(DEVICE) for t in inputs(0, 2, 6, 5, 3, 1.0)]


def test_compile_and_export():
    compiles_and_exports(deformable_sample, arguments(), "deformable_sample")


def test_an_operator_is_not_cast_by_autocast():
    args = [t.requires_grad_() for t in arguments()]
    exact = plain_sample(*args)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        out = deformable_sample(*args)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, exact, atol=1e-5, rtol=1e-4)
    assert all(g.dtype == torch.float32 for g in torch.autograd.grad(out.sum(), args))


def test_in_the_place_of_the_layers_own():
    torch.manual_seed(0)
    layer = DeformableTokenMerging(3, 5).to(DEVICE)
    torch.nn.init.normal_(layer.offset.weight)
    x = torch.randn(1, 5, 6, 3, device=DEVICE)
    exact = layer(x)
    with (
        mock.patch("litevit.layers.deformable_merging.deformable_sample", deformable_sample),
        torch.profiler.profile() as profile,
    ):
        out = layer(x)
    assert any("deformable_sample" in event.name for event in profile.events())
    torch.testing.assert_close(out, exact, atol=1e-5, rtol=1e-4)


def test_inputs_that_do_not_match():
    """Without a word the kernels would read outside of the map or of the gradient."""
    x, offset = torch.zeros(2, 5, 4, 3, device=DEVICE), torch.zeros(2, 2, 2, 8, device=DEVICE)
    grad = torch.zeros(2, 2, 2, 12, device=DEVICE)
    wrong = [(x[0], offset), (x[:1], offset), (x, offset[:, :1]), (x, offset[..., :6]), (x, offset.long())]
    for a, b in wrong:
        with pytest.raises(ValueError, match=r"x (must be|and offset must be)"):
            deformable_sample(a, b)
        with pytest.raises(ValueError, match=r"x (must be|and offset must be)"):
            deformable_sample_backward(grad, a, b)
    with pytest.raises(ValueError, match=r"grad must be \(2, 2, 2, 12\)"):
        deformable_sample_backward(grad[..., :8], x, offset)
    if DEVICE == "cuda":
        with pytest.raises(ValueError, match="on one device"):
            deformable_sample(x, offset.cpu())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(24))
def test_random_shapes(seed):
    g = torch.Generator().manual_seed(seed)
    B, H, W, C = (int(torch.randint(low, high, (), generator=g)) for low, high in ((1, 4), (2, 14), (2, 14), (1, 200)))
    x, offset = inputs(seed, B, H, W, C, float(10 ** (2 * torch.rand((), generator=g) - 1)))
    check(deformable_sample, sample, [x, offset], DTYPES[seed % 3], seed)
