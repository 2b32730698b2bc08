"""ImageNet-1K: one function per published row of LIT, LITv2 and LVT, and per ablation row of the LIT paper.

Every run: 1024 images per step, AdamW, 300 epochs, RandAugment, Mixup 0.8 / CutMix 1.0, random erasing 0.25, label
smoothing 0.1. `optim.lr` is the published base rate for 512 images; the total batch scales it. Published hardware:
8 GPUs x 128 images; fewer GPUs run the same recipe with `--run.accumulate`. Our choice: bf16 (on a device
whose products are faster in it, else fp32) instead of the published fp16 mixed precision (apex O1 or native AMP),
because it needs no loss scaling.

The two families differ more than their papers say. LIT-Ti (and PVT, which shares its code) uses repeated augmentation,
a schedule per epoch, 5 warm-up epochs and no gradient clipping; LIT-S/M/B and LITv2 none, per step, 20 and 5.0.
"""

from dataclasses import replace

from litevit.data.config import Augment, ClassificationData
from litevit.engine.config import ModelConfig, OptimConfig, Recipe, RunConfig, ScheduleConfig

ClassificationRecipe = Recipe[ClassificationData]


def litv2_s() -> ClassificationRecipe:
    """LITv2-S, 224 x 224. Published top-1 82.0 (console: 82.044). Source: github.com/ziplab/LITv2, litv2-small.yaml."""
    return Recipe(
        name="litv2_s",
        task="classification",
        model=ModelConfig(name="litv2_s", overrides={"drop_path_rate": 0.2}),
        data=ClassificationData(),
        optim=OptimConfig(lr=5e-4, lr_batch=512, weight_decay=0.05, offset_lr_ratio=0.01, clip_grad=5.0),
        schedule=ScheduleConfig(
            epochs=300, per="step", late=True, warmup_epochs=20, warmup_lr=5e-7, min_lr=5e-6, scale_bounds=True
        ),
        run=RunConfig(batch_size=1024, precision="auto", workers=8),
    )


def litv2_m() -> ClassificationRecipe:
    """LITv2-M. Published top-1 83.3. As LITv2-S with drop path 0.3."""
    return _variant(litv2_s(), "litv2_m", drop_path_rate=0.3)


def litv2_b() -> ClassificationRecipe:
    """LITv2-B. Published top-1 83.6. As LITv2-S with drop path 0.5."""
    return _variant(litv2_s(), "litv2_b", drop_path_rate=0.5)


def litv2_b_384() -> ClassificationRecipe:
    """LITv2-B fine-tuned at 384 x 384 from the weights at 224. Published top-1 84.7.

    30 epochs at 2e-5 per 512 images, evaluated on the whole image, resized without a crop. The official loader would
    restore optimizer and epoch from a training checkpoint and then train nothing; here weights are only weights.
    """
    base = litv2_b()
    return replace(
        base,
        name="litv2_b_384",
        model=replace(base.model, weights="official"),
        data=replace(base.data, image_size=384, crop_pct=1.0),
        optim=replace(base.optim, lr=2e-5, weight_decay=1e-8),
        schedule=replace(base.schedule, epochs=30, warmup_epochs=5, warmup_lr=2e-8, min_lr=2e-7),
    )


def litv2_s_alpha_00() -> ClassificationRecipe:
    """LITv2-S, alpha 0 (Hi-Fi only). Published top-1 81.16. The recipe of LITv2-S, as are all alpha rows."""
    return _variant(litv2_s(), "litv2_s_alpha_00")


def litv2_s_alpha_02() -> ClassificationRecipe:
    """LITv2-S, alpha 0.2. Published top-1 81.89."""
    return _variant(litv2_s(), "litv2_s_alpha_02")


def litv2_s_alpha_04() -> ClassificationRecipe:
    """LITv2-S, alpha 0.4. Published top-1 81.81."""
    return _variant(litv2_s(), "litv2_s_alpha_04")


def litv2_s_alpha_05() -> ClassificationRecipe:
    """LITv2-S, alpha 0.5. Published top-1 81.88."""
    return _variant(litv2_s(), "litv2_s_alpha_05")


def litv2_s_alpha_07() -> ClassificationRecipe:
    """LITv2-S, alpha 0.7. Published top-1 81.94."""
    return _variant(litv2_s(), "litv2_s_alpha_07")


def litv2_s_alpha_09() -> ClassificationRecipe:
    """LITv2-S, alpha 0.9. Published top-1 82.03."""
    return _variant(litv2_s(), "litv2_s_alpha_09")


def litv2_s_alpha_10() -> ClassificationRecipe:
    """LITv2-S, alpha 1 (Lo-Fi only). Published top-1 81.89."""
    return _variant(litv2_s(), "litv2_s_alpha_10")


def lit_s() -> ClassificationRecipe:
    """LIT-S. Published top-1 81.5. Source: github.com/ziplab/LIT; the recipe of LITv2-S."""
    return _variant(litv2_s(), "lit_s", drop_path_rate=0.2)


def lit_m() -> ClassificationRecipe:
    """LIT-M. Published top-1 83.0. As LIT-S with drop path 0.3."""
    return _variant(lit_s(), "lit_m", drop_path_rate=0.3)


def lit_b() -> ClassificationRecipe:
    """LIT-B. Published top-1 83.4. As LIT-S with drop path 0.5 and, as its script, activation checkpointing."""
    base = _variant(lit_s(), "lit_b", drop_path_rate=0.5)
    return replace(base, run=replace(base.run, grad_checkpointing=True))


def lit_ti() -> ClassificationRecipe:
    """LIT-Ti. Published top-1 81.1 (console: 81.124). Source: github.com/ziplab/LIT, the PVT-style code.

    The start and the end of its schedule (1e-6, 1e-5) are not scaled with the batch. Because the end equals the offset
    convolutions' own rate (0.01 x 1e-3), theirs is constant after warm-up.
    """
    base = _variant(litv2_s(), "lit_ti", drop_path_rate=0.1)
    return replace(
        base,
        data=replace(base.data, augment=Augment(repeats=3), eval_batch_size=192),
        optim=replace(base.optim, clip_grad=None),
        schedule=ScheduleConfig(epochs=300, per="epoch", late=True, warmup_epochs=5, warmup_lr=1e-6, min_lr=1e-5),
    )


def lit_ti_uniform() -> ClassificationRecipe:
    """LIT-Ti with uniform merging instead of DTM (LIT paper, table 2). Published top-1 80.4."""
    return _variant(lit_ti(), "lit_ti_uniform")


def lit_s_uniform() -> ClassificationRecipe:
    """LIT-S with uniform merging instead of DTM (LIT paper, table 2). Published top-1 81.3."""
    return _variant(lit_s(), "lit_s_uniform")


def pvt_s() -> ClassificationRecipe:
    """PVT-S (LIT paper, table 3). Published top-1 79.8. Our reading: the paper's "same strategy" is LIT-Ti's."""
    return _variant(lit_ti(), "pvt_s")


def pvt_s_dtm() -> ClassificationRecipe:
    """PVT-S with deformable token merging (LIT paper, table 3). Published top-1 80.5."""
    return _variant(lit_ti(), "pvt_s_dtm")


def swin_ti() -> ClassificationRecipe:
    """Swin-Ti (LIT paper, table 3). Published top-1 81.3. Our reading: LIT-S's recipe, which is Swin's."""
    return _variant(lit_s(), "swin_ti")


def swin_ti_dtm() -> ClassificationRecipe:
    """Swin-Ti with deformable token merging (LIT paper, table 3). Published top-1 81.6."""
    return _variant(lit_s(), "swin_ti_dtm")


def pvt_s_msa() -> ClassificationRecipe:
    """PVT-S with full attention everywhere (LIT paper, table 4). Published top-1 80.9. LIT-Ti's recipe."""
    return _variant(lit_ti(), "pvt_s_msa")


def pvt_s_msa_remove_1() -> ClassificationRecipe:
    """The same without attention in stage 1. Published top-1 80.8."""
    return _variant(lit_ti(), "pvt_s_msa_remove_1")


def pvt_s_msa_remove_12() -> ClassificationRecipe:
    """The same without attention in stages 1 and 2. Published top-1 80.4."""
    return _variant(lit_ti(), "pvt_s_msa_remove_12")


def pvt_s_msa_remove_123() -> ClassificationRecipe:
    """The same with attention in stage 4 only. Published top-1 75.0."""
    return _variant(lit_ti(), "pvt_s_msa_remove_123")


def pvt_s_msa_remove_1234() -> ClassificationRecipe:
    """The same without any attention. Published top-1 66.8."""
    return _variant(lit_ti(), "pvt_s_msa_remove_1234")


def lvt() -> ClassificationRecipe:
    """LVT with class attention and token labelling. Published top-1 74.8. Source: github.com/Chenglin-Yang/LVT (VOLO).

    310 epochs: 300 of cosine per epoch, 10 at its end. Give the label maps with `--data.token_labels DIR`
    (`litevit token-labels` makes them); without them the smoothed true class is every token's target.
    The command line of the published run says drop path 0.1, but the code never hands it to the model: it was 0.
    """
    return Recipe(
        name="lvt",
        task="token_labeling",
        model=ModelConfig(name="lvt"),
        data=ClassificationData(
            crop_pct=0.96,
            augment=Augment(interpolation="random", mixup=0.0, cutmix=0.0),
        ),
        optim=OptimConfig(lr=1.6e-3, weight_decay=0.05),
        schedule=ScheduleConfig(
            epochs=300, per="epoch", warmup_epochs=20, warmup_lr=1e-6, min_lr=1e-5, cooldown_epochs=10
        ),
        run=RunConfig(batch_size=1024, precision="auto", workers=8, seed=42),
    )


def _variant(base: ClassificationRecipe, name: str, **overrides: float) -> ClassificationRecipe:
    """The same recipe for another model."""
    model = ModelConfig(name=name, overrides={**base.model.overrides, **overrides})
    return replace(base, name=name, model=model)
