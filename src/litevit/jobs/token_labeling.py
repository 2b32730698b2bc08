"""Token labelling for the training loop: LVT with MixToken inside the model, a class loss and a loss per token."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from litevit.data.class_folders import Part
from litevit.data.classification import ClassificationData, part_of
from litevit.data.token_labels import TokenLabelImages
from litevit.engine.config import Recipe
from litevit.jobs.classification import ClassificationTask
from litevit.ops.mix_token import draw_mix_box
from litevit.tasks.token_labeling import hard_labels, token_label_losses, token_labels, unpack_label_maps


class TokenLabelTask:
    """Without `data.token_labels`, the smoothed true class is the target of the class token and of every token."""

    metric = "top1"

    def __init__(self, recipe: Recipe[ClassificationData]):
        if recipe.data.augment.mixup or recipe.data.augment.cutmix:
            raise ValueError("Token labelling mixes tokens inside the model; set data.augment.mixup and cutmix to 0.")
        self.plain = ClassificationTask(recipe)
        self.data = recipe.data
        self.repeats = self.plain.repeats
        self.max_unreadable = self.plain.max_unreadable
        self.stride = 32

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.plain.class_names

    @property
    def optimized(self) -> dict[str, int]:
        return self.plain.optimized

    @property
    def parts(self) -> list[Part]:
        return self.plain.parts

    def build_model(self) -> nn.Module:
        model = self.plain.build_model()
        if not hasattr(model, "aux_head"):
            raise ValueError(
                f"Token labelling needs a model with a head per token, as 'lvt'; got {type(model).__name__}."
            )
        self.stride = model.backbone.features[-1].stride  # type: ignore[union-attr, index, assignment]
        if self.data.image_size % self.stride:
            raise ValueError(f"data.image_size must be a multiple of {self.stride}, got {self.data.image_size}.")
        return model

    def train_dataset(self) -> Dataset:
        if self.data.token_labels is None:
            return self.plain.train_dataset()
        dataset = TokenLabelImages(self.data)
        self.plain.open_evaluation(dataset.images.classes)
        self.plain.parts.insert(0, part_of(dataset.images, "training"))
        return dataset

    def collate(self, samples: list[Any]) -> Any:
        return self.plain.collate(samples)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        images, targets = batch
        side = self.data.image_size // self.stride
        box = draw_mix_box(side, side, np.random)  # type: ignore[arg-type]  # the loop seeds the global generator
        cls_logits, aux_logits = model(images, mix_box=box, return_tokens=True)
        smoothing, classes = self.data.augment.label_smoothing, self.data.num_classes
        if self.data.token_labels is None:
            labels = hard_labels(targets, num_classes=classes, num_tokens=side * side, smoothing=smoothing)
        else:
            labels = token_labels(
                unpack_label_maps(targets),
                num_classes=classes,
                grid=(side, side),
                smoothing=smoothing,
                transposed_crop=self.data.token_label_crop == "transposed",
            )
        with torch.no_grad():
            right = cls_logits.argmax(1) == labels.truth.argmax(1)
        losses = token_label_losses(cls_logits, aux_logits, labels, mix_box=box)
        return losses | {"metric/accuracy": 100 * right.float().mean()}

    def evaluate(self, model: nn.Module, accelerator: Any) -> dict[str, float]:
        return self.plain.evaluate(model, accelerator)

    def report(self, model: nn.Module, folder: Path) -> None:
        self.plain.report(model, folder)
