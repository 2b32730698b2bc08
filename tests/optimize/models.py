"""Small models of every family with weights that are not at their start, for the tests of `litevit.optimize`."""

import torch
from torch import nn

import litevit

LIT = {"embed_dims": (32, 64, 128, 256), "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8), "num_classes": 10}
MODELS = {
    "lit_s": LIT,
    "lit_ti": LIT,
    "litv2_s": {"embed_dim": 32, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8), "num_classes": 10},
    "lvt": {"depths": (1, 1, 1, 1), "num_classes": 10},
    "pvt_s": LIT,
    "swin_ti_dtm": {"embed_dim": 32, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 4, 8), "num_classes": 10},
}


def stirred(name: str, **options: object) -> nn.Module:
    """Random norms, offsets and tables: at initialisation BatchNorm is the identity, and folding proves nothing."""
    torch.manual_seed(0)
    model = litevit.create_model(name, **{**MODELS[name], **options})
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


def close(ours: torch.Tensor, theirs: torch.Tensor, share: float = 2e-5) -> None:
    """Equal to a share of the largest value."""
    assert ours.shape == theirs.shape
    error = (ours.double() - theirs.double()).abs().max()
    assert error <= share * theirs.double().abs().max(), f"{error} of {theirs.abs().max()}"
