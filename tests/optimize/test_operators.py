"""Every `litevit::cpu_...` operator: against its reference in float64, and what PyTorch's own checks say of it."""

import pytest
import torch
from torch import Tensor

from litevit.optimize import attention, csa, feed_forward, linear, norm
from litevit.optimize.native import build, kernels
from litevit.optimize.processor import multiplies_bfloat16

HAS_NATIVE = build.make()
native = pytest.mark.skipif(not HAS_NATIVE, reason="no AVX-512, or no C++ compiler")


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape)


def ffn(C: int, K: int, conv: bool) -> list[Tensor]:
    middle = [randn(K, 1, 3, 3), randn(K)] if conv else []
    return [randn(K, C) / C**0.5, randn(K), *middle, randn(C, K) / K**0.5, randn(C)]


# Operator, its reference, arguments; the sizes fill no vector.
CASES = {
    "linear": (linear.cpu_linear, linear._reference, lambda: [randn(3, 17, 24), randn(40, 24), randn(40), "gelu"]),
    "linear silu": (linear.cpu_linear, linear._reference, lambda: [randn(70, 24), randn(40, 24), None, "silu"]),
    "linear packed": (linear.cpu_linear, linear._reference, lambda: [randn(1100, 24), randn(96, 24), None, "none"]),
    "mlp": (feed_forward.cpu_mlp, feed_forward._mlp_reference, lambda: [randn(5, 7, 24), *ffn(24, 96, False), None]),
    "mlp in pieces": (
        feed_forward.cpu_mlp,
        feed_forward._mlp_reference,
        lambda: [(x := randn(6000, 32)), *ffn(32, 512, False), x],
    ),
    "conv_ffn": (
        feed_forward.cpu_conv_ffn,
        feed_forward._conv_ffn_reference,
        lambda: [(x := randn(2, 9, 7, 24)), *ffn(24, 96, True), x],
    ),
    "conv_ffn in images": (
        feed_forward.cpu_conv_ffn,
        feed_forward._conv_ffn_reference,
        lambda: [randn(3, 50, 41, 32), *ffn(32, 256, True), None],
    ),
    "conv_ffn in rows": (
        feed_forward.cpu_conv_ffn,
        feed_forward._conv_ffn_reference,
        lambda: [(x := randn(1, 121, 83, 16)), *ffn(16, 512, True), x],
    ),
    "dilated": (
        attention.cpu_dilated_silu_sum,
        attention.dilated_silu_sum,
        lambda: [randn(2, 9, 7, 16), randn(16, 1, 3, 3), [1, 3, 5]],
    ),
}
NATIVE_CASES = {
    "attention": (
        attention.cpu_attention,
        attention._attention_reference,
        lambda: [randn(2, 3, 33, 32), randn(2, 3, 150, 32), randn(2, 3, 150, 32), randn(3, 33, 150), 0.3],
    ),
    "attention of a projection": (
        attention.cpu_attention,
        attention._attention_reference,
        lambda: [*randn(2, 17, 3, 2, 64).permute(2, 0, 3, 1, 4).unbind(0), None, 0.125],
    ),
    "windows": (
        attention.cpu_window_attention,
        lambda qkv, N, s, scale: attention.window_attention(qkv, num_heads=N, window_size=s, scale=scale),
        lambda: [randn(2, 4, 6, 32 + 3 * 64)[..., 32:], 2, 2, 0.25],
    ),
    "windows of 3 x 3": (
        attention.cpu_window_attention,
        lambda qkv, N, s, scale: attention.window_attention(qkv, num_heads=N, window_size=s, scale=scale),
        lambda: [randn(2, 9, 3, 3 * 64), 1, 3, 0.25],
    ),
    "dilated, a view": (
        attention.cpu_dilated_silu_sum,
        attention.dilated_silu_sum,
        lambda: [randn(2, 9, 7, 96)[..., 32:], randn(64, 1, 3, 3), [1, 3, 5]],
    ),
    "dilated beyond the map": (
        attention.cpu_dilated_silu_sum,
        attention.dilated_silu_sum,
        lambda: [randn(2, 3, 2, 32), randn(32, 1, 3, 3), [2, 4]],
    ),
    "csa": (
        csa.cpu_csa,
        csa._reference,
        lambda: [randn(2, 9, 6, 32), randn(2, 5, 3, 2, 9, 9), randn(9, 32, 32) / 6, 0.25],
    ),
    "norm": (norm.cpu_layer_norm, lambda x, w, b, eps: norm.F.layer_norm(x, w.shape, w, b, eps), lambda: [
        randn(3, 5, 48), randn(48), randn(48), 1e-5]),
    "add and norm": (norm.cpu_add_layer_norm, norm._reference, lambda: [
        randn(3, 5, 48), randn(3, 5, 48), randn(48), randn(48), 1e-5]),
}  # fmt: skip
ALL = [pytest.param(*case, id=name) for name, case in CASES.items()]
ALL += [pytest.param(*case, id=name, marks=native) for name, case in NATIVE_CASES.items()]
DTYPES = [torch.float32, *([torch.bfloat16] if multiplies_bfloat16() else [])]


def cast(arguments: list, dtype: torch.dtype) -> list:
    return [a.to(dtype) if isinstance(a, Tensor) else a for a in arguments]


def parts(out: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (out,) if isinstance(out, Tensor) else tuple(out)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("operator", "reference", "make"), ALL)
@torch.no_grad()
def test_as_near_to_float64_as_the_reference(operator, reference, make, dtype):
    torch.manual_seed(0)
    arguments = cast(make(), dtype)
    before = [a.clone() if isinstance(a, Tensor) else a for a in arguments]
    ours, theirs = parts(operator(*arguments)), parts(reference(*arguments))
    exact = parts(reference(*cast(arguments, torch.float64)))
    for a, b, e in zip(ours, theirs, exact, strict=True):
        assert a.dtype == dtype
        assert a.is_contiguous()
        unit = torch.finfo(dtype).eps * e.abs().max()
        assert (a - e).abs().max() <= 2 * (b - e).abs().max() + 2 * unit
    assert all(torch.equal(a, b) for a, b in zip(arguments, before) if isinstance(a, Tensor))


@pytest.mark.parametrize(("operator", "reference", "make"), ALL)
def test_registration(operator, reference, make):
    torch.manual_seed(0)
    torch.library.opcheck(operator.default, tuple(make()))


def test_the_product_learns():
    arguments = [randn(64, 24).requires_grad_(), randn(40, 24).requires_grad_(), randn(40).requires_grad_(), "none"]
    torch.library.opcheck(linear.cpu_linear.default, tuple(arguments))
    ours = torch.autograd.grad(linear.cpu_linear(*arguments).sin().sum(), arguments[:3])
    theirs = torch.autograd.grad(torch.nn.functional.linear(*arguments[:3]).sin().sum(), arguments[:3])
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    with pytest.raises(RuntimeError, match="learns without an activation"):
        linear.cpu_linear(*arguments[:3], "gelu").sum().backward()


@native
@torch.no_grad()
def test_threads_give_the_same_bits():
    q, k, v = randn(2, 300, 3, 4, 32).permute(2, 0, 3, 1, 4).unbind(0)
    results = []
    count = torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(attention.cpu_attention(q, k, v, None, 0.2))
    torch.set_num_threads(count)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@native
@torch.no_grad()
def test_what_is_not_finite():
    q, k, v = (randn(2, 2, 40, 32), randn(2, 2, 70, 32), randn(2, 2, 70, 32))
    q[0, 1, 3] = torch.nan
    out = attention.cpu_attention(q, k, v, None, 0.2)
    assert torch.equal(out.isnan(), attention._attention_reference(q, k, v, None, 0.2).isnan())
    bias = torch.full((2, 40, 70), -torch.inf)
    bias[..., 69] = 0  # one key takes all
    q[0, 1, 3] = 0
    out = attention.cpu_attention(q, k, v, bias, 0.2)
    torch.testing.assert_close(out, v[:, :, 69:].expand(-1, -1, 40, -1).transpose(1, 2))
    windows = randn(1, 8, 8, 96)
    windows[0, 0, 0] = torch.nan
    out = attention.cpu_window_attention(windows, 1, 2, 0.2)
    assert out[0, 0, 0].isnan().all()
    assert not out[0, 2:].isnan().any()


def test_questions_about_shapes():
    q = randn(1, 2, 5, 16)
    assert not kernels.attends(q, q, q, None)  # D
    assert not kernels.attends_windows(randn(1, 5, 4, 96), 1, 2)  # windows do not fill the grid
    assert not kernels.normalises(randn(2, 20), randn(20))
    assert not kernels.mixes(randn(1, 4, 4, 24), 2)
