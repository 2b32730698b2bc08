"""The classification task: what the training loop has to know about models, batches, losses and evaluation."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from litevit.checkpoints.claims import check_timm
from litevit.checkpoints.files import read_state_dict
from litevit.checkpoints.published import weights_word
from litevit.data.class_folders import Part
from litevit.data.classification import ClassificationData, create_dataset, part_of
from litevit.data.readability import check_readable
from litevit.engine.config import ModelConfig, Recipe, RunConfig
from litevit.jobs.evaluation_loop import evaluate_classifier, evaluation_loader
from litevit.jobs.runs import Run, find_run
from litevit.metrics.classification import ClassificationMetric
from litevit.optimize import optimize_for_training
from litevit.seals import load_sealed
from litevit.zoo import unknown

MOST_SHOWN = 100  # classes of a confusion matrix that fits on a page


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
        self.measured: ClassificationMetric | None = None  # by the last evaluation
        self.optimized: dict[str, int] = {}
        self.said: list[str] = []
        self.parts: list[Part] = []  # what was read, and left out: shown at the start, kept with the run
        if self.data.num_classes == 1:
            raise ValueError(
                f"{self.data.path or self.data.reader} has one class, so there is nothing to tell apart and the loss "
                "would be 0. Classification needs two or more: one folder for each, side by side."
            )

    def build_model(self) -> nn.Module:
        model = build_classifier(self.recipe.model, self.data.num_classes, said=self.said)
        model, self.optimized = for_training(model, self.recipe.run)
        return model

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the data's folders; none for WordNet ids, which have better names."""
        names = tuple(getattr(self.eval_dataset, "classes", ()))
        return () if all(re.fullmatch(r"n\d{8}", name) for name in names) else names

    def train_dataset(self) -> Dataset:
        dataset = create_dataset(self.data, "train")
        self.open_evaluation(getattr(dataset, "classes", ()))
        self.parts.insert(0, part_of(dataset, "training"))
        return dataset

    def open_evaluation(self, classes: Sequence[str]) -> None:
        """Opens the evaluation data and reads them once, before hours are spent; classes are matched by name."""
        self.eval_dataset = create_dataset(self.data, "eval", classes=classes)
        part = part_of(self.eval_dataset, "evaluation")
        part.note = check_readable(
            self.eval_dataset, rank=int(os.environ.get("RANK", "0")), world=int(os.environ.get("WORLD_SIZE", "1"))
        )
        self.parts = [part]

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
        shown = self.data.num_classes <= MOST_SHOWN
        metric = ClassificationMetric(self.data.num_classes, confusion=shown, device=accelerator.device)
        self.measured = self._fill(model, metric, accelerator)
        return metric.compute()

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
        if self.data.num_classes > MOST_SHOWN:
            return
        from litevit.jobs.pictures import draw_confusion, draw_predictions

        assert self.eval_dataset is not None
        assert self.measured is not None
        names = getattr(self.eval_dataset, "classes", ()) or [str(i) for i in range(self.data.num_classes)]
        draw_confusion(self.measured.confusion.cpu(), names, folder / "confusion.png")
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


def for_training(model: nn.Module, run: RunConfig) -> tuple[nn.Module, dict[str, int]]:
    """The model that is trained: with fast twins unless `run.optimize` is off; parameters and keys stay.

    Returns: the model; the kinds of modules that a twin has replaced -> how many.
    """
    if run.optimize == "off":
        return model, {}
    fast = optimize_for_training(model)
    pairs = zip(model.modules(), fast.modules())
    return fast, dict(Counter(type(old).__name__ for old, new in pairs if type(old) is not type(new)))


def check_channels(overrides: Mapping[str, Any]) -> None:
    """Raises ValueError for a model that could not take the pictures of training, evaluation and prediction."""
    if overrides.get("in_chans", 3) != 3:
        raise ValueError(
            f"model.overrides.in_chans {overrides['in_chans']!s:.20} has no data: pictures are read in three channels, "
            "grey ones as three equal channels. Leave it out: weights of other channels are adapted"
        )


def build_classifier(config: ModelConfig, num_classes: int, *, said: list[str] | None = None) -> nn.Module:
    """Our model, or timm's as `timm/NAME`. Weights with another number of classes keep all but their head.

    Args:
        config: its weights may also be the folder of a training run.
        said: gets a line about what was loaded and what not.
    """
    overrides: dict[str, Any] = {  # lists come from JSON
        name: tuple(value) if isinstance(value, list) else value for name, value in config.overrides.items()
    }
    check_channels(overrides)
    weights: Any = weights_word(config.weights)
    if weights == "imagenet":  # which a classifier's published weights are
        weights = "official"
    if weights is not None and Path(weights).is_dir():
        weights = str(Run.open(weights).weights)
    if config.name.startswith("timm/"):
        import timm

        check_timm(overrides, "model.overrides")
        if weights not in (None, "official"):
            if not Path(weights).is_file():
                raise FileNotFoundError(f"Checkpoint {weights} does not exist.")
            if not weights.endswith((".npz", ".npy")):
                read_state_dict(weights)  # raises for what would run code, which timm's reader may not
            overrides["pretrained_cfg_overlay"] = {"file": weights}
        name = config.name.removeprefix("timm/")
        if not timm.is_model(name):  # nor does a recipe make timm ask a hub
            raise unknown(name, timm.list_models(), "model of timm")
        try:
            return timm.create_model(name, pretrained=weights is not None, num_classes=num_classes, **overrides)
        except (TypeError, AttributeError, LookupError, ArithmeticError, AssertionError) as error:  # of an option
            raise ValueError(f"{config.name} cannot be made with {overrides!r:.200}: {error}") from error
    from litevit.checkpoints.load import load_weights
    from litevit.checkpoints.published import fetch
    from litevit.models import create_model

    model = create_model(config.name, num_classes=num_classes, **overrides)
    if weights is not None:
        report = load_weights(model, fetch(config.name) if weights == "official" else weights, drop_head=True)
        if said is not None:
            said[:] = [report.line]
    return model


def with_options_of(config: ModelConfig) -> ModelConfig:
    """The model of a recipe that starts from a run of it: what the run's was made with holds, unless it is given."""
    if weights_word(config.weights) in (None, "imagenet", "official") or (run := find_run(config.weights)) is None:
        return config
    if run.model_name != config.name:
        return config
    return replace(config, overrides={**run.saved["model"]["overrides"], **config.overrides})


def load_run(run: Run) -> nn.Module:
    """A classifier with the best weights of a run, in evaluation mode."""
    from litevit.checkpoints.load import load_exactly

    overrides = run.overrides
    classes = overrides.pop("num_classes")
    model = build_classifier(ModelConfig(name=run.model_name, overrides=overrides), classes)
    load_exactly(model, load_sealed(run.weights), run.weights)
    return model.eval()
