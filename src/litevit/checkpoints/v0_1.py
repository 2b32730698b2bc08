"""Files written by litevit 0.1: the same tensors under other names.

Since then a stage's entry and its position table are modules of their own beside the stage, Swin has the skeleton of
the other families, and the kernel of token merging is a matrix.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from litevit.checkpoints.lit import flatten_merging

_RENAMED = (
    (re.compile(r"(^|\.)stages\.(\d)\.embed\."), r"\1embeds.\2."),
    (re.compile(r"(^|\.)pos_embeds\.(\d)$"), r"\1positions.\2.table"),
)
_SWIN = re.compile(r"^(backbone\.)?trunk\.layers\.\d\.")
_RENAMED_SWIN = (
    (re.compile(r"^(backbone\.)?trunk\.patch_embed\."), r"\1embeds.0."),
    (re.compile(r"^(backbone\.)?trunk\.layers\.(\d)\.downsample\."), r"\1embeds.\2."),
    (re.compile(r"^(backbone\.)?trunk\.layers\.(\d)\.blocks\."), r"\1stages.\2.blocks."),
)


def upgrade(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Brings litevit's keys of 0.1 to today's; today's stay as they are.

    Args:
        state: litevit's keys of a model or a backbone.

    Returns:
        The state under today's keys, and today's key of every key.
    """
    rules = _RENAMED_SWIN if any(_SWIN.match(key) for key in state) else _RENAMED
    names = dict(zip(state, state))
    for pattern, target in rules:
        names = {key: pattern.sub(target, name) for key, name in names.items()}
    return flatten_merging({names[key]: value for key, value in state.items()}), names
