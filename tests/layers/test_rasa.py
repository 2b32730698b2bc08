"""RASA against loops written from its equations."""

import pytest
import torch
from torch import Tensor

from litevit.layers.rasa import RecursiveAtrousSelfAttention
from litevit.ops.dilated import dilated_silu_sum


def silu(x: Tensor) -> Tensor:
    return x / (1 + (-x).exp())


def atrous_loops(x: Tensor, weight: Tensor, rates: tuple[int, ...]) -> Tensor:
    """Tap by tap. x: (B, H, W, C)."""
    _, H, W, _ = x.shape
    total = torch.zeros_like(x)
    for rate in rates:
        out = torch.zeros_like(x)
        for i in range(3):
            for j in range(3):
                dy, dx = (i - 1) * rate, (j - 1) * rate
                for y in range(max(0, -dy), min(H, H - dy)):
                    for z in range(max(0, -dx), min(W, W - dx)):
                        out[:, y, z] += weight[:, 0, i, j] * x[:, y + dy, z + dx]
        total += silu(out)
    return total


def pass_loops(rasa: RecursiveAtrousSelfAttention, x: Tensor) -> Tensor:
    B, H, W, C = x.shape
    N, R = rasa.num_heads, rasa.sr_ratio
    D = C // N
    q = x @ rasa.q.weight.T
    if rasa.rates is not None:
        q = atrous_loops(q, rasa.atrous_weight, rasa.rates)
    z = x
    if R > 1:
        z = x.new_zeros(B, H // R, W // R, C)
        for r in range(H // R):
            for c in range(W // R):
                cell = x[:, r * R : (r + 1) * R, c * R : (c + 1) * R]
                z[:, r, c] = torch.einsum("byxi,oiyx->bo", cell, rasa.sr.weight) + rasa.sr.bias
        z = (z - z.mean(-1, keepdim=True)) / (z.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
        z = z * rasa.norm.weight + rasa.norm.bias
    k, v = (z.flatten(1, 2) @ rasa.kv.weight.T).split(C, -1)
    heads = []
    for m in range(N):
        mine = slice(m * D, (m + 1) * D)
        logits = q.flatten(1, 2)[..., mine] @ k[..., mine].transpose(1, 2) * D**-0.5
        heads.append(logits.softmax(-1) @ v[..., mine])
    return (torch.cat(heads, -1) @ rasa.proj.weight.T + rasa.proj.bias).view(x.shape)


def rasa_loops(rasa: RecursiveAtrousSelfAttention, x: Tensor) -> Tensor:
    if rasa.num_recursions == 1:
        return pass_loops(rasa, x)
    h = silu(pass_loops(rasa, x))
    for _ in range(rasa.num_recursions - 1):
        x = x + h
        h = silu(pass_loops(rasa, x))
    return h


def random_rasa(**arguments) -> RecursiveAtrousSelfAttention:
    torch.manual_seed(0)
    rasa = RecursiveAtrousSelfAttention(6, 3, **arguments).double()
    for parameter in rasa.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return rasa


@pytest.mark.parametrize("num_recursions", [1, 2, 3])
@pytest.mark.parametrize("rates", [None, (2,), (1, 3, 5)])
@pytest.mark.parametrize(("size", "sr_ratio"), [((4, 4), 1), ((7, 5), 2), ((9, 6), 4)])
@torch.no_grad()
def test_equals_loops(num_recursions: int, rates: tuple | None, size: tuple[int, int], sr_ratio: int) -> None:
    rasa = random_rasa(sr_ratio=sr_ratio, rates=rates, num_recursions=num_recursions)
    x = torch.randn(2, *size, 6, dtype=torch.float64)
    torch.testing.assert_close(rasa(x), rasa_loops(rasa, x), rtol=1e-9, atol=1e-9)


def test_gradients_equal_those_of_loops() -> None:
    rasa = random_rasa(sr_ratio=2, rates=(1, 5))
    x = torch.randn(2, 5, 6, 6, dtype=torch.float64, requires_grad=True)
    seed = torch.randn_like(x)
    ours = torch.autograd.grad((rasa(x) * seed).sum(), [x, *rasa.parameters()])
    loops = torch.autograd.grad((rasa_loops(rasa, x) * seed).sum(), [x, *rasa.parameters()])
    for got, want in zip(ours, loops):
        assert want.abs().max() > 0
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("rates", [(1,), (4, 5), (1, 3, 5), (7,)])
@torch.no_grad()
def test_dilations(rates: tuple[int, ...], dtype: torch.dtype) -> None:
    """Also those larger than the map, and those the CPU path pads in two steps."""
    torch.manual_seed(0)
    x, weight = torch.randn(2, 6, 9, 4, dtype=dtype), torch.randn(4, 1, 3, 3, dtype=dtype)
    torch.testing.assert_close(dilated_silu_sum(x, weight, rates), atrous_loops(x, weight, rates))


@torch.no_grad()
def test_attention_probabilities_reproduce_the_output() -> None:
    rasa = random_rasa(sr_ratio=2, num_recursions=2)
    x = torch.randn(1, 4, 6, 6, dtype=torch.float64)
    weights = rasa.attention_probabilities(x)
    assert weights.shape == (1, 3, 24, 6)
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 3, 24, dtype=torch.float64))
    inner = x + silu(rasa.one_pass(x))
    values = rasa.project(inner)[2]
    out = rasa.proj((weights @ values).transpose(1, 2).reshape(x.shape))
    torch.testing.assert_close(silu(out), rasa(x))


def test_bfloat16_autocast() -> None:
    rasa = random_rasa(sr_ratio=2).float()
    for parameter in rasa.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x = torch.randn(1, 6, 4, 6)
    with torch.autocast("cpu", torch.bfloat16):
        out = rasa(x)
    torch.testing.assert_close(out.float(), rasa(x), rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_heads": 4}, "multiple of num_heads"),
        ({"sr_ratio": 0}, "at least 1"),
        ({"num_recursions": 0}, "at least 1"),
        ({"rates": ()}, "rates"),
    ],
)
def test_wrong_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RecursiveAtrousSelfAttention(**{"dim": 6, "num_heads": 3, **arguments})


def test_grid_smaller_than_the_reduction() -> None:
    with pytest.raises(ValueError, match="at least sr_ratio=4"):
        random_rasa(sr_ratio=4)(torch.zeros(1, 3, 8, 6, dtype=torch.float64))
