"""Detectors of mmdetection (neck, heads) <-> ours. The keys of the backbone follow its own rules.

Only names differ: classes keep their order with the background last, so no tensor is touched.
"""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from litevit.convert.rules import Renamed, Rule, rename, under

T = TypeVar("T")

# Semantic FPN, Mask R-CNN and Panoptic FPN: one output per backbone map.
NECK_RULES = (
    Rule("neck.lateral_convs.{}.conv.**", "fpn.pyramid.inner_blocks.{}.0.**"),
    Rule("neck.fpn_convs.{}.conv.**", "fpn.pyramid.layer_blocks.{}.0.**"),
)
# Three maps (the finest is not used) and two strided levels.
RETINANET_RULES = (
    Rule("neck.fpn_convs.3.conv.**", "fpn.pyramid.extra_blocks.p6.**"),
    Rule("neck.fpn_convs.4.conv.**", "fpn.pyramid.extra_blocks.p7.**"),
    *NECK_RULES,
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
MASK_RCNN_RULES = (*NECK_RULES, *RPN_RULES, *ROI_RULES)


def _rules(keys: Iterable[str], backbone_rules: Iterable[Rule]) -> tuple[Rule, ...]:
    # Only RetinaNet has a head of its own below the pyramid; its fourth pyramid convolution is P6.
    retinanet = any(key.startswith(("bbox_head.", "head.")) for key in keys)
    return (*under("backbone.", "backbone.", backbone_rules), *(RETINANET_RULES if retinanet else MASK_RCNN_RULES))


def to_ours(state: Mapping[str, T], *, backbone_rules: Iterable[Rule] = ()) -> Renamed:
    """An official detector (flat keys, RetinaNet or Mask R-CNN) with our keys.

    Args:
        state: official key -> tensor (or shape).
        backbone_rules: of the backbone inside, without the prefix `backbone.`.
    """
    return rename(state, _rules(state, backbone_rules))


def to_official(state: Mapping[str, T], *, backbone_rules: Iterable[Rule] = ()) -> Renamed:
    """Inverse of `to_ours`."""
    return rename(state, _rules(state, backbone_rules), reverse=True)
