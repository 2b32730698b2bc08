"""First runs of detection, panoptic and semantic segmentation on the embedded scenes. Everything here is our choice."""

from dataclasses import replace

from litevit.data.config import EMBEDDED, DetectionData, ScenesConfig, ScenesData, SegmentationData
from litevit.engine.config import ModelConfig, OptimConfig, Recipe, RunConfig, ScheduleConfig

SMALL_LITV2 = {
    "backbone": "litv2_s",
    "embed_dim": 32,
    "depths": (1, 1, 2, 1),
    "num_heads": (1, 2, 4, 8),
    "alpha": 0.5,
}
SMALL_LVT = {
    "backbone": "lvt",
    "embed_dims": (32, 48, 96, 128),
    "depths": (1, 1, 2, 1),
    "num_heads": (1, 2, 3, 4),
    "mlp_ratios": (2, 4, 4, 4),
}
# Things of 8 to 33 pixels of radius at 128 x 128: half the published anchors, and fewer regions.
SMALL_HEADS = {
    "channels": 64,
    "box_hidden": 256,
    "anchor_scales": (4.0,),
    "resize": False,
    "pre_nms_train": 300,
    "pre_nms_test": 200,
    "max_proposals": 150,
    "rpn_samples": 64,
    "roi_samples": 32,
}
# Images are looked at as they are, not at ADE20K's 512 pixels.
OWN_SIZE = {"scale": None, "multiple": 32}
# Disc and square differ in their corners alone, which takes this small model much longer than the rest.
SCENES = ScenesData(train=1600, val=200, look=ScenesConfig(things=("disc", "triangle", "cross")))


def quickstart_detection() -> Recipe[DetectionData]:
    """Mask R-CNN on a LITv2 of 1.4 M parameters; discs, triangles and crosses at 128 x 128."""
    return Recipe(
        name="quickstart-detection",
        task="detection",
        model=ModelConfig(name="mask_rcnn", overrides={**SMALL_LITV2, **SMALL_HEADS}),
        data=DetectionData(path=EMBEDDED, resize=False, group=1, eval_batch_size=8, scenes=SCENES),
        # Small batches: after two epochs 4 images a step were at AP50 0.80, 8 images a step at 0.71.
        optim=OptimConfig(lr=1.5e-3, betas=(0.9, 0.98), weight_decay=0.05, clip_grad=5.0, decay="no_norms"),
        schedule=ScheduleConfig(epochs=4, warmup_steps=100, warmup_ratio=0.01, min_lr=1e-5),
        run=RunConfig(batch_size=4, workers=0, log_every=50, eval_every=4, keep=2, channels_last=True),
    )


def quickstart_panoptic() -> Recipe[DetectionData]:
    """Panoptic FPN on a small LVT; the scenes' things and four kinds of ground."""
    base = quickstart_detection()
    heads = {"semantic_channels": 48, "min_stuff_area": 64, "semantic_loss_weight": 1.0}
    return replace(
        base,
        name="quickstart-panoptic",
        task="panoptic",
        model=ModelConfig(name="panoptic_fpn", overrides={**SMALL_LVT, **SMALL_HEADS, **heads}),
        schedule=replace(base.schedule, epochs=6),  # after four, triangles and crosses are hardly found
        run=replace(base.run, eval_every=6),
    )


def quickstart_segmentation() -> Recipe[SegmentationData]:
    """SegFormer on the LITv2 of the detector; things and grounds of the same scenes as seven classes."""
    head = {"head_channels": 64, "dropout": 0.0, "test": OWN_SIZE}
    return Recipe(
        name="quickstart-segmentation",
        task="segmentation",
        model=ModelConfig(name="segformer", overrides={**SMALL_LITV2, **head}),
        data=SegmentationData(
            path=EMBEDDED, long_side=128, short_side=128, ratios=(1.0, 1.0), crop=128, category_cap=1.0, scenes=SCENES
        ),
        optim=OptimConfig(lr=2e-3, betas=(0.9, 0.98), weight_decay=0.05, clip_grad=5.0, decay="no_norms"),
        schedule=ScheduleConfig(epochs=6, warmup_steps=50, warmup_ratio=0.01, min_lr=1e-5),
        run=RunConfig(batch_size=4, workers=0, log_every=100, eval_every=3, keep=2),
    )
