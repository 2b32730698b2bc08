"""Full, spatially reduced and relative attention against plain loops."""

import pytest
import torch
import torch.nn.functional as F

from litevit.layers.attention import Attention, RelativeAttention
from litevit.ops.position import relative_position_bias


def heads(t: torch.Tensor, num_heads: int) -> torch.Tensor:
    return t.view(t.shape[0], num_heads, -1)


def loop(attn: Attention, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias=None) -> torch.Tensor:
    """(L, C), (M, C), (M, C) -> (L, C), one query and head at a time."""
    N = attn.num_heads
    q, k, v = heads(q, N), heads(k, N), heads(v, N)
    out = torch.zeros_like(q)
    for i in range(q.shape[0]):
        for n in range(N):
            logits = torch.stack([(q[i, n] * k[j, n]).sum() * q.shape[-1] ** -0.5 for j in range(k.shape[0])])
            if bias is not None:
                logits = logits + bias[n, i]
            out[i, n] = (logits.softmax(0)[:, None] * v[:, n]).sum(0)
    return attn.proj(out.flatten(1))


@torch.no_grad()
def test_full_attention() -> None:
    attn = Attention(12, num_heads=3).double()
    x = torch.randn(1, 3, 4, 12, dtype=torch.float64)
    q, k, v = attn.qkv(x[0].flatten(0, 1)).split(12, -1)
    torch.testing.assert_close(attn(x)[0].flatten(0, 1), loop(attn, q, k, v))
    torch.testing.assert_close(attn(x.flatten(1, 2)), attn(x).flatten(1, 2))


@torch.no_grad()
def test_spatial_reduction() -> None:
    attn = Attention(8, num_heads=2, sr_ratio=2).double()
    x = torch.randn(1, 5, 6, 8, dtype=torch.float64)  # the last row makes no key
    reduced = torch.zeros(2, 3, 8, dtype=torch.float64)
    for y in range(2):
        for z in range(3):
            patch = x[0, 2 * y : 2 * y + 2, 2 * z : 2 * z + 2].permute(2, 0, 1)
            reduced[y, z] = (attn.sr.weight * patch).sum((1, 2, 3)) + attn.sr.bias
    reduced = F.layer_norm(reduced, (8,), attn.norm.weight, attn.norm.bias, 1e-5)
    k, v = attn.kv(reduced.flatten(0, 1)).split(8, -1)
    torch.testing.assert_close(attn(x)[0].flatten(0, 1), loop(attn, attn.q(x[0].flatten(0, 1)), k, v))


@torch.no_grad()
def test_relative_bias_of_its_own_grid() -> None:
    H, W = 3, 4
    attn = RelativeAttention(8, num_heads=2, grid_size=(H, W)).double()
    torch.nn.init.normal_(attn.relative_position_bias_table)
    bias = torch.zeros(2, H * W, H * W, dtype=torch.float64)
    for i in range(H * W):
        for j in range(H * W):
            dy, dx = i // W - j // W, i % W - j % W
            bias[:, i, j] = attn.relative_position_bias_table[(dy + H - 1) * (2 * W - 1) + dx + W - 1]
    torch.testing.assert_close(attn.bias(torch.zeros(1, H, W, 1)).reshape(2, H * W, H * W), bias)
    x = torch.randn(1, H, W, 8, dtype=torch.float64)
    q, k, v = attn.qkv(x[0].flatten(0, 1)).split(8, -1)
    torch.testing.assert_close(attn(x)[0].flatten(0, 1), loop(attn, q, k, v, bias))


@torch.no_grad()
def test_relative_bias_of_another_grid_is_bicubic() -> None:
    attn = RelativeAttention(8, num_heads=2, grid_size=(4, 4))
    torch.nn.init.normal_(attn.relative_position_bias_table)
    H, W = 3, 6
    table = attn.relative_position_bias_table.T.view(1, 2, 7, 7)
    resized = F.interpolate(table, size=(2 * H - 1, 2 * W - 1), mode="bicubic", align_corners=False)[0]
    bias = attn.bias(torch.zeros(1, H, W, 1)).reshape(2, H * W, H * W)
    for i, j in [(0, 0), (0, H * W - 1), (7, 3), (H * W - 1, 0)]:
        dy, dx = i // W - j // W, i % W - j % W
        torch.testing.assert_close(bias[:, i, j], resized[:, dy + H - 1, dx + W - 1])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Attention(12, num_heads=3),
        lambda: Attention(12, num_heads=3, sr_ratio=2),
        lambda: RelativeAttention(12, num_heads=3, grid_size=(4, 5)),
    ],
)
@torch.no_grad()
def test_probabilities_give_the_output(make) -> None:
    attn = make().eval()
    x = torch.randn(2, 4, 5, 12)
    probabilities = attn.attention_probabilities(x)
    _, _, v = attn.project(x)
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(2, 3, 20))
    out = attn.proj((probabilities @ v).transpose(1, 2).reshape(x.shape))
    torch.testing.assert_close(out, attn(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("grid", [(4, 4), (3, 5)])
def test_gradient_reaches_every_parameter(grid: tuple[int, int]) -> None:
    attn = RelativeAttention(8, num_heads=2, grid_size=(4, 4))
    attn(torch.randn(2, *grid, 8)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in attn.parameters())


def test_wrong_heads() -> None:
    with pytest.raises(ValueError, match="multiple of num_heads"):
        Attention(10, num_heads=3)


@pytest.mark.parametrize("keys_first", [False, True])
@pytest.mark.parametrize("grid", [(3, 5), (4, 4), (1, 6), (6, 1)])
def test_relative_bias_and_its_gradient_are_those_of_one_look_up_per_value(grid: tuple[int, int], keys_first) -> None:
    H, W = grid
    table = torch.randn((2 * H - 1) * (2 * W - 1), 3, dtype=torch.float64, requires_grad=True)
    i = torch.arange(H * W)
    dy, dx = i[:, None] // W - i // W, i[:, None] % W - i % W
    expected = table[(dy + H - 1) * (2 * W - 1) + dx + W - 1].permute(2, 0, 1)
    bias = relative_position_bias(table, grid, H, W, keys_first=keys_first)
    assert torch.equal(bias, expected)
    assert bias.stride(1 if keys_first else 2) == 1
    assert bias.is_contiguous() or keys_first
    grad = torch.randn_like(expected)
    torch.testing.assert_close(*(torch.autograd.grad(b, table, grad)[0] for b in (bias, expected)))
