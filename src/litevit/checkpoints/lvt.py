"""Official LVT checkpoints <-> litevit, bit for bit.

Names change, and shapes: the 1 x 1 convolutions are Linear layers here (a matrix, not (out, in, 1, 1)), and CSA's
grouped 1 x 1 convolution is one matrix per window position, (9, C, C). Official backbone keys begin with
`backbone.` even in a bare backbone's file (`lvt_imagenet_pretrained.pth.tar`); in a dense model they sit below one
more `backbone.`.
"""

from collections.abc import Mapping

from torch import Tensor

from litevit.checkpoints.rules import Renamed, Rule, rename

BACKBONE_RULES: tuple[Rule, ...] = (
    Rule("backbone.{}.0.**", "embeds.{}.**"),
    Rule("backbone.{}.1.{}.attn.weight.weight", "stages.{}.blocks.{}.attn.value_weight"),
    Rule("backbone.{}.1.{}.attn.ds.weight", "stages.{}.blocks.{}.attn.atrous_weight"),
    Rule("backbone.{}.1.{}.mlp.depconv.**", "stages.{}.blocks.{}.mlp.dwconv.**"),
    Rule("backbone.{}.1.{}.**", "stages.{}.blocks.{}.**"),
    Rule("downstream_norms.{}.**", "stage_norms.{}.**"),  # classification code without its head
)
# `lvt_cls`, the published classifier; the plain one (`lvt`) has only the norm and the head.
HEAD_RULES: tuple[Rule, ...] = (
    Rule("norm.**", "norm.**"),
    Rule("head.**", "head.**"),
    Rule("cls_token", "cls_token"),
    Rule("post_network.{}.**", "class_blocks.{}.**"),
    Rule("aux_head.**", "aux_head.**"),
)


def to_ours(state: Mapping[str, Tensor]) -> Renamed:
    """Args: state: official keys of a backbone or classifier, without prefixes. Returns: ours, heads at top level."""
    result = rename(state, (*BACKBONE_RULES, *HEAD_RULES))
    out = {}
    for key, value in result.state.items():
        if key.endswith("attn.value_weight"):
            value = value.view(9, -1, value.shape[1])
        elif _is_pointwise(key, result.state):
            value = value.view(value.shape[:2])
        out[key] = value
    return result._replace(state=out)


def to_official(state: Mapping[str, Tensor]) -> Renamed:
    """The inverse of `to_ours`."""
    shaped = {}
    for key, value in state.items():
        if key.endswith("attn.value_weight"):
            value = value.reshape(-1, value.shape[-1], 1, 1)
        elif _is_pointwise(key, state):
            value = value[:, :, None, None]
        shaped[key] = value
    return rename(shaped, (*BACKBONE_RULES, *HEAD_RULES), reverse=True)


def _is_pointwise(key: str, state: Mapping[str, object]) -> bool:
    """Whether one of our keys is the matrix of a 1 x 1 convolution: fc1 and fc2 beside a depthwise convolution."""
    stem, _, layer = key.rpartition(".mlp.")
    return layer in ("fc1.weight", "fc2.weight") and f"{stem}.mlp.dwconv.weight" in state
