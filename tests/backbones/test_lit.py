"""LIT: sizes of the published variants, initialisation, positions, what the config refuses."""

import math

import pytest
import torch
from families import backbone, classifier
from timm.layers import DropPath
from torch import nn

import litevit
from litevit.layers.attention import RelativeAttention
from litevit.layers.deformable_merging import DeformableTokenMerging

# Classifier with 1000 classes, backbone for detection, backbone for segmentation: the published code's counts.
PARAMS = {
    "lit_ti": (19_886_272, 19_371_736, 19_371_736),
    "lit_s": (27_973_720, 27_966_192, 27_477_360),
    "lit_m": (49_372_264, None, None),
    "lit_b": (87_292_384, None, None),
}


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", PARAMS)
def test_parameter_counts(name: str) -> None:
    with torch.device("meta"):
        found = (
            count(litevit.create_model(name)),
            count(litevit.create_backbone(name, out_norms="detection")),
            count(litevit.create_backbone(name, out_norms="segmentation")),
        )
    assert all(expected is None or n == expected for n, expected in zip(found, PARAMS[name]))


@pytest.mark.parametrize("name", ["lit_ti_uniform", "lit_s_uniform"])
def test_uniform_merging_has_no_deformable_layer(name: str) -> None:
    with torch.device("meta"):
        model = litevit.create_backbone(name)
    assert not [m for m in model.modules() if isinstance(m, DeformableTokenMerging)]
    assert [f.stride for f in model.features] == [4, 8, 16, 32]


def test_norm_epsilons() -> None:
    """Below what goldens resolve: 1e-6 in LIT-Ti's blocks and final norm, 1e-5 in its patch embedding and elsewhere."""
    with torch.device("meta"):
        ti, small = litevit.create_model("lit_ti"), litevit.create_model("lit_s")
    assert ti.norm.eps == ti.backbone.stages[2].blocks[0].norm1.eps == ti.backbone.stages[0].blocks[0].norm2.eps == 1e-6
    assert ti.backbone.embeds[0].norm.eps == 1e-5
    assert {m.eps for m in small.modules() if isinstance(m, nn.LayerNorm)} == {1e-5}


@pytest.mark.parametrize(("name", "rate"), [("lit_ti", 0.1), ("lit_s", 0.2), ("lit_b", 0.5)])
def test_drop_path_rates_of_the_recipes(name: str, rate: float) -> None:
    with torch.device("meta"):
        model = litevit.create_backbone(name, drop_path_rate=rate)
    rates = [block.drop_path for stage in model.stages for block in stage.blocks]
    assert isinstance(rates[0], nn.Identity)
    assert [r.drop_prob for r in rates[1:]] == pytest.approx(
        [rate * i / (len(rates) - 1) for i in range(1, len(rates))]
    )
    assert all(isinstance(r, DropPath) for r in rates[1:])


def test_initialisation() -> None:
    torch.manual_seed(0)
    model = litevit.create_model("lit_s", depths=(1, 1, 1, 1))
    kernels = {m.proj for m in model.modules() if isinstance(m, DeformableTokenMerging)}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module not in kernels:
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.05), name
            assert module.bias is None or not module.bias.any(), name
        elif isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert not module.bias.any()
        elif isinstance(module, DeformableTokenMerging):
            assert not module.offset.weight.any()
            assert not module.offset.bias.any()
            bound = 1 / math.sqrt(module.proj.in_features)  # PyTorch's default
            assert module.proj.weight.abs().max() <= bound
            assert module.proj.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
        elif isinstance(module, RelativeAttention):
            assert module.relative_position_bias_table.std().item() == pytest.approx(0.02, rel=0.1)
    tables = litevit.create_backbone("lit_ti", depths=(1, 1, 1, 1)).positions
    assert all(t.table.std().item() == pytest.approx(0.02, rel=0.05) for t in tables)


def test_tables_are_made_for_the_task() -> None:
    rows = {}
    for flavour in ("none", "detection", "segmentation"):
        with torch.device("meta"):
            model = litevit.create_backbone("lit_s", out_norms=flavour)
        rows[flavour] = [s.blocks[0].attn.relative_position_bias_table.shape[0] for s in model.stages[2:]]
    assert rows == {"none": [27**2, 13**2], "detection": [99**2, 49**2], "segmentation": [63**2, 31**2]}


@torch.no_grad()
def test_position_embedding_of_another_grid() -> None:
    """Compared by the grid of the stage itself: 49 x 64 has as many tokens as 56 x 56 and another shape."""
    model = backbone("lit_ti").eval()
    x = torch.zeros(1, 49, 64, 8)
    table = model.positions[0].table.view(1, 56, 56, 8).permute(0, 3, 1, 2)
    expected = nn.functional.interpolate(table, size=(49, 64), mode="bilinear").permute(0, 2, 3, 1)
    torch.testing.assert_close(model.positions[0](x), expected)
    x = torch.zeros(1, 7, 7, 64)
    torch.testing.assert_close(model.positions[3](x).flatten(1, 2), model.positions[3].table[:, 1:])


@torch.no_grad()
def test_class_token_does_not_change_the_maps_of_earlier_stages() -> None:
    model = classifier("lit_ti").eval()
    images = torch.randn(2, 3, 64, 64)
    maps, token = model.backbone(images, class_token=True)
    assert token.shape == (2, 64)
    model.backbone.cls_token += 1
    again, other = model.backbone(images, class_token=True)
    assert all(torch.equal(a, b) for a, b in zip(maps[:3], again[:3]))
    assert not torch.equal(token, other)
    without = litevit.create_backbone("lit_ti", depths=(1, 1, 1, 1))
    assert not without.has_class_token
    with pytest.raises(ValueError, match="has no class token"):
        without(images, class_token=True)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"class_token": True}, "class_token=True needs position='absolute'"),
        ({"sr_ratios": (8, 4, 2, 1)}, "sr_ratios > 1 need position='absolute'"),
        ({"merging": "max"}, "merging must be"),
        ({"position": "rotary"}, "position must be"),
        ({"num_heads": (1, 1, 5, 5)}, "multiple of num_heads"),
        ({"table_size": 16}, "table_size must be at least 32"),
    ],
)
def test_wrong_configs(overrides: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        litevit.create_backbone("lit_s", **overrides)
