"""The classification task: what the training loop has to know about models, batches, losses and evaluation."""

from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from litevit.data.classification import ClassificationData, create_dataset
from litevit.engine.config import ModelConfig, Recipe
from litevit.engine.evaluate import evaluate_classifier, evaluation_loader
from litevit.metrics.classification import ClassificationMetric


class ClassificationTask:
    """Mixup and CutMix on the device, soft-target cross-entropy, top-1 and top-5."""

    metric = "top1"

    def __init__(self, recipe: Recipe[ClassificationData]):
        self.recipe = recipe
        self.data = recipe.data
        self.repeats = recipe.data.augment.repeats
        self.max_unreadable = recipe.data.max_unreadable
        self.mix = create_mix(recipe.data)
        self.eval_dataset: Dataset | None = None

    def build_model(self) -> nn.Module:
        return build_classifier(self.recipe.model, self.data.num_classes)

    def train_dataset(self) -> Dataset:
        return create_dataset(self.data, "train")

    def collate(self, samples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
        if self.mix is not None and len(samples) % 2:  # mixing pairs images: an odd one (after a skip) is left out
            samples = samples[:-1] or samples * 2
        return default_collate(samples)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        images, labels = batch
        if self.mix is not None:
            images, targets = self.mix(images, labels)
            logits = model(images)
            loss = F.cross_entropy(logits.float(), targets)
            labels = targets.argmax(1)
        else:
            logits = model(images)
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=self.data.augment.label_smoothing)
        accuracy = 100 * (logits.detach().argmax(1) == labels).float().mean()
        return {"loss": loss, "metric/accuracy": accuracy}

    def evaluate(self, model: nn.Module, accelerator: Any) -> dict[str, float]:
        metric = ClassificationMetric(self.data.num_classes, device=accelerator.device)
        return self._fill(model, metric, accelerator).compute()

    def _fill(self, model: nn.Module, metric: ClassificationMetric, accelerator: Any) -> ClassificationMetric:
        if self.eval_dataset is None:
            self.eval_dataset = create_dataset(self.data, "eval")
        loader = evaluation_loader(
            self.eval_dataset,
            batch_size=self.data.eval_batch_size,
            workers=self.recipe.run.workers,
            accelerator=accelerator,
        )
        return evaluate_classifier(model, loader, metric, accelerator=accelerator)

    def report(self, model: nn.Module, folder: Path) -> None:
        """Confusion matrix and a sheet of predictions, for sets that fit on a page."""
        if self.data.num_classes > 100:
            return
        from litevit.recipes.pictures import draw_confusion, draw_predictions

        assert self.eval_dataset is not None
        device = next(model.parameters()).device
        loader = evaluation_loader(self.eval_dataset, batch_size=self.data.eval_batch_size)
        metric = ClassificationMetric(self.data.num_classes, confusion=True, device=device)
        evaluate_classifier(model, loader, metric)
        names = getattr(self.eval_dataset, "classes", ()) or [str(i) for i in range(self.data.num_classes)]
        draw_confusion(metric.confusion.cpu(), names, folder / "confusion.png")
        if not self.data.stream:  # its images are chosen by index
            draw_predictions(model, self.eval_dataset, names, self.data, folder / "predictions.png")


def create_mix(data: ClassificationData) -> Any:
    """timm's batch-wise Mixup / CutMix; None where the recipe uses neither."""
    augment = data.augment
    if augment.mixup == 0 and augment.cutmix == 0:
        return None
    from timm.data import Mixup

    return Mixup(
        mixup_alpha=augment.mixup,
        cutmix_alpha=augment.cutmix,
        prob=augment.mix_prob,
        switch_prob=augment.switch_prob,
        mode="batch",
        label_smoothing=augment.label_smoothing,
        num_classes=data.num_classes,
    )


def build_classifier(config: ModelConfig, num_classes: int) -> nn.Module:
    """Our model, or timm's as `timm/NAME`. Weights with another number of classes keep all but their head."""
    overrides: dict[str, Any] = {  # lists come from JSON
        name: tuple(value) if isinstance(value, list) else value for name, value in config.overrides.items()
    }
    if config.name.startswith("timm/"):
        import timm

        return timm.create_model(config.name.removeprefix("timm/"), num_classes=num_classes, **overrides)
    from litevit.zoo import create_model

    if config.weights is None:
        return create_model(config.name, num_classes=num_classes, **overrides)
    try:
        return create_model(config.name, weights=config.weights, num_classes=num_classes, **overrides)
    except ValueError:  # a head of another size: load it as it is, then replace it
        model = create_model(config.name, weights=config.weights, **overrides)
        if num_classes != model.num_classes:
            model.reset_classifier(num_classes)  # type: ignore[operator]
        return model
