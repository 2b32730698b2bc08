"""CSA against loops written from its equations."""

import pytest
import torch
from torch import Tensor

from litevit.layers.csa import ConvolutionalSelfAttention
from litevit.ops.csa import overlap_add, window_means, window_values

SIZES = [(4, 4), (5, 4), (4, 7), (7, 9), (1, 1), (2, 3)]


def csa_loops(csa: ConvolutionalSelfAttention, x: Tensor) -> Tensor:
    """Window by window, head by head, position by position."""
    B, H, W, C = x.shape
    N = csa.num_heads
    D = C // N
    y = torch.zeros_like(x)
    for b in range(B):
        for r in range((H + 1) // 2):
            for c in range((W + 1) // 2):
                mean = x[b, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2].flatten(0, 1).mean(0)
                attention = (csa.attn(mean).view(N, 9, 9) * D**-0.5).softmax(-1)  # head, destination, source
                pixels = [(2 * r - 1 + j // 3, 2 * c - 1 + j % 3) for j in range(9)]
                inside = [0 <= u < H and 0 <= v < W for u, v in pixels]
                values = torch.stack(
                    [
                        csa.value_weight[j] @ x[b, u, v] if ok else torch.zeros(C, dtype=x.dtype)
                        for j, ((u, v), ok) in enumerate(zip(pixels, inside))
                    ]
                )
                for p, ((u, v), ok) in enumerate(zip(pixels, inside)):
                    if ok:
                        mixed = [attention[m, p] @ values[:, m * D : (m + 1) * D] for m in range(N)]
                        y[b, u, v] += torch.cat(mixed)
    return csa.proj(y)


def random_csa(dim: int, num_heads: int) -> ConvolutionalSelfAttention:
    torch.manual_seed(0)
    csa = ConvolutionalSelfAttention(dim, num_heads).double()
    for parameter in csa.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return csa


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_equals_loops(size: tuple[int, int]) -> None:
    csa = random_csa(6, 3)
    x = torch.randn(2, *size, 6, dtype=torch.float64)
    torch.testing.assert_close(csa(x), csa_loops(csa, x), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_compiled_path_equals_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operations a graph with dynamic sizes is made of, run eagerly."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    csa = random_csa(4, 2)
    for size in SIZES:
        x = torch.randn(1, *size, 4, dtype=torch.float64)
        torch.testing.assert_close(csa(x), csa_loops(csa, x), rtol=1e-9, atol=1e-9)


def test_gradients_equal_those_of_loops() -> None:
    csa = random_csa(4, 2)
    x = torch.randn(2, 5, 4, 4, dtype=torch.float64, requires_grad=True)
    seed = torch.randn_like(x)
    ours = torch.autograd.grad((csa(x) * seed).sum(), [x, *csa.parameters()])
    loops = torch.autograd.grad((csa_loops(csa, x) * seed).sum(), [x, *csa.parameters()])
    for got, want in zip(ours, loops):
        assert want.abs().max() > 0
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("size", SIZES)
def test_overlap_add_counts_windows(size: tuple[int, int]) -> None:
    """Ones in every window: a pixel gets 1, 2 or 4 by its parity, less what lies in windows that do not exist."""
    H, W = size
    h, w = (H + 1) // 2, (W + 1) // 2
    rows = torch.tensor([1.0 if y % 2 == 0 else 1.0 + (y // 2 + 1 < h) for y in range(H)])
    columns = torch.tensor([1.0 if x % 2 == 0 else 1.0 + (x // 2 + 1 < w) for x in range(W)])
    out = overlap_add(torch.ones(1, h, w, 2, 9, 3), H, W)
    torch.testing.assert_close(out, (rows[:, None] * columns)[None, :, :, None].expand(1, H, W, 6))


def test_window_values_are_zero_outside() -> None:
    values = window_values(torch.ones(1, 3, 3, 2), torch.eye(2).expand(9, 2, 2), 1)  # 2 x 2 windows
    top_left = values[0, 0, 0, 0, :, 0].view(3, 3)
    torch.testing.assert_close(top_left, torch.tensor([[0.0, 0, 0], [0, 1, 1], [0, 1, 1]]))


def test_window_means_of_an_odd_border() -> None:
    means = window_means(torch.arange(9.0).view(1, 3, 3, 1))
    torch.testing.assert_close(means.view(2, 2), torch.tensor([[2.0, 3.5], [6.5, 8.0]]))


def test_attention_probabilities_sum_to_one() -> None:
    csa = random_csa(6, 3)
    weights = csa.attention_probabilities(torch.randn(2, 5, 4, 6, dtype=torch.float64))
    assert weights.shape == (2, 3, 2, 3, 9, 9)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 2, 3, 9, dtype=torch.float64))


def test_bfloat16_autocast() -> None:
    csa = random_csa(6, 3).float()
    x = torch.randn(1, 5, 4, 6)
    with torch.autocast("cpu", torch.bfloat16):
        out = csa(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), csa(x), rtol=0.1, atol=0.1)


@pytest.mark.skipif(
    torch.__version__ < "2.14",  # 2.7, 2.9 and 2.11 do it, 2.14 does not
    reason="torch.export ties average pooling to the parity of its input; litevit export defers that question",
)
@torch.no_grad()
def test_export_with_dynamic_sizes() -> None:
    """One graph for even and odd sizes."""
    csa = random_csa(6, 3).eval()
    sizes = {1: torch.export.Dim("height", min=4, max=64), 2: torch.export.Dim("width", min=4, max=64)}
    x = torch.randn(2, 8, 8, 6, dtype=torch.float64)
    program = torch.export.export(csa, (x,), dynamic_shapes=(sizes,), strict=False).module()
    for H, W in SIZES[:4]:
        x = torch.randn(2, H, W, 6, dtype=torch.float64)
        torch.testing.assert_close(program(x), csa(x))


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="multiple of num_heads"):
        ConvolutionalSelfAttention(10, 3)
    with pytest.raises(ValueError, match="num_heads=0"):
        ConvolutionalSelfAttention(8, 0)
    with pytest.raises(ValueError, match="dim=0"):
        ConvolutionalSelfAttention(0, 1)
    with pytest.raises(ValueError, match="kernel_size must be 3"):
        ConvolutionalSelfAttention(8, 2, kernel_size=5)
