"""The pyramid against the equations, written as a loop."""

import pytest
import torch
import torch.nn.functional as F

from litevit.layers.fpn import FPN

CHANNELS = (4, 6, 8)


def maps() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, c, h, w) for c, (h, w) in zip(CHANNELS, ((13, 18), (7, 9), (3, 5)))]  # odd sizes


@pytest.mark.parametrize("extra", ["none", "pool", "p6p7"])
def test_equations(extra: str) -> None:
    fpn, inputs = FPN(CHANNELS, 5, extra=extra), maps()
    outputs = fpn(inputs)
    merged = None
    wanted = []
    for i in (2, 1, 0):
        lateral = fpn.pyramid.inner_blocks[i](inputs[i])
        merged = lateral if merged is None else lateral + F.interpolate(merged, size=lateral.shape[-2:])
        wanted.insert(0, fpn.pyramid.layer_blocks[i](merged))
    if extra == "pool":
        wanted.append(wanted[-1][:, :, ::2, ::2])
    if extra == "p6p7":
        p6, p7 = fpn.pyramid.extra_blocks.p6, fpn.pyramid.extra_blocks.p7
        coarse = F.conv2d(inputs[2], p6.weight, p6.bias, stride=2, padding=1)  # the backbone's map, not P5
        wanted += [coarse, F.conv2d(coarse, p7.weight, p7.bias, stride=2, padding=1)]  # no ReLU between
    assert len(outputs) == len(wanted)
    for got, want in zip(outputs, wanted):
        torch.testing.assert_close(got, want)


def test_p6_reads_the_backbone_even_with_equal_channels() -> None:
    fpn = FPN((5, 5), 5, extra="p6p7")
    inputs = [torch.randn(1, 5, 8, 8), torch.randn(1, 5, 4, 4)]
    torch.testing.assert_close(fpn(inputs)[2], fpn.pyramid.extra_blocks.p6(inputs[1]))


def test_gradient_reaches_every_parameter() -> None:
    fpn = FPN(CHANNELS, 5, extra="p6p7")
    sum(x.square().sum() for x in fpn(maps())).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in fpn.parameters())


def test_unknown_extra_level() -> None:
    with pytest.raises(ValueError, match='"pool"'):
        FPN(CHANNELS, 5, extra="max")
