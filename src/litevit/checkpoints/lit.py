"""Official LIT, LITv2 and PVT checkpoints <-> litevit, bit for bit.

Only names change, except that HiLo's `l_q` and `h_qkv` are rows of one `in_proj`, and that the kernel of token merging
is a matrix here, (dim, 4 C) tap by tap, and (dim, C, 2, 2) there. The relative position index of the
official classifiers is a constant: dropped on the way in, made again on the way out.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from litevit.checkpoints.rules import Renamed, Rule, rename

_DTM = (
    ("dconv.conv_offset.**", "offset.**"),
    ("dconv.**", "proj.**"),
    ("norm_layer.**", "norm.**"),
)

# LIT-S/M/B and LITv2: merging at the end of a stage; here it is the entry of the next one.
_COLUMNAR = (
    Rule("patch_embed.**", "embeds.0.**"),
    *(Rule(f"layers.{i}.downsample.{a}", f"embeds.{i + 1}.{b}") for i in range(3) for a, b in _DTM),
    Rule("layers.{}.blocks.{}.attn.relative_position_index", None),
    Rule("layers.{}.blocks.{}.mlp.dwconv.dwconv.**", "stages.{}.blocks.{}.mlp.dwconv.**"),
    Rule("layers.{}.blocks.{}.attn.l_kv.**", "stages.{}.blocks.{}.attn.lo_kv.**"),
    Rule("layers.{}.blocks.{}.attn.l_proj.**", "stages.{}.blocks.{}.attn.lo_proj.**"),
    Rule("layers.{}.blocks.{}.attn.h_proj.**", "stages.{}.blocks.{}.attn.hi_proj.**"),
    Rule("layers.{}.blocks.{}.**", "stages.{}.blocks.{}.**"),
)
# LIT-Ti and PVT: the entry belongs to its stage. PVT's entries (patch embeddings) keep their names.
_NUMBERED_DTM = tuple(Rule(f"patch_embed{i + 1}.{a}", f"embeds.{i}.{b}") for i in range(1, 4) for a, b in _DTM)
_NUMBERED = (
    *(Rule(f"pos_embed{i + 1}", f"positions.{i}.table") for i in range(4)),
    Rule("cls_token", "cls_token"),
    *(Rule(f"patch_embed{i + 1}.**", f"embeds.{i}.**") for i in range(4)),
    *(Rule(f"block{i + 1}.{{}}.**", f"stages.{i}.blocks.{{}}.**") for i in range(4)),
)
_OUT_NORMS = tuple(Rule(f"norm{i}.**", f"out_norms.{i}.**") for i in range(4))

COLUMNAR_RULES: tuple[Rule, ...] = (*_COLUMNAR, *_OUT_NORMS)
NUMBERED_RULES: tuple[Rule, ...] = (*_NUMBERED_DTM, *_NUMBERED)
_FUSED = (Rule("layers.{}.blocks.{}.attn.in_proj.**", "stages.{}.blocks.{}.attn.in_proj.**"),)
HEAD_RULES: tuple[Rule, ...] = (Rule("norm.**", "norm.**"), Rule("head.**", "head.**"))


def is_numbered(state: Mapping[str, object]) -> bool:
    """Whether a backbone state (official or ours) is of LIT-Ti's or PVT's kind."""
    return any(key.startswith(("pos_embed", "positions.", "patch_embed1.")) for key in state)


def to_ours(state: Mapping[str, Tensor], *, numbered: bool | None = None) -> Renamed:
    """Args: state: official keys of a backbone or classifier, without prefixes. Returns: ours, heads at top level."""
    if numbered is None:
        numbered = is_numbered(state)
    if numbered:
        result = rename(state, (*NUMBERED_RULES, *HEAD_RULES))
    else:
        result = rename(_fuse_hilo(state), (*_FUSED, *COLUMNAR_RULES, *HEAD_RULES))
    return result._replace(state=flatten_merging(result.state))


def to_official(state: Mapping[str, Tensor], *, numbered: bool | None = None) -> Renamed:
    """The inverse of `to_ours`; classifiers with relative positions get their index buffers back."""
    if numbered is None:
        numbered = is_numbered(state)
    state = _unflatten_merging(state)
    if numbered:
        deformable = "embeds.1.offset.weight" in state
        return rename(state, (*(NUMBERED_RULES if deformable else _NUMBERED), *HEAD_RULES), reverse=True)
    result = rename(state, (*_FUSED, *COLUMNAR_RULES, *HEAD_RULES), reverse=True)
    out = _split_hilo(result.state)
    if "norm.weight" in out:
        out = _with_relative_index(out)
    return result._replace(state=out)


def is_merging(key: str, state: Mapping[str, object]) -> bool:
    """Whether one of our keys is the kernel of a deformable token merging."""
    return key.endswith(".proj.weight") and key.removesuffix("proj.weight") + "offset.weight" in state


def flatten_merging(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Kernels (O, C, 2, 2) of token merging become matrices (O, 4 C), tap by tap."""
    return {
        key: value.permute(0, 2, 3, 1).flatten(1) if is_merging(key, state) and value.ndim == 4 else value
        for key, value in state.items()
    }


def _unflatten_merging(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        key: value.unflatten(1, (2, 2, -1)).permute(0, 3, 1, 2).contiguous() if is_merging(key, state) else value
        for key, value in state.items()
    }


def _fuse_hilo(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`l_q` and `h_qkv` (either may be absent) become the rows [l_q | h_qkv] of `in_proj`."""
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        head, _, kind = key.rpartition(".")
        if head.endswith(".l_q"):
            other = state.get(head.removesuffix("l_q") + "h_qkv." + kind)
            out[head.removesuffix("l_q") + "in_proj." + kind] = value if other is None else torch.cat([value, other])
        elif head.endswith(".h_qkv"):
            if head.removesuffix("h_qkv") + "l_q." + kind not in state:
                out[head.removesuffix("h_qkv") + "in_proj." + kind] = value
        else:
            out[key] = value
    return out


def _split_hilo(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        head, _, kind = key.rpartition(".")
        if not head.endswith(".attn.in_proj"):
            out[key] = value
            continue
        stem = head.removesuffix("in_proj")
        lo_proj = state.get(stem + "l_proj.weight")
        lo_dim = 0 if lo_proj is None else lo_proj.shape[0]
        if lo_dim:
            out[f"{stem}l_q.{kind}"] = value[:lo_dim].clone()
        if lo_dim < value.shape[0]:
            out[f"{stem}h_qkv.{kind}"] = value[lo_dim:].clone()
    return out


def _with_relative_index(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        out[key] = value
        if key.endswith(".relative_position_bias_table"):
            side = (int(value.shape[0] ** 0.5) + 1) // 2
            coords = torch.arange(side)
            delta = coords[:, None] - coords[None, :] + side - 1  # side side
            index = delta.view(side, 1, side, 1) * (2 * side - 1) + delta.view(1, side, 1, side)
            stem = key.removesuffix("relative_position_bias_table")
            out[stem + "relative_position_index"] = index.reshape(side * side, side * side)
    return out
