"""What the library asks of a family of backbones; each file of this folder ends with its `FAMILY`."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import nn

from litevit.layers.out_norms import OutNorms


class Family(NamedTuple):
    """One family of backbones."""

    config: type  # its frozen dataclass
    model: Callable[[Any], nn.Module]  # config -> backbone
    variants: Mapping[str, Any]  # name -> config: the paper's table
    dense: Callable[[Any, OutNorms], Any]  # config -> that of a backbone which hands out maps to a dense task
    crop_pct: float = 0.875  # side of the ImageNet crop over the resized shorter side
