"""Fine-tuning detectors, segmenters and panoptic models on your own data. Everything here is our choice.

A start from weights needs a low rate, and less of it towards the image (`optim.layer_decay`); a small set needs many
epochs, which follow from its number of images (`schedule.epochs` None), and pictures of many sizes. It is evaluated at
the published size; the best weights are also measured on images as they are (`data.eval_own_size`). Another start:
`--model.weights FILE` or a run's folder, also a classifier's, whose backbone it takes; `none`: random weights.
"""

from dataclasses import replace

from litevit.data.config import DetectionData, SegmentationData
from litevit.engine.config import ModelConfig, OptimConfig, Recipe, RunConfig, ScheduleConfig

OPTIM = OptimConfig(lr=1e-4, weight_decay=0.05, decay="no_norms", clip_grad=5.0, layer_decay=0.9)
SCHEDULE = ScheduleConfig(epochs=None, warmup_epochs=1, warmup_ratio=0.01, min_lr=1e-6)
RUN = RunConfig(batch_size=4, workers=4, log_every=20, eval_every=4)


def finetune_detection() -> Recipe[DetectionData]:
    """RetinaNet on LITv2-S from its COCO weights; boxes in any layout of docs/data.md, no masks needed."""
    return Recipe(
        name="finetune-detection",
        task="detection",
        model=_start("retinanet_litv2_s"),
        data=DetectionData(masks=False, short_side=(480, 800), eval_own_size=True),
        optim=OPTIM,
        schedule=SCHEDULE,
        run=RUN,
    )


def finetune_instances() -> Recipe[DetectionData]:
    """Mask R-CNN on LITv2-S from its COCO weights; objects with masks in any layout of docs/data.md."""
    base = finetune_detection()
    return replace(
        base, name="finetune-instances", model=_start("mask_rcnn_litv2_s"), data=replace(base.data, masks=True)
    )


def finetune_panoptic() -> Recipe[DetectionData]:
    """Panoptic FPN on LVT from its COCO weights; COCO's panoptic files."""
    base = finetune_instances()
    model = ModelConfig(name="panoptic_fpn_lvt", weights="official", drop_head=True)
    return replace(base, name="finetune-panoptic", task="panoptic", model=model)


def finetune_segmentation() -> Recipe[SegmentationData]:
    """Semantic FPN on LITv2-S from its ADE20K weights; images and masks in any layout of docs/data.md."""
    return Recipe(
        name="finetune-segmentation",
        task="segmentation",
        model=_start("semantic_fpn_litv2_s"),
        data=SegmentationData(eval_own_size=True),
        optim=OPTIM,
        schedule=SCHEDULE,
        run=RUN,
    )


def _start(name: str) -> ModelConfig:
    return ModelConfig(name=name, weights="official", overrides={"drop_path_rate": 0.1}, drop_head=True)
