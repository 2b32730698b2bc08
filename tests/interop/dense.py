"""Small task models of every system and backbone family, their inputs, and what they are called with."""

import torch
from torch import Tensor, nn

import litevit

LIT = {"embed_dims": (16, 32, 64, 128), "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 4)}
SMALL = {
    "litv2_s": {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)},
    "lit_s": LIT,
    "lit_ti": LIT,
    "lvt": {"embed_dims": (16, 16, 32, 32), "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)},
    "swin_ti_dtm": {"embed_dim": 16, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 4, 8)},
}
HEADS = {
    "retinanet": {"channels": 16, "num_classes": 3, "resize": False, "score_threshold": 0.001},
    "mask_rcnn": {
        "channels": 16, "num_classes": 3, "resize": False, "box_hidden": 16, "rpn_samples": 32, "roi_samples": 32,
        "max_proposals": 40,
    },
    "panoptic_fpn": {
        "channels": 16, "num_things": 3, "num_stuff": 2, "resize": False, "box_hidden": 16, "rpn_samples": 32,
        "roi_samples": 32, "max_proposals": 40, "semantic_channels": 24, "score_threshold": 0.05,
    },
    "semantic_fpn": {"num_classes": 5, "fpn_channels": 16, "head_channels": 16},
    "segformer": {"num_classes": 5, "head_channels": 16},
}  # fmt: skip
DETECTORS = ("retinanet", "mask_rcnn", "panoptic_fpn")
# Every system once, every family at least once.
MODELS = [
    ("retinanet", "litv2_s"),
    ("mask_rcnn", "lit_s"),
    ("panoptic_fpn", "lvt"),
    ("semantic_fpn", "lit_ti"),
    ("segformer", "swin_ti_dtm"),
]


def create(name: str, backbone: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return litevit.create_model(name, backbone=backbone, **SMALL[backbone], **{**HEADS[name], **options})


def inputs(name: str, dtype: torch.dtype = torch.float32) -> tuple:
    """What `model(*inputs)` takes in training; `model(inputs[0])` in evaluation."""
    rng = torch.Generator().manual_seed(1)
    H, W = 64, 96
    if name not in DETECTORS:
        return torch.randn(2, 3, H, W, generator=rng).to(dtype), torch.randint(0, 5, (2, H, W), generator=rng)
    boxes = torch.tensor([[4.0, 6.0, 40.0, 50.0], [30.0, 20.0, 90.0, 60.0]])
    masks = torch.zeros(2, H, W, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.int().tolist()):
        mask[y0:y1, x0:x1] = True
    target = {
        "boxes": boxes,
        "labels": torch.tensor([0, 2]),
        "masks": masks,
        "semantic": torch.randint(0, 3, (H, W), generator=rng),
    }
    images = [torch.rand(3, H, W, generator=rng).to(dtype) for _ in range(2)]
    return images, [target, target]


def train_loss(model: nn.Module, name: str) -> Tensor:
    torch.manual_seed(7)  # of the samplers
    return sum(model.train()(*inputs(name)).values())
