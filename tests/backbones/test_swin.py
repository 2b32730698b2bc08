"""Swin-Ti as a backbone: timm's blocks, our merging."""

import pytest
import timm
import torch

import litevit
from litevit.checkpoints import v0_1
from litevit.layers.deformable_merging import DeformableTokenMerging


@torch.no_grad()
def test_linear_merging_is_timms_swin() -> None:
    ours = litevit.create_model("swin_ti").eval()
    theirs = timm.create_model("swin_tiny_patch4_window7_224").eval()
    state = {f"trunk.{k}": v for k, v in theirs.state_dict().items() if not k.startswith(("norm.", "head."))}
    ours.backbone.load_state_dict(v0_1.upgrade(state)[0])
    ours.norm.load_state_dict(theirs.norm.state_dict())
    ours.head.load_state_dict(theirs.head.fc.state_dict())
    images = torch.randn(1, 3, 224, 224)
    torch.testing.assert_close(ours(images), theirs(images), atol=1e-5, rtol=1e-4)


def test_deformable_merging_replaces_the_three_linear_ones() -> None:
    with torch.device("meta"):
        plain, dtm = litevit.create_model("swin_ti"), litevit.create_model("swin_ti_dtm")
    merges = [m for m in dtm.modules() if isinstance(m, DeformableTokenMerging)]
    assert [(m.proj.in_features, m.proj.out_features) for m in merges] == [(384, 192), (768, 384), (1536, 768)]
    # Linear: LN of 4 C and (4 C) x (2 C). Deformable: 2 x 2 kernel with bias, 8 offsets with bias, BatchNorm.
    per_merge = [(8 * c * c + 8 * c, 8 * c * c + 2 * c + 32 * c + 8 + 4 * c) for c in (96, 192, 384)]
    difference = sum(b - a for a, b in per_merge)
    assert sum(p.numel() for p in dtm.parameters()) - sum(p.numel() for p in plain.parameters()) == difference


@pytest.mark.parametrize("name", ["swin_ti", "swin_ti_dtm"])
@torch.no_grad()
def test_sizes_that_fill_no_window(name: str) -> None:
    model = litevit.create_backbone(name, embed_dim=8, depths=(2, 1, 1, 1), num_heads=(1, 1, 1, 2)).eval()
    for size in [(32, 32), (61, 90), (224, 250)]:
        assert all(x.isfinite().all() for x in model(torch.randn(1, 3, *size)))
