"""Entries of a stage: deformable token merging, patch embedding, linear merging; norms on the outputs."""

import doctest
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from litevit.layers import deformable_merging as merging_file
from litevit.layers.deformable_merging import DeformableTokenMerging
from litevit.layers.out_norms import build_out_norms
from litevit.layers.patch_embed import LinearMerging, PatchEmbed
from merging import FORMS, kernel_of
from merging import merge as merge_tokens


def loop(x: torch.Tensor, offset: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """One image (H, W, C), offsets (h, w, 8): DCN, arXiv:1703.06211, eq. 2-4, with stride and kernel 2."""
    H, W, C = x.shape
    h, w, _ = offset.shape
    out = torch.zeros(h, w, weight.shape[0], dtype=x.dtype)
    for y in range(h):
        for z in range(w):
            out[y, z] = bias
            for t in range(4):
                i, j = divmod(t, 2)
                py = 2 * y + i + offset[y, z, 2 * t].item()
                px = 2 * z + j + offset[y, z, 2 * t + 1].item()
                sample = torch.zeros(C, dtype=x.dtype)
                for qy in (math.floor(py), math.floor(py) + 1):
                    for qx in (math.floor(px), math.floor(px) + 1):
                        if 0 <= qy < H and 0 <= qx < W:
                            sample += (1 - abs(py - qy)) * (1 - abs(px - qx)) * x[qy, qx]
                out[y, z] += weight[:, :, i, j] @ sample
    return out


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scale", [0.0, 0.7, 5.0])
@pytest.mark.parametrize(("H", "W"), [(4, 6), (5, 7), (2, 3)])
def test_against_the_loop(H: int, W: int, scale: float, form: str) -> None:
    torch.manual_seed(1)
    x = torch.randn(2, H, W, 3, dtype=torch.float64)
    offset = scale * torch.randn(2, H // 2, W // 2, 8, dtype=torch.float64)
    weight, bias = torch.randn(5, 3, 2, 2, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    expected = torch.stack([loop(a, b, weight, bias) for a, b in zip(x, offset)])
    torch.testing.assert_close(merge_tokens(x, offset, weight, bias, form=form), expected)


@pytest.mark.parametrize("form", ["gather", "taps"])
def test_gradients_are_torchvisions(form: str) -> None:
    torch.manual_seed(2)
    leaves = [
        torch.randn(2, 6, 4, 3, dtype=torch.float64),
        torch.randn(2, 3, 2, 8, dtype=torch.float64),
        torch.randn(5, 3, 2, 2, dtype=torch.float64),
        torch.randn(5, dtype=torch.float64),
    ]
    seed = torch.randn(2, 3, 2, 5, dtype=torch.float64)
    grads = []
    for name in ("torchvision", form):
        inputs = [leaf.clone().requires_grad_() for leaf in leaves]
        grads.append(torch.autograd.grad(merge_tokens(*inputs, form=name), inputs, seed))
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b)


def test_starts_as_a_convolution() -> None:
    merge = DeformableTokenMerging(6, 10).eval()
    assert not merge.offset.weight.any()
    assert not merge.offset.bias.any()
    x = torch.randn(2, 5, 8, 6)
    merged = F.conv2d(x.permute(0, 3, 1, 2), kernel_of(merge.proj), merge.proj.bias, stride=2)
    expected = F.gelu(merge.norm(merged)).permute(0, 2, 3, 1)
    torch.testing.assert_close(merge(x), expected)
    assert doctest.testmod(merging_file, raise_on_error=True).attempted >= 3


def test_gradient_reaches_the_offsets() -> None:
    merge = DeformableTokenMerging(6, 10)
    x = torch.randn(2, 6, 6, 6, requires_grad=True)
    (merge(x) * torch.randn(2, 3, 3, 10)).sum().backward()
    for name, parameter in merge.named_parameters():
        assert parameter.grad is not None, name
        if name != "proj.bias":  # cancelled by the BatchNorm
            assert parameter.grad.abs().sum() > 0, name
    assert x.grad.abs().sum() > 0


def test_bfloat16_keeps_float32_coordinates() -> None:
    """Columns beyond 256 are not all representable in bfloat16: rounded coordinates would read other tokens."""
    x = torch.randn(1, 4, 600, 2, dtype=torch.bfloat16)
    offset = torch.zeros(1, 2, 300, 8, dtype=torch.bfloat16)
    weight = torch.ones(1, 2, 2, 2, dtype=torch.bfloat16)
    got = merge_tokens(x, offset, weight)
    expected = merge_tokens(x.float(), offset.float(), weight.float())
    torch.testing.assert_close(got.float(), expected, atol=0.1, rtol=0.02)


def test_patch_embedding() -> None:
    embed = PatchEmbed(3, 8, patch_size=4)
    images = torch.randn(2, 9, 14, 3)
    out = embed(images)
    assert out.shape == (2, 2, 3, 8)
    patch = images[1, 4:8, 8:12].permute(2, 0, 1)
    token = (embed.proj.weight * patch).sum((1, 2, 3)) + embed.proj.bias
    torch.testing.assert_close(out[1, 1, 2], embed.norm(token))


def test_linear_merging() -> None:
    """Swin's order: down the column first; an odd last row or column is dropped."""
    merge = LinearMerging(3, 5)
    x = torch.randn(2, 5, 7, 3)
    out = merge(x)
    assert out.shape == (2, 2, 3, 5)
    four = torch.cat([x[1, 2, 4], x[1, 3, 4], x[1, 2, 5], x[1, 3, 5]])
    torch.testing.assert_close(out[1, 1, 2], merge.reduction(merge.norm(four)))


def test_out_norms() -> None:
    kinds = {"none": "IIII", "detection": "INNN", "segmentation": "NNNN"}
    for flavour, expected in kinds.items():
        norms = build_out_norms(flavour, (4, 8, 16, 32))
        assert "".join("N" if isinstance(n, nn.LayerNorm) else "I" for n in norms) == expected
        assert all(n.eps == 1e-5 for n in norms if isinstance(n, nn.LayerNorm))
    with pytest.raises(ValueError, match="out_norms must be one of"):
        build_out_norms("panoptic", (4,))
