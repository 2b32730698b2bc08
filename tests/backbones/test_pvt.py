"""PVT-S and the rows of LIT's ablations that start from it."""

import pytest
import torch
from torch import nn

import litevit
from litevit.backbones.lit import AttentionBlock
from litevit.layers.deformable_merging import DeformableTokenMerging


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def build(name: str) -> nn.Module:
    with torch.device("meta"):
        return litevit.create_model(name)


def test_parameter_count_of_the_published_model() -> None:
    assert count(build("pvt_s_msa")) == 20_185_384


@pytest.mark.parametrize(
    ("name", "attention"),
    [
        ("pvt_s_msa", [3, 4, 6, 3]),
        ("pvt_s_msa_remove_1", [0, 4, 6, 3]),
        ("pvt_s_msa_remove_12", [0, 0, 6, 3]),
        ("pvt_s_msa_remove_123", [0, 0, 0, 3]),
        ("pvt_s_msa_remove_1234", [0, 0, 0, 0]),
    ],
)
def test_attention_removed_per_stage(name: str, attention: list[int]) -> None:
    model = build(name)
    found = [sum(isinstance(b, AttentionBlock) for b in stage.blocks) for stage in model.backbone.stages]
    assert found == attention
    assert not any(
        b.attn.sr_ratio > 1 for s in model.backbone.stages for b in s.blocks if isinstance(b, AttentionBlock)
    )


def test_spatial_reduction_costs_parameters_and_merging_is_replaced() -> None:
    plain, reduced, deformable = build("pvt_s_msa"), build("pvt_s"), build("pvt_s_dtm")
    # Per block with R > 1: an R x R convolution with bias, and a LayerNorm.
    extra = sum(
        depth * (r * r * c * c + c + 2 * c) for depth, c, r in zip((3, 4, 6), (64, 128, 320), (8, 4, 2), strict=True)
    )
    assert count(reduced) - count(plain) == extra
    assert [b.attn.sr_ratio for s in reduced.backbone.stages for b in s.blocks] == [8] * 3 + [4] * 4 + [2] * 6 + [1] * 3
    assert sum(isinstance(m, DeformableTokenMerging) for m in deformable.modules()) == 3
    assert not any(isinstance(m, DeformableTokenMerging) for m in reduced.modules())


def test_without_attention_the_answer_still_depends_on_the_image() -> None:
    """The class token of `pvt_s_msa_remove_1234` saw no patch: every image got the same logits."""
    options = {"embed_dims": (16, 32, 64, 128), "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 4)}
    for name in ("pvt_s_msa_remove_123", "pvt_s_msa_remove_1234"):
        model = litevit.create_model(name, **options).eval()
        first, second = model(torch.randn(2, 3, 64, 64))
        assert not torch.equal(first, second), name
    with pytest.raises(ValueError, match="class_token=True needs attention in stage 4"):
        litevit.create_model("pvt_s_msa", attention=(True, True, True, False), **options)
