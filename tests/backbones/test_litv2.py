"""LITv2: sizes of the published variants and initialisation."""

import math

import pytest
import torch
from torch import nn

import litevit
from litevit.layers.conv_ffn import ConvFFN
from litevit.layers.deformable_merging import DeformableTokenMerging
from litevit.layers.hilo import HiLo

# The published code's counts with 1000 classes.
PARAMS = {
    "litv2_s": 27_844_000,
    "litv2_m": 48_830_368,
    "litv2_b": 86_520_704,
    "litv2_b_384": 86_520_704,
    "litv2_s_alpha_00": 28_089_760,
    "litv2_s_alpha_02": 27_844_000,
    "litv2_s_alpha_04": 27_696_544,
    "litv2_s_alpha_05": 27_647_392,
    "litv2_s_alpha_07": 27_696_544,
    "litv2_s_alpha_09": 27_844_000,
    "litv2_s_alpha_10": 28_089_760,
}
DENSE = {"litv2_s": (27_076_152, 27_076_344), "litv2_m": (48_062_520, 48_062_712), "litv2_b": (85_497_240, 85_497_496)}


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", PARAMS)
def test_parameter_counts(name: str) -> None:
    with torch.device("meta"):
        assert count(litevit.create_model(name)) == PARAMS[name]


@pytest.mark.parametrize("name", DENSE)
def test_parameter_counts_of_dense_backbones(name: str) -> None:
    """The window of stage 3 changes no parameter."""
    for flavour, expected in zip(("detection", "segmentation"), DENSE[name]):
        for window in (2, 4):
            with torch.device("meta"):
                model = litevit.create_backbone(name, out_norms=flavour, window_sizes=(0, 0, window, 1))
            assert count(model) == expected


def test_heads_by_alpha() -> None:
    """Figure 4: alpha acts on stage 3; with window 1, stage 4 is ordinary attention."""
    for alpha, lo in {"00": 0, "02": 2, "04": 4, "05": 6, "07": 8, "09": 10, "10": 12}.items():
        with torch.device("meta"):
            model = litevit.create_backbone(f"litv2_s_alpha_{alpha}")
        hilos = [m for m in model.modules() if isinstance(m, HiLo)]
        assert [(h.lo_heads, h.hi_heads) for h in hilos] == [(lo, 12 - lo)] * 6 + [(24, 0)] * 2


def test_initialisation() -> None:
    torch.manual_seed(0)
    model = litevit.create_model("litv2_s", depths=(1, 1, 1, 1))
    kernels = {m.proj for m in model.modules() if isinstance(m, DeformableTokenMerging)}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module not in kernels:
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.05), name
            assert module.bias is None or not module.bias.any(), name
        elif isinstance(module, ConvFFN):
            assert module.dwconv.weight.std().item() == pytest.approx(math.sqrt(2 / 9), rel=0.1)
            assert not module.dwconv.bias.any()
    assert model.norm.eps == 1e-5


def test_wrong_configs() -> None:
    with pytest.raises(ValueError, match="window_sizes needs 4 entries"):
        litevit.create_backbone("litv2_s", window_sizes=(0, 0, 2))
    with pytest.raises(ValueError, match="alpha must be in"):
        litevit.create_backbone("litv2_s", alpha=2.0)
