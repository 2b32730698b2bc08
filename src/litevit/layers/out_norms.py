"""LayerNorms on what a backbone hands out (never on what flows on to the next stage)."""

from collections.abc import Sequence
from typing import Literal

from torch import nn

OutNorms = Literal["none", "detection", "segmentation"]
FIRST_NORMED: dict[str, int | None] = {"none": None, "detection": 1, "segmentation": 0}


def build_out_norms(kind: OutNorms, channels: Sequence[int]) -> nn.ModuleList:
    """One module per map: LayerNorm (eps 1e-5) or Identity.

    Args:
        kind: `"none"`; `"detection"` normalises maps 2-4; `"segmentation"` normalises all four.
        channels: channels of each map.
    """
    if kind not in FIRST_NORMED:
        raise ValueError(f"out_norms must be one of {tuple(FIRST_NORMED)}, got {kind!r}")
    first = FIRST_NORMED[kind]
    normed = [first is not None and i >= first for i in range(len(channels))]
    return nn.ModuleList(nn.LayerNorm(c, eps=1e-5) if on else nn.Identity() for c, on in zip(channels, normed))
