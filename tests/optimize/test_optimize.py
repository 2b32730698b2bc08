"""optimize_for_inference: the same function, fewer operations, the model untouched."""

import copy

import pytest
import torch
from torch import nn

import litevit
from litevit.layers.attention import RelativeAttention

SMALL = {"embed_dim": 32, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}
SMALL_LIT = {"embed_dims": (32, 64, 128, 256), "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}


def stir(model: nn.Module) -> nn.Module:
    """Random norms and offsets: at initialisation BatchNorm is the identity and folding would prove nothing."""
    torch.manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                module.weight.normal_(1, 0.2)
                module.bias.normal_()
            if hasattr(module, "offset"):
                module.offset.weight.normal_(0, 0.1)
            if hasattr(module, "relative_position_bias_table"):
                module.relative_position_bias_table.normal_()
    return model


@pytest.mark.parametrize(("name", "options"), [("litv2_s", SMALL), ("lit_s", SMALL_LIT)])
@pytest.mark.parametrize("size", [(224, 224), (96, 160)])
def test_same_function(name, options, size):
    model = stir(litevit.create_model(name, num_classes=10, drop_path_rate=0.1, **options))
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fused = litevit.optimize_for_inference(model)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(fused(images), model.eval()(images), rtol=1e-5, atol=1e-5)


def test_the_bias_of_another_grid_is_looked_up_once(monkeypatch):
    model = stir(litevit.create_model("lit_s", num_classes=10, **SMALL_LIT)).eval()
    fused = litevit.optimize_for_inference(model)
    looked_up = []
    look_up = RelativeAttention._look_up
    monkeypatch.setattr(RelativeAttention, "_look_up", lambda self, H, W: (looked_up.append(H), look_up(self, H, W))[1])
    with torch.no_grad():
        for size, times in ((96, 2), (96, 0), (128, 2), (96, 2), (224, 0)):
            looked_up.clear()
            images = torch.randn(1, 3, size, size)
            out = fused(images)
            assert len(looked_up) == times
            torch.testing.assert_close(out, model(images), rtol=1e-5, atol=1e-5)
        assert copy.deepcopy(fused)(images).shape == (1, 10)
        fused.double()  # a table of another dtype: what is kept is not taken
        torch.testing.assert_close(fused(images.double()), model.double()(images.double()))


def test_a_fixed_bias_follows_what_is_loaded():
    models = [litevit.create_model("lit_s", num_classes=10, **SMALL_LIT).eval() for _ in range(2)]
    fused = [litevit.optimize_for_inference(stir(model)) for model in models]
    with torch.no_grad():
        for parameter in fused[1].parameters():
            parameter.mul_(1.5)
    fused[0].load_state_dict(fused[1].state_dict())
    fused[1].load_state_dict(fused[1].state_dict())
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(fused[0](images), fused[1](images))


def test_only_models_are_optimised():
    with pytest.raises(TypeError, match=r"takes a model .*got 'lvt'"):
        litevit.optimize_for_inference("lvt")


def test_a_fixed_bias_follows_the_model():
    fused = litevit.optimize_for_inference(litevit.create_model("lit_s", **SMALL_LIT))
    assert fused.bfloat16()(torch.zeros(1, 3, 224, 224).bfloat16()).dtype == torch.bfloat16
    biases = [m.fixed_bias for m in fused.modules() if hasattr(m, "fixed_bias")]
    assert [tuple(b.shape) for b in biases] == [(4, 196, 196), (8, 49, 49)]
