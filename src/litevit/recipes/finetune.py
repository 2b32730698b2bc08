"""Fine-tuning on your own images."""

from litevit.data.config import Augment, ClassificationData
from litevit.engine.config import ModelConfig, OptimConfig, Recipe, RunConfig, ScheduleConfig


def finetune() -> Recipe[ClassificationData]:
    """LITv2-S from its ImageNet weights on a folder with one folder per class (or `train` and `val` of that kind).

    Classes are counted; without a `val` folder every tenth image or so of each class is held out. Our choice: the rate
    of the official 384 fine-tuning is made for the same classes, so new heads get a higher one (1e-4 per 128 images,
    1e-5 for the offsets stays as published: x 0.1), light augmentation and drop path 0.1 against the small set.
    Another model: `--model.name lit_ti`; without a download: `--model.weights None`.
    """
    return Recipe(
        name="finetune",
        task="classification",
        model=ModelConfig(name="litv2_s", weights="official", overrides={"drop_path_rate": 0.1}),
        data=ClassificationData(
            num_classes=0,
            hold_out=0.1,
            augment=Augment(scale=(0.35, 1.0), mixup=0.0, cutmix=0.0, erase_prob=0.1),
        ),
        optim=OptimConfig(lr=1e-4, lr_batch=128, weight_decay=0.05, offset_lr_ratio=0.1, clip_grad=5.0),
        schedule=ScheduleConfig(epochs=30, warmup_epochs=2, warmup_lr=1e-6, min_lr=1e-6),
        run=RunConfig(batch_size=128, accumulate=1, workers=4),
    )
