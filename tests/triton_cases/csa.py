"""The kernel between CSA's projections against softmax, product and PyTorch's fold in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from litevit.ops.csa import mix_windows
from litevit.ops.triton.csa import csa_mix, csa_mix_backward
from triton_cases.harness import DEVICE, DTYPES, check, compiles_and_exports, random


def mix(logits: Tensor, values: Tensor, H: int, W: int) -> Tensor:
    B, h, w, N, _, D = values.shape
    mixed = logits.softmax(-2).transpose(-1, -2) @ values  # B h w N 9 D
    columns = mixed.permute(0, 3, 5, 4, 1, 2).reshape(B, N * D * 9, h * w)
    return F.fold(columns, (H, W), 3, padding=1, stride=2).permute(0, 2, 3, 1)


def operators(H: int, W: int) -> list:
    return [lambda a, v: csa_mix(a, v, H, W), lambda a, v: mix(a, v, H, W)]


def inputs(seed: int, B: int, H: int, W: int, N: int, D: int) -> list[Tensor]:
    h, w = (H + 1) // 2, (W + 1) // 2
    return random(seed, (B, h, w, N, 9, 9), (B, h, w, N, 9, D))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 6, 4, 2, 4), (1, 5, 7, 1, 5), (1, 1, 1, 2, 33), (1, 2, 3, 3, 1)])
def test_against_float64(shape, dtype):
    check(*operators(*shape[1:3]), inputs(0, *shape), dtype)


def test_float64_and_mixed_dtypes():
    check(*operators(3, 4), inputs(1, 1, 3, 4, 2, 3), torch.float64)
    logits, values = inputs(2, 1, 3, 4, 2, 3)
    swapped = [lambda v, a: csa_mix(a, v, 3, 4), lambda v, a: mix(a, v, 3, 4)]
    check(*swapped, [values, logits], [torch.bfloat16, torch.float32])


def test_large_and_nan_values():
    logits, values = inputs(3, 1, 6, 7, 1, 3)
    logits *= 60
    logits[0, 0, 0, 0, 3, 8] = float("nan")
    values[0, 2, 3, 0, 4, 1] = float("nan")
    check(*operators(6, 7), [logits, values], torch.float32)
    logits, values = (t.float() for t in inputs(4, 1, 4, 4, 1, 3))
    logits[0, 0, 0, 0, 2] = -float("inf")
    logits[0, 1, 1, 0, :, 4] = -float("inf")  # a softmax of nothing: NaN
    logits[0, 1, 0, 0, 5, 7] = float("inf")
    out = csa_mix(logits.to(DEVICE), values.to(DEVICE), 4, 4).cpu()
    exact = mix(logits.double(), values.double(), 4, 4)
    torch.testing.assert_close(out.double(), exact, equal_nan=True, atol=1e-5, rtol=1e-5)


def test_registration():
    logits, values = (t.to(DEVICE).requires_grad_() for t in inputs(5, 1, 3, 2, 1, 2))
    torch.library.opcheck(csa_mix, (logits, values, 3, 2))
    g = torch.ones(1, 3, 2, 2, dtype=values.dtype, device=DEVICE)
    torch.library.opcheck(csa_mix_backward, (g, logits.detach(), values.detach(), 3, 2))
    assert torch.autograd.gradcheck(lambda a, v: csa_mix(a, v, 3, 2), (logits, values), fast_mode=True)


def test_compile_and_export():
    def ours(logits: Tensor, values: Tensor) -> Tensor:
        return csa_mix(logits, values, 3, 4)

    compiles_and_exports(ours, inputs(6, 1, 3, 4, 1, 2), "csa_mix")


def test_the_layers_own_formula_is_the_reference():
    """The plain layer has destinations first, the kernel sources."""
    logits, values = (t.float() for t in inputs(8, 2, 5, 4, 2, 3))
    plain = mix_windows(logits.transpose(-2, -1), values, 5, 4)
    torch.testing.assert_close(csa_mix(logits.to(DEVICE), values.to(DEVICE), 5, 4).cpu(), plain, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("H", "W"), [(4, 4), (5, 7)])
def test_refuses_a_map_of_another_size_than_its_windows(H, W):
    logits, values = (t.to(DEVICE) for t in inputs(9, 1, 5, 5, 1, 4))
    with pytest.raises(ValueError, match=f"a {H} x {W} map needs .* windows, got 3 x 3"):
        csa_mix(logits, values, H, W)


def test_empty_batch():
    assert csa_mix(*(t[:0].to(DEVICE) for t in inputs(7, 1, 3, 4, 1, 2)), 3, 4).shape == (0, 3, 4, 2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(24))
def test_random_shapes(seed):
    g = torch.Generator().manual_seed(seed)
    B, H, W, N, D = (int(torch.randint(*b, (), generator=g)) for b in ((1, 4), (1, 12), (1, 12), (1, 5), (1, 65)))
    check(*operators(H, W), inputs(seed, B, H, W, N, D), DTYPES[seed % 3], seed)
