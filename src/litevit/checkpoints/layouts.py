"""Which layout a state dict has, and the way from any of them to litevit's keys of a whole model, and back.

Litevit's keys of a whole model are `backbone.*` and the task's own; a bare backbone is one without the latter.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

from litevit.checkpoints import lit, lvt, mmdet, mmseg, v0_1
from litevit.checkpoints.rules import Renamed

OURS = ("stages.", "trunk.", "backbone.stages.", "backbone.trunk.")
LIT_HEAD = ("norm.", "head.")
LVT_HEAD = ("norm.", "head.", "cls_token", "class_blocks.", "aux_head.")
OFFICIAL_MMSEG = ("decode_head.",)
OFFICIAL_MMDET = ("bbox_head.", "rpn_head.", "roi_head.")
OURS_MMSEG = ("head.branches.", "head.projections.")
OURS_MMDET = ("rpn.", "roi_heads.", "head.cls_convs.")
KEPT = "official."  # a converted file keeps here what has no place in litevit, for the way back


class Layout(NamedTuple):
    """Where a state dict comes from: the converter of its backbone and classifier."""

    name: str
    mark: re.Pattern[str]  # found in one of its keys
    head: tuple[str, ...]  # our keys that belong to the classifier, not to its backbone
    to_ours: Callable[[Mapping[str, Tensor]], Renamed]
    to_official: Callable[[Mapping[str, Tensor]], Renamed]


_LIT = re.compile(r"(^|\.)patch_embed1?\.proj\.weight$")
_LVT = re.compile(r"(^|\.)backbone\.0\.0\.proj\.weight$")
LIT = Layout("official LIT, LITv2 or PVT", _LIT, LIT_HEAD, lit.to_ours, lit.to_official)
LVT = Layout("official LVT", _LVT, LVT_HEAD, lvt.to_ours, lvt.to_official)
LAYOUTS = (LIT, LVT)


class Converted(NamedTuple):
    """A state dict under the other keys. Every source key is in one of `origin`, `dropped` and `unexpected`."""

    layout: str  # of the source
    state: dict[str, Tensor]
    origin: dict[str, str]  # source key -> target key
    dropped: tuple[str, ...]  # source keys the key maps name as not needed
    unexpected: tuple[str, ...]  # source keys the key maps do not know
    prefix: str = ""  # "backbone." around all keys of a backbone, which is not restored on the way back


def is_ours(keys: Mapping[str, object]) -> bool:
    """Whether the keys are litevit's."""
    return any(key.startswith(OURS) for key in keys)


def is_official(keys: Mapping[str, object]) -> bool:
    """Whether the keys are of an official layout, and not litevit's."""
    return not is_ours(keys) and any(known.mark.search(key) for known in LAYOUTS for key in keys)


def _any(keys: Mapping[str, object], prefixes: tuple[str, ...]) -> bool:
    return any(key.startswith(prefixes) for key in keys)


def to_ours(state: Mapping[str, Tensor]) -> Converted:
    """Brings bare keys of any known layout, ours included, to litevit's keys of a whole model."""
    if is_ours(state):
        bare = not _any(state, ("backbone.",))
        kept = tuple(key for key in state if key.startswith(KEPT))
        own, names = v0_1.upgrade({key: value for key, value in state.items() if key not in kept})
        prefix = "backbone." if bare else ""
        origin = {key: prefix + name for key, name in names.items()}
        return Converted("litevit", {prefix + key: value for key, value in own.items()}, origin, kept, ())
    layout = next((known for known in LAYOUTS if any(known.mark.search(key) for key in state)), None)
    if layout is None:
        first = ", ".join(list(state)[:4])
        raise ValueError(
            f"No known layout has these keys: {first}, ... Known are those of the official LIT, LITv2, PVT and LVT "
            "checkpoints (classifiers, backbones, mmdetection and mmsegmentation models) and litevit's own."
        )
    prefix = ""
    if _any(state, OFFICIAL_MMSEG):
        result = mmseg.to_ours(state, layout.to_ours)
    elif _any(state, OFFICIAL_MMDET):
        result = mmdet.to_ours(state, layout.to_ours)
    else:
        prefix = "backbone." if _any(state, ("backbone.patch_embed", "backbone.backbone.")) else ""
        result = _classifier(state, layout, prefix)
    return Converted(layout.name, result.state, _origin(state, result), result.dropped, result.unexpected, prefix)


def _classifier(state: Mapping[str, Tensor], layout: Layout, prefix: str) -> Renamed:
    """A classifier or a backbone, flat, or below the prefix `backbone.` as a detector's file holds it."""

    def place(key: str) -> str:
        return key if key.startswith(layout.head) else f"backbone.{key}"

    result = layout.to_ours({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    beside = tuple(key for key in state if not key.startswith(prefix))
    return Renamed(
        {place(key): value for key, value in result.state.items()},
        {prefix + key: place(new) for key, new in result.used.items()},
        tuple(prefix + key for key in result.dropped),
        tuple(prefix + key for key in result.unexpected) + beside,
    )


def _origin(state: Mapping[str, Tensor], result: Renamed) -> dict[str, str]:
    """Source key -> target key. HiLo's l_q and h_qkv become rows of one in_proj, so they share a target."""
    gone = {*result.dropped, *result.unexpected}
    fused = {key: re.sub(r"\.(l_q|h_qkv)\.", ".in_proj.", key) for key in state if key not in gone}
    return {key: result.used[key] if key in result.used else result.used[other] for key, other in fused.items()}


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `to_ours`, with the tensors that a converted file kept below `official.`.

    Args:
        state: litevit's keys of a model or a backbone.
    """
    if not is_ours(state):
        raise ValueError(
            "These keys are not litevit's; only a litevit checkpoint has a way back to the official layout"
        )
    own = to_ours(state).state
    kept = {key.removeprefix(KEPT): value for key, value in state.items() if key.startswith(KEPT)}
    layout = _layout_of_ours(own)
    if _any(own, OURS_MMSEG):
        result = mmseg.to_official(own, layout.to_official)
    elif _any(own, OURS_MMDET):
        result = mmdet.to_official(own, layout.to_official)
    else:
        result = layout.to_official({key.removeprefix("backbone."): value for key, value in own.items()})
    if result.unexpected:
        raise ValueError(f"No official layout has a place for {', '.join(result.unexpected[:4])}")
    return {**result.state, **kept}


def official_container(state: Mapping[str, Tensor]) -> str | None:
    """The key below which the official files of this kind hold their tensors; None: flat."""
    if _any(state, (*OFFICIAL_MMSEG, *OFFICIAL_MMDET)):
        return "state_dict"  # written by mmcv's runner
    if any(key.startswith(("pos_embed", "patch_embed1.")) for key in state):
        return None  # lit_ti.pth, pvt_full_msa.pth
    if any(_LVT.search(key) for key in state):
        return "state_dict" if "head.weight" in state else None  # timm's saver; lvt_imagenet_pretrained.pth.tar
    return "model"


def _layout_of_ours(own: Mapping[str, Tensor]) -> Layout:
    swin = "backbone.stages.0.blocks.0.attn.relative_position_bias_table"  # LIT has none in its first stage
    if swin in own or not _any(own, ("backbone.stages.",)):
        raise ValueError("Only LIT, LITv2, PVT and LVT have an official layout; this model has another backbone")
    return LVT if any(key.endswith("attn.value_weight") for key in own) else LIT
