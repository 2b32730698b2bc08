"""Small models of every task that find something although their weights are random."""

import torch
from families import SMALL
from torch import nn

import litevit

HEADS: dict[str, dict] = {
    "retinanet": {"num_classes": 3, "channels": 16, "num_convs": 1, "pre_nms": 100, "max_detections": 20},
    "mask_rcnn": {"num_classes": 3, "channels": 16, "box_hidden": 32, "pre_nms_test": 100, "max_proposals": 50,
                  "max_detections": 20, "score_threshold": 0.3},
    "panoptic_fpn": {"num_things": 3, "num_stuff": 4, "channels": 16, "box_hidden": 32, "semantic_channels": 8,
                     "semantic_groups": 2, "pre_nms_test": 100, "max_proposals": 50, "max_detections": 10,
                     "score_threshold": 0.4, "min_stuff_area": 64},
    "semantic_fpn": {"num_classes": 4, "fpn_channels": 16, "head_channels": 8},
    "segformer": {"num_classes": 4, "head_channels": 16},
}  # fmt: skip


def dense(task: str, family: str = "litv2", **overrides) -> nn.Module:
    name, small = SMALL[family]
    torch.manual_seed(0)
    return lively(litevit.create_model(task, backbone=name, **{**small, **HEADS[task], **overrides}))


@torch.no_grad()
def lively(model: nn.Module) -> nn.Module:
    """Random heads as a detector starts give one score everywhere: theirs are spread out."""
    random = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        spread = 1 / parameter[0].numel() ** 0.5 if parameter.dim() > 1 else 0.0
        if "cls_logits" in name or "objectness" in name:
            bias = torch.full_like(parameter, -1.0)
            parameter.copy_(6 * spread * torch.randn(parameter.shape, generator=random) if spread else bias)
        elif name.endswith("deltas.weight"):
            parameter.copy_(0.3 * spread * torch.randn(parameter.shape, generator=random))
        elif name.endswith(("semantic_head.classifier.weight", "mask_head.logits.weight")):
            parameter.copy_(torch.randn(parameter.shape, generator=random))
    return model.eval()
