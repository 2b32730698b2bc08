"""Semantic FPN and SegFormer against stored outputs of the published code: tests/data/segmentation/README.md."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import golden
import litevit
from litevit.layers.features import FeatureSpec
from litevit.tasks.segmentation import View, segmentation_loss, strips

# A case that is `same_as` another stores what that one stores: LIT-S and LITv2-S have maps of the same channels.
CASES = {n: golden.cases("segmentation")[c.get("same_as", n)] | c for n, c in golden.cases("segmentation").items()}
MODELS = {
    "dense/lit_ti_fpn_r50_512x512_80k_ade20k": "semantic_fpn_lit_ti",
    "dense/lit_s_fpn_r50_512x512_80k_ade20k": "semantic_fpn_lit_s",
    "dense/litv2_s_fpn_r50_512x512_80k_ade20k": "semantic_fpn_litv2_s",
    "dense/litv2_m_fpn_r50_512x512_80k_ade20k": "semantic_fpn_litv2_m",
    "dense/litv2_b_fpn_r50_512x512_80k_ade20k": "semantic_fpn_litv2_b",
    "dense/segformer.lvt.512x512.ade.160k": "segformer_lvt",
    "lvt/segformer_lvt": "segformer_lvt",
}
SLOW = ("litv2_b", "lit_s_fpn", "1x512x512", "80k_ade20k_320x416", "_ti_semfpn", "s_semfpn_320x416")


def of_kind(kind: str, panoptic: bool = False) -> list:
    names = [n for n, c in CASES.items() if c["kind"] == kind and ("panoptic" in n) == panoptic]
    return [pytest.param(n, marks=[pytest.mark.slow] if any(s in n for s in SLOW) else []) for n in names]


def stored(name: str) -> dict[str, np.ndarray]:
    file = CASES[name].get("same_as", name)
    with np.load(golden.DATA / "segmentation" / f"{file}.npz") as arrays:
        return dict(arrays)


def check(name: str, got: dict[str, Tensor]) -> None:
    """Compares every stored array that `got` has, and notes how much of its tolerance is used."""
    arrays, specs = stored(name), CASES[name]["arrays"]
    worst = {key: golden.worst_deviation(got[key], arrays[key], specs[key]) for key in specs if key in got}
    assert worst
    for key, share in worst.items():
        golden.note("segmentation", f"{name} {key}", share)
    assert max(worst.values()) <= 1, worst


def model_from(manifest: str, model: nn.Module | None = None) -> nn.Module:
    model = model or litevit.create_model(MODELS[manifest])
    report = litevit.load_weights(model, golden.official_state(manifest))
    assert (report.missing, report.unexpected) == ((), ())
    return model.eval()


class FixedMaps(nn.Module):
    """A backbone that returns what it was given."""

    def __init__(self, maps: tuple[Tensor, ...]):
        super().__init__()
        self.maps = maps
        self.features = tuple(FeatureSpec(x.shape[1], 4 * 2**i) for i, x in enumerate(maps))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.maps


def maps_for(model: nn.Module, case: dict) -> tuple[Tensor, ...]:
    H, W = case["size"]
    odd = [(51, 82), (25, 41), (12, 20), (6, 10)]
    sizes = odd if H % 32 else [(H // s, W // s) for s in (4, 8, 16, 32)]
    channels = [f.channels for f in model.backbone.features]
    return tuple(golden.golden_map(1, c, *size, case["seed"] + i) for i, (c, size) in enumerate(zip(channels, sizes)))


@pytest.mark.parametrize("name", of_kind("head"))
@torch.no_grad()
def test_head(name):
    case = CASES[name]
    model = model_from(case["manifest"])
    model.backbone = FixedMaps(maps_for(model, case))
    images = torch.zeros(1, 3, *case["size"])
    raw = model.forward_raw(images)
    check(name, raw | {"logits_full": model(images)})

    size, original = tuple(case["size"]), tuple(case["original_size"])
    view = View(raw["logits"], size, size)  # the chain of `segment`, a strip of rows at a time
    labels = torch.cat([view.rows(original, a, b)[0].argmax(0) for a, b in strips(original, 10_000)])
    k = CASES[name]["arrays"]["argmax_rescaled"]["k"]
    different = float((labels.flatten()[::k].numpy() != stored(name)["argmax_rescaled"]).mean())
    golden.note("segmentation", f"{name} argmax_rescaled", different / 0.001)
    assert different <= 0.001

    if "loss_seg" in case:
        masks = torch.from_numpy(np.random.RandomState(1100).randint(0, 160, (1, *size)))
        masks[masks >= 150] = 255
        loss = float(model(images, masks)["loss_seg"])
        golden.note("segmentation", f"{name} loss_seg", golden.share_of(loss, case["loss_seg"], abs_=1e-5))
        assert loss == pytest.approx(case["loss_seg"], abs=1e-5)
        assert torch.equal(segmentation_loss(raw["logits"], masks), model(images, masks)["loss_seg"])


@pytest.mark.parametrize("name", of_kind("whole"))
@torch.no_grad()
def test_whole_model(name):
    case = CASES[name]
    model = model_from(case["manifest"])
    images = golden.golden_input(1, *case["size"], seed=case["seed"])
    raw = model.forward_raw(images)
    check(name, raw | {"logits_full": model(images)})


@pytest.mark.parametrize(
    "manifest",
    [pytest.param(m, marks=[pytest.mark.slow] * any(s in m for s in ("litv2_b", "litv2_m", "/lit_s"))) for m in MODELS],
)
def test_every_key_of_the_official_checkpoint_has_its_place(manifest):
    """... and the way back gives the same tensors."""
    from litevit.checkpoints import layouts

    official = golden.official_state(manifest)
    model = litevit.create_model(MODELS[manifest])
    report = litevit.load_weights(model, official)
    assert not report.missing
    assert set(report.used) == set(model.state_dict())
    unused = {k for k in official if k.startswith("decode_head.conv_seg")} if "segformer" in manifest else set()
    assert {k for k in report.dropped if k.startswith("decode_head")} == unused
    back = layouts.to_official(model.state_dict())
    assert set(official) - set(back) == set(report.dropped)
    assert all(torch.equal(back[key], official[key]) for key in back if key in official)
