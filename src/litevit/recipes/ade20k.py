"""ADE20K: one function per published row of LIT, LITv2 (Semantic FPN, 80k steps) and LVT (SegFormer, 160k steps).

16 images per step from 8 GPUs x 2, random scale 0.5 to 2 of (2048, 512), crop 512 with category cap 0.75, flip,
photometric distortion; fp32. Every run starts from the backbone's ImageNet weights. LIT's README says 8k iterations;
its configs say 80k.
"""

from dataclasses import replace

from litevit.data.config import SegmentationData
from litevit.engine.config import IMAGENET, ModelConfig, OptimConfig, Recipe, RunConfig, ScheduleConfig

SegmentationRecipe = Recipe[SegmentationData]


def semantic_fpn_lit_ti() -> SegmentationRecipe:
    """Semantic FPN, LIT-Ti. Published mIoU 41.3. Source: github.com/ziplab/LIT, segmentation.

    Weight decay acts on everything; polynomial schedule of power 0.9 down to 1e-6, no warm-up. The drop path is
    a constant of LIT-Ti's backbone, in detection and segmentation alike.
    """
    return Recipe(
        name="semantic_fpn_lit_ti",
        task="segmentation",
        model=ModelConfig(name="semantic_fpn_lit_ti", weights=IMAGENET, overrides={"drop_path_rate": 0.1}),
        data=SegmentationData(),
        optim=OptimConfig(lr=1e-4, weight_decay=1e-4),
        schedule=ScheduleConfig(kind="poly", steps=80_000, power=0.9, min_lr=1e-6),
        run=RunConfig(batch_size=16, workers=4, eval_steps=8_000),
    )


def semantic_fpn_lit_s() -> SegmentationRecipe:
    """Semantic FPN, LIT-S. Published mIoU 41.7. Activation checkpointing."""
    base = _variant(semantic_fpn_lit_ti(), "semantic_fpn_lit_s", drop_path=0.2)
    return replace(base, run=replace(base.run, grad_checkpointing=True))


def semantic_fpn_litv2_s() -> SegmentationRecipe:
    """Semantic FPN, LITv2-S. Published mIoU 44.3. Source: github.com/ziplab/LITv2, segmentation."""
    return _variant(semantic_fpn_lit_ti(), "semantic_fpn_litv2_s", drop_path=0.2)


def semantic_fpn_litv2_m() -> SegmentationRecipe:
    """Semantic FPN, LITv2-M. Published mIoU 45.7."""
    return _variant(semantic_fpn_litv2_s(), "semantic_fpn_litv2_m", drop_path=0.2)


def semantic_fpn_litv2_b() -> SegmentationRecipe:
    """Semantic FPN, LITv2-B. Published mIoU 47.2."""
    return _variant(semantic_fpn_litv2_s(), "semantic_fpn_litv2_b", drop_path=0.3)


def segformer_lvt() -> SegmentationRecipe:
    """SegFormer, LVT. Published mIoU 39.3. Source: github.com/Chenglin-Yang/LVT, segmentation.

    The head learns at 10 x the rate, norms included; no decay on the backbone's norms; warm-up over 1500 steps.
    """
    return Recipe(
        name="segformer_lvt",
        task="segmentation",
        model=ModelConfig(name="segformer_lvt", weights=IMAGENET),
        data=SegmentationData(),
        optim=OptimConfig(lr=6e-5, weight_decay=0.01, decay="no_norms", head_lr_ratio=10.0),
        schedule=ScheduleConfig(kind="poly", steps=160_000, power=1.0, warmup_steps=1500, warmup_ratio=1e-6),
        run=RunConfig(batch_size=16, workers=4, eval_steps=16_000),
    )


def _variant(base: SegmentationRecipe, name: str, *, drop_path: float) -> SegmentationRecipe:
    """The same recipe for another model."""
    return replace(base, name=name, model=replace(base.model, name=name, overrides={"drop_path_rate": drop_path}))
