"""Official RetinaNet, Mask R-CNN and Panoptic FPN checkpoints (mmdetection) <-> litevit, bit for bit.

Only names change: classes keep their order with the background last. The backbone's part is converted by its own
module (`lit.py`, `lvt.py`), given as a function.
"""

from collections.abc import Mapping

from litevit.checkpoints.mmseg import FPN_RULES, BackboneConversion, with_backbone
from litevit.checkpoints.rules import Renamed, Rule, rename

# Three maps (the finest is not used) and two strided levels.
RETINANET_RULES = (
    Rule("neck.fpn_convs.3.conv.**", "fpn.pyramid.extra_blocks.p6.**"),
    Rule("neck.fpn_convs.4.conv.**", "fpn.pyramid.extra_blocks.p7.**"),
    *FPN_RULES,
    Rule("bbox_head.cls_convs.{}.conv.**", "head.cls_convs.{}.**"),
    Rule("bbox_head.reg_convs.{}.conv.**", "head.box_convs.{}.**"),
    Rule("bbox_head.retina_cls.**", "head.cls_logits.**"),
    Rule("bbox_head.retina_reg.**", "head.deltas.**"),
)
RPN_RULES = (
    Rule("rpn_head.rpn_conv.**", "rpn.conv.**"),
    Rule("rpn_head.rpn_cls.**", "rpn.objectness.**"),
    Rule("rpn_head.rpn_reg.**", "rpn.deltas.**"),
)
ROI_RULES = (
    Rule("roi_head.bbox_head.shared_fcs.0.**", "roi_heads.box_head.fc1.**"),
    Rule("roi_head.bbox_head.shared_fcs.1.**", "roi_heads.box_head.fc2.**"),
    Rule("roi_head.bbox_head.fc_cls.**", "roi_heads.box_head.cls_logits.**"),
    Rule("roi_head.bbox_head.fc_reg.**", "roi_heads.box_head.deltas.**"),
    Rule("roi_head.mask_head.convs.{}.conv.**", "roi_heads.mask_head.convs.{}.**"),
    Rule("roi_head.mask_head.upsample.**", "roi_heads.mask_head.upsample.**"),
    Rule("roi_head.mask_head.conv_logits.**", "roi_heads.mask_head.logits.**"),
)
MASK_RCNN_RULES = (*FPN_RULES, *RPN_RULES, *ROI_RULES)
PANOPTIC_FPN_RULES = (
    *MASK_RCNN_RULES,
    Rule("semantic_head.conv_upsample_layers.{}.conv.{}.conv.**", "semantic_head.branches.{}.{}.0.**"),
    Rule("semantic_head.conv_upsample_layers.{}.conv.{}.gn.**", "semantic_head.branches.{}.{}.1.**"),
    Rule("semantic_head.conv_logits.**", "semantic_head.classifier.**"),
)


def is_retinanet(state: Mapping[str, object]) -> bool:
    """Whether a detector's state (official or ours) has RetinaNet's head."""
    return any(key.startswith(("bbox_head.retina_", "head.deltas.")) for key in state)


def to_ours(state: Mapping, backbone: BackboneConversion) -> Renamed:
    """Args: state: official keys, no wrapping; backbone: its `to_ours`. Returns: our keys."""
    rules = RETINANET_RULES if is_retinanet(state) else PANOPTIC_FPN_RULES
    return with_backbone(state, backbone, lambda rest: rename(rest, rules))


def to_official(state: Mapping, backbone: BackboneConversion) -> Renamed:
    """The inverse of `to_ours`. Args: backbone: its `to_official`."""
    rules = RETINANET_RULES if is_retinanet(state) else PANOPTIC_FPN_RULES
    return with_backbone(state, backbone, lambda rest: rename(rest, rules, reverse=True))
