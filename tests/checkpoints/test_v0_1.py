"""Files written by litevit 0.1 give the outputs they gave; see tests/data/v0_1/README.md."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import litevit
from litevit.checkpoints.convert import convert

DATA = Path(__file__).parents[1] / "data" / "v0_1"
CASES = json.loads((DATA / "cases.json").read_text())
IMAGES = torch.linspace(-1, 1, 3 * 64 * 64).view(1, 3, 64, 64).sin()


def overrides(name: str) -> dict:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in CASES[name]["overrides"].items()}


def of_the_backbone(name: str) -> dict:
    heads = ("num_classes", "num_class_blocks", "num_class_heads", "class_mlp_ratio")
    return {k: v for k, v in overrides(name).items() if k not in heads}


def as_written_by_0_1(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Today's keys of a model or a backbone under the names they had, the kernels of token merging in four axes."""
    swin = any(re.search(r"stages\.0\.blocks\.0\.attn\.relative_position_bias_table", key) for key in state)
    old = {}
    for key, value in state.items():
        if key.endswith(".proj.weight") and key.replace(".proj.", ".offset.") in state:
            C = value.shape[1] // 4
            value = value.view(-1, 2, 2, C).permute(0, 3, 1, 2).contiguous()
        if swin:
            key = re.sub(r"embeds\.0\.", "trunk.patch_embed.", key)
            key = re.sub(r"embeds\.(\d)\.", r"trunk.layers.\1.downsample.", key)
            key = re.sub(r"stages\.(\d)\.blocks\.", r"trunk.layers.\1.blocks.", key)
        key = re.sub(r"embeds\.(\d)\.", r"stages.\1.embed.", key)
        old[re.sub(r"positions\.(\d)\.table$", r"pos_embeds.\1", key)] = value
    return old


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_the_same_logits(name: str) -> None:
    model = litevit.create_model(name, weights=DATA / f"{name}.safetensors", **overrides(name)).eval()
    torch.testing.assert_close(model(IMAGES)[0], torch.tensor(CASES[name]["logits"]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_every_key_is_accounted_for(name: str) -> None:
    model = litevit.create_model(name, **overrides(name))
    file = DATA / f"{name}.safetensors"
    report = litevit.load_weights(model, file)
    assert (report.missing, report.unexpected, report.dropped, report.resized) == ((), (), (), {})
    keys = [report.converted.get(key, key) for key in load_file(file)]
    assert sorted(keys) == sorted(report.used) == sorted(model.state_dict())
    renamed = r"(^|\.)(stages\.\d\.embed\.|pos_embeds\.\d|trunk\.)"
    assert set(report.converted) == {key for key in load_file(file) if re.search(renamed, key)}


@pytest.mark.parametrize("name", CASES)
def test_a_backbone_alone(name: str) -> None:
    """From a classifier's file, and from one that holds a backbone."""
    backbone = litevit.create_backbone(name, **of_the_backbone(name))
    report = litevit.load_weights(backbone, DATA / f"{name}.safetensors")
    assert set(report.used) == set(backbone.state_dict())
    assert not report.missing
    again = litevit.create_backbone(name, **of_the_backbone(name))
    report = litevit.load_weights(again, as_written_by_0_1(backbone.state_dict()))
    assert set(report.used) == set(backbone.state_dict())
    for key, value in backbone.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


def test_not_into_another_model() -> None:
    with pytest.raises(ValueError, match="is not a checkpoint of this model"):
        litevit.load_weights(litevit.create_model("litv2_s"), DATA / "lit_s.safetensors")


@pytest.mark.parametrize("name", CASES)
def test_the_way_back_to_0_1_of_these_tests_is_the_real_one(name: str) -> None:
    """Dense files are made by it below."""
    file = load_file(DATA / f"{name}.safetensors")
    model = litevit.create_model(name, weights=DATA / f"{name}.safetensors", **overrides(name))
    back = as_written_by_0_1(model.state_dict())
    assert back.keys() == file.keys()
    for key, value in file.items():
        assert torch.equal(back[key], value.to(back[key].dtype)), key


DENSE = [
    ("retinanet_lit_ti", "lit_ti"),
    ("retinanet_litv2_s", "litv2_s"),
    ("semantic_fpn_lit_s", "lit_s"),
    ("segformer_lvt", "lvt"),
]


@pytest.mark.parametrize(("name", "backbone"), DENSE)
@torch.no_grad()
def test_dense_files(name: str, backbone: str, tmp_path: Path) -> None:
    """A whole dense model of 0.1, then the backbone of a classifier of 0.1 in a dense model."""
    options = of_the_backbone(backbone) | {"num_classes": 2}
    torch.manual_seed(0)
    model = litevit.create_model(name, **options).eval()
    file = tmp_path / "dense.safetensors"
    save_file(as_written_by_0_1(model.state_dict()), file)
    again = litevit.create_model(name, weights=file, **options).eval()
    report = litevit.load_weights(again, file)
    assert (report.missing, report.unexpected, report.dropped) == ((), (), ())
    assert sorted(report.converted.get(key, key) for key in load_file(file)) == sorted(model.state_dict())
    expected, got = model.forward_raw(IMAGES), again.forward_raw(IMAGES)
    assert expected.keys() == got.keys()
    assert all(torch.equal(got[key], expected[key]) for key in got)

    report = litevit.load_weights(model, DATA / f"{backbone}.safetensors")
    fresh = {key for key in model.state_dict() if not key.startswith("backbone.") or "out_norms" in key}
    assert set(report.missing) == fresh
    assert set(report.used) == set(model.state_dict()) - fresh
    alone = litevit.create_backbone(backbone, **of_the_backbone(backbone))
    litevit.load_weights(alone, DATA / f"{backbone}.safetensors")
    for key, value in alone.state_dict().items():
        assert torch.equal(model.state_dict()[f"backbone.{key}"], value), key


@pytest.mark.parametrize("name", [n for n in CASES if n != "swin_ti_dtm"])  # has no official layout
@torch.no_grad()
def test_to_the_official_layout(name: str, tmp_path: Path) -> None:
    target = tmp_path / "official.pth"
    assert convert(DATA / f"{name}.safetensors", target).layout_from == "litevit"
    model = litevit.create_model(name, weights=target, **overrides(name)).eval()
    torch.testing.assert_close(model(IMAGES)[0], torch.tensor(CASES[name]["logits"]), rtol=1e-4, atol=1e-5)
