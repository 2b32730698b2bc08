"""Small models of every task that find something although their weights are random, and small files of them."""

from pathlib import Path

import pytest
import torch
from families import SMALL, classifier
from torch import nn

import litevit
from litevit.deploy import litert
from litevit.deploy.formats import formats
from litevit.deploy.report import ExportReport
from litevit.deploy.verify import with_lively_heads

SUFFIX = {name: kind.suffix for name, kind in formats().items()}
RUNNING = [name for name, kind in formats().items() if kind.load]
FREE = [name for name in RUNNING if formats()[name].free]

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
    return with_lively_heads(litevit.create_model(task, backbone=name, **{**small, **HEADS[task], **overrides}))


def needs(format: str) -> pytest.MarkDecorator:
    """Skips where what writes the format is not installed."""
    missing = formats()[format].missing()
    return pytest.mark.skipif(missing is not None, reason=str(missing))


slow = pytest.mark.slow
converter = pytest.mark.skipif(litert._converter() is None, reason=f"litert-torch is not here (see {litert.VARIABLE})")
MARKS = {"executorch": [slow], "litert": [slow, converter]}
everywhere = pytest.mark.parametrize(
    "format", [pytest.param(name, marks=[*MARKS.get(name, []), needs(name)]) for name in RUNNING]
)


def fixed(path: Path, format: str, model: nn.Module | None = None, **options) -> ExportReport:
    """A small export: one size, which the exporter is quick with."""
    model = classifier("litv2").eval() if model is None else model
    return litevit.export(model, path, format=format, image_size=(64, 75), **options)
