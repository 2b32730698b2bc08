"""Official Semantic FPN (LIT, LITv2) and SegFormer (LVT) checkpoints <-> litevit, bit for bit.

Only names change. The backbone's part is converted by its own module (`lit.py`, `lvt.py`), given as a function.
"""

from collections.abc import Callable, Mapping

from litevit.checkpoints.rules import Renamed, Rule, rename

BackboneConversion = Callable[[Mapping], Renamed]

FPN_RULES: tuple[Rule, ...] = (
    Rule("neck.lateral_convs.{}.conv.**", "fpn.pyramid.inner_blocks.{}.0.**"),
    Rule("neck.fpn_convs.{}.conv.**", "fpn.pyramid.layer_blocks.{}.0.**"),
)
# Official branches number blocks and upsamplings together: blocks at 0, 2, 4.
SEMANTIC_FPN_RULES: tuple[Rule, ...] = (
    *FPN_RULES,
    *(Rule(f"decode_head.scale_heads.{{}}.{2 * j}.conv.**", f"head.branches.{{}}.{j}.0.**") for j in range(3)),
    *(Rule(f"decode_head.scale_heads.{{}}.{2 * j}.bn.**", f"head.branches.{{}}.{j}.1.**") for j in range(3)),
    Rule("decode_head.conv_seg.**", "head.classifier.**"),
)
SEGFORMER_RULES: tuple[Rule, ...] = (
    *(Rule(f"decode_head.linear_c{i + 1}.proj.**", f"head.projections.{i}.**") for i in range(4)),
    Rule("decode_head.linear_fuse.conv.**", "head.fuse.0.**"),
    Rule("decode_head.linear_fuse.bn.**", "head.fuse.1.**"),
    Rule("decode_head.linear_pred.**", "head.classifier.**"),
    Rule("decode_head.conv_seg.**", None),  # owned by the framework's base class, never used
)


def is_segformer(state: Mapping[str, object]) -> bool:
    """Whether a state (official or ours) has SegFormer's head."""
    return any(key.startswith(("decode_head.linear_pred.", "head.projections.")) for key in state)


def to_ours(state: Mapping, backbone: BackboneConversion) -> Renamed:
    """Args: state: official keys, no wrapping; backbone: its `to_ours`. Returns: our keys."""
    rules = SEGFORMER_RULES if is_segformer(state) else SEMANTIC_FPN_RULES
    return with_backbone(state, backbone, lambda rest: rename(rest, rules))


def to_official(state: Mapping, backbone: BackboneConversion) -> Renamed:
    """The inverse of `to_ours`, less what has no place here. Args: backbone: its `to_official`."""
    rules = SEGFORMER_RULES if is_segformer(state) else SEMANTIC_FPN_RULES
    return with_backbone(state, backbone, lambda rest: rename(rest, rules, reverse=True))


def with_backbone(state: Mapping, backbone: BackboneConversion, rest: BackboneConversion) -> Renamed:
    """Converts the keys below `backbone.` by one function and the others by another."""
    prefix = "backbone."
    inner = backbone({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    outer = rest({k: v for k, v in state.items() if not k.startswith(prefix)})
    return Renamed(
        {prefix + k: v for k, v in inner.state.items()} | outer.state,
        {prefix + k: prefix + v for k, v in inner.used.items()} | outer.used,
        (*(prefix + k for k in inner.dropped), *outer.dropped),
        (*(prefix + k for k in inner.unexpected), *outer.unexpected),
    )
