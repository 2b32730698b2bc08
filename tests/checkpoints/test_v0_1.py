"""Files written by litevit 0.1 give the outputs they gave; see tests/data/v0_1/README.md."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import litevit

DATA = Path(__file__).parents[1] / "data" / "v0_1"
CASES = json.loads((DATA / "cases.json").read_text())


def overrides(name: str) -> dict:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in CASES[name]["overrides"].items()}


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_the_same_logits(name):
    model = litevit.create_model(name, **overrides(name)).eval()
    file = DATA / f"{name}.safetensors"
    report = litevit.load_weights(model, file)
    assert set(report.used) == set(model.state_dict())
    assert not report.missing
    assert set(report.converted) < set(load_file(file))
    images = torch.linspace(-1, 1, 3 * 64 * 64).view(1, 3, 64, 64).sin()
    torch.testing.assert_close(model(images)[0], torch.tensor(CASES[name]["logits"]), rtol=1e-4, atol=1e-5)


def test_into_a_backbone_and_not_into_another_model():
    options = {k: v for k, v in overrides("lit_s").items() if k != "num_classes"}
    backbone = litevit.create_backbone("lit_s", **options)
    report = litevit.load_weights(backbone, DATA / "lit_s.safetensors")
    assert set(report.used) == set(backbone.state_dict())
    with pytest.raises(ValueError, match="is not a checkpoint of this model"):
        litevit.load_weights(litevit.create_model("litv2_s"), DATA / "lit_s.safetensors")
