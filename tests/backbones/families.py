"""Small configurations, one per mechanism of every family, for tests that hold for all backbones."""

from torch import nn

import litevit

# name -> (model, overrides). The name says the mechanism.
SMALL: dict[str, tuple[str, dict]] = {
    "lit": ("lit_s", {"embed_dims": (8, 16, 32, 64), "depths": (1, 1, 2, 1), "num_heads": (1, 1, 1, 2)}),
    "lit_ti": ("lit_ti", {"embed_dims": (8, 16, 32, 64), "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 2)}),
    "lit_uniform": ("lit_s_uniform", {"embed_dims": (8, 16, 32, 64), "depths": (1,) * 4, "num_heads": (1, 1, 1, 2)}),
    "litv2": ("litv2_s", {"embed_dim": 8, "depths": (1, 1, 2, 1), "num_heads": (1, 1, 4, 4), "alpha": 0.5}),
    "litv2_ws4": (
        "litv2_s",
        {"embed_dim": 8, "depths": (1,) * 4, "num_heads": (1, 1, 4, 4), "alpha": 0.9, "window_sizes": (0, 0, 4, 1)},
    ),
    "pvt": ("pvt_s", {"embed_dims": (8, 16, 32, 64), "depths": (1,) * 4, "num_heads": (1, 1, 1, 2)}),
    "pvt_msa": ("pvt_s_msa", {"embed_dims": (8, 16, 32, 64), "depths": (1,) * 4, "num_heads": (1, 1, 1, 2)}),
    "pvt_dtm": ("pvt_s_dtm", {"embed_dims": (8, 16, 32, 64), "depths": (1,) * 4, "num_heads": (1, 1, 1, 2)}),
    "swin_dtm": ("swin_ti_dtm", {"embed_dim": 8, "depths": (2, 1, 2, 1), "num_heads": (1, 1, 1, 2)}),
    "lvt": ("lvt", {"embed_dims": (16, 16, 32, 64), "depths": (1,) * 4, "num_heads": (2, 2, 2, 4)}),
}
# How sides that fill no patch are divided by 4 on entry and by 2 between stages; ceil, floor where nothing is said.
GRIDS: dict[str, tuple[str, str]] = {
    "lit_ti": ("floor", "floor"),
    "pvt": ("floor", "floor"),
    "pvt_msa": ("floor", "floor"),
    "pvt_dtm": ("floor", "floor"),
    "lvt": ("ceil", "ceil"),
}
CLASSIFIERS = {**SMALL, "lvt_plain": ("lvt_plain", SMALL["lvt"][1])}


def backbone(key: str, out_norms: str = "none", **overrides) -> nn.Module:
    name, small = SMALL[key]
    return litevit.create_backbone(name, out_norms=out_norms, **{**small, **overrides})


def classifier(key: str, **overrides) -> nn.Module:
    name, small = CLASSIFIERS[key]
    return litevit.create_model(name, **{"num_classes": 5, **small, **overrides})
