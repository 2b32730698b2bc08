"""Detection, segmentation and panoptic tasks: what the training loop has to know of batches, losses and evaluation."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.utils.data import Dataset

from litevit.checkpoints.load import load_weights
from litevit.checkpoints.published import fetch, weights_word
from litevit.checkpoints.recorded import weights_file
from litevit.data.coco_panoptic import CocoPanoptic
from litevit.data.dense import EMBEDDED, DetectionData, DetectionSets, SegmentationData, SegmentationSets, Selected
from litevit.data.grouping import GroupedBatchStream
from litevit.data.readability import check_readable
from litevit.engine.config import IMAGENET, ModelConfig, OptimConfig, Recipe
from litevit.files import cache_dir, without_nan, write_json
from litevit.jobs.classification import check_channels, for_training
from litevit.jobs.dense_models import INSTANCES, OWN, config_at_size, task_of
from litevit.jobs.evaluation_loop import evaluation_loader
from litevit.jobs.measure_dense import Measured, measure_detection, measure_panoptic, measure_semantic
from litevit.jobs.runs import find_run
from litevit.metrics.coco import COCOAveragePrecision
from litevit.models import create_model
from litevit.tasks.segmentation import read_overrides
from litevit.zoo import GENERIC, model_options

LEARNED = ("boxes", "labels", "masks", "semantic")  # of a target
Batch = tuple[list[Tensor], list[dict[str, Any]]]


def build_dense_model(config: ModelConfig, *, said: list[str] | None = None, **sizes: int) -> nn.Module:
    """The recipe's model with as many classes as its data.

    Args:
        said: gets a line about what was loaded and what not, where `config.drop_head` leaves out other classes.
        sizes: of the heads, such as `num_classes=80`.
    """
    options = sizes | read_overrides(config.overrides)
    check_channels(options)
    word = weights_word(config.weights)
    if not config.drop_head or word in (None, IMAGENET):
        return create_model(config.name, weights=config.weights, **options)
    model = create_model(config.name, **options)
    report = load_weights(model, fetch(config.name) if word == "official" else weights_file(str(word)), drop_head=True)
    if said is not None:
        said[:] = [report.line]
    return model


def with_options_of(config: ModelConfig) -> ModelConfig:
    """The model of a recipe that starts from a run: what the run's model was made with holds, unless it is given."""
    word = weights_word(config.weights)
    if word in (None, IMAGENET, "official") or (run := find_run(config.weights)) is None:
        return config
    given = dict(config.overrides)
    if config.name in GENERIC and run.backbone is not None:
        given = {"backbone": run.backbone} | given
    if not config.drop_head or given.get("backbone", run.backbone) != run.backbone:
        return replace(config, overrides=given)
    known = model_options(config.name, given.get("backbone"))
    made = run.saved["model"]["overrides"]
    kept = {name: value for name, value in made.items() if name in known and name != "backbone"}
    return replace(config, overrides={**kept, **given})


def dense_param_groups(model: nn.Module, optim: OptimConfig, lr: float) -> list[dict[str, Any]]:
    """The published groups of the dense recipes.

    `optim.decay` "all": weight decay acts on everything (biases and norms too). "no_norms": not on normalisation layers
    and relative position tables (official: names with "norm", "relative_position_bias_table"). Parameters outside
    backbone and pyramid learn at `head_lr_ratio` x lr, and then keep their decay, norms included: the official rule
    tests "head" first. Where `optim.offset_lr_ratio` is given (no published dense recipe does), the offset convolutions
    of deformable merging learn at that ratio.
    """
    free: set[int] = set()
    for module in model.modules():
        if isinstance(module, nn.LayerNorm | nn.BatchNorm2d | nn.GroupNorm):
            free |= {id(parameter) for parameter in module.parameters(recurse=False)}
        table = getattr(module, "relative_position_bias_table", None)
        if isinstance(table, nn.Parameter):
            free.add(id(table))
    groups: dict[str, dict[str, Any]] = {
        "decay": {"lr": lr, "weight_decay": optim.weight_decay},
        "no_decay": {"lr": lr, "weight_decay": 0.0},
        "head": {"lr": lr * optim.head_lr_ratio, "weight_decay": optim.weight_decay},
    }
    if optim.offset_lr_ratio is not None:
        groups["offset"] = {"lr": lr * optim.offset_lr_ratio, "weight_decay": optim.weight_decay}
    members: dict[str, list[nn.Parameter]] = {name: [] for name in groups}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if "offset" in groups and name.endswith("offset.weight"):
            members["offset"].append(parameter)
        elif optim.head_lr_ratio != 1 and not name.startswith(("backbone.", "fpn.")):
            members["head"].append(parameter)
        elif optim.decay == "no_norms" and id(parameter) in free:
            members["no_decay"].append(parameter)
        else:
            members["decay"].append(parameter)
    return [{"name": name, "params": members[name], **group} for name, group in groups.items() if members[name]]


def collate_lists(samples: list[tuple[Tensor, dict[str, Any]]]) -> Batch:
    """Images of any sizes stay a list; tv_tensors become plain tensors."""
    return [image.as_subclass(Tensor) for image, _ in samples], [_plain(target) for _, target in samples]


def _plain(target: dict[str, Any]) -> dict[str, Any]:
    return {key: value.as_subclass(Tensor) if isinstance(value, Tensor) else value for key, value in target.items()}


class _DenseTask:
    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        self.sets: Any = None
        self.eval_dataset: Selected | None = None
        self.measured: Measured | None = None  # by the last evaluation
        self.found: COCOAveragePrecision | None = None  # a detector's
        self.notes: list[str] = []
        self.said: list[str] = []
        self.optimized: dict[str, int] = {}

    def _opened(self, sets: Any) -> None:
        """Both sets are opened before a run begins: what is wrong with one is said before hours are spent."""
        self.sets, self.class_names, self.class_ids = sets, sets.classes, sets.category_ids
        self.eval_dataset = sets.eval()
        self.parts, self.notes = sets.parts, list(sets.notes)
        if self.recipe.data.path != EMBEDDED and self.recipe.data.eval_split != "train":
            rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
            self.parts[-1].note = check_readable(self.eval_dataset, rank=rank, world=world)

    def _note_many_objects(self, model: nn.Module) -> None:
        most, limit = self.sets.most_objects, model.config.max_detections  # type: ignore[union-attr]
        note = (
            f"an image has {most} objects and the model gives at most {limit} per image "
            f"(--model.overrides.max_detections {most}); COCO's AP counts the best 100"
        )
        if most > limit and note not in self.notes:
            self.notes.append(note)

    def param_groups(self, model: nn.Module, optim: OptimConfig, lr: float) -> list[dict[str, Any]]:
        return dense_param_groups(model, optim, lr)

    def evaluate_own_size(self, model: nn.Module, accelerator: Any) -> dict[str, float]:
        """The same figures on images that are not resized, as `own_size/...`; {}: not asked for, or no others."""
        if not self.recipe.data.eval_own_size:
            return {}
        published: Any = model.config
        own = config_at_size(model, task_of(self.recipe.model.name), OWN)
        if own == published:
            return {}
        kept, model.config = self.found, own
        measured = self.measured
        try:
            found = self.evaluate(model, accelerator)
        finally:
            model.config, self.found, self.measured = published, kept, measured
        return {f"own_size/{name}": value for name, value in found.items()}

    def evaluate(self, model: nn.Module, accelerator: Any, *, save: Path | None = None) -> dict[str, float]:
        raise NotImplementedError

    def _write_per_class(self, folder: Path) -> None:
        """What was neither in the truth nor found: null."""
        assert self.measured is not None
        write_json(folder / "per_class.json", without_nan(self.measured.per_class), indent=1)

    def _loader(self, dataset: Dataset, accelerator: Any, batch_size: int = 1) -> Any:
        return evaluation_loader(
            dataset,
            batch_size=batch_size,
            workers=self.recipe.run.workers,
            accelerator=accelerator,
            collate=collate_lists,
        )


class _ObjectsTask(_DenseTask):
    """Batches and losses of models that find objects."""

    data: DetectionData
    sets: DetectionSets

    def train_dataset(self) -> Dataset:
        return self.sets.train

    def batch_stream(self, dataset: Selected, **options: Any) -> GroupedBatchStream:
        return GroupedBatchStream(dataset.aspect_ratios, chunk=self.data.group, **options)

    def collate(self, samples: list[Any]) -> Batch:
        """What is learned from alone: a batch goes to the device, and not every device takes areas in float64."""
        images, targets = collate_lists(samples)
        return images, [{key: target[key] for key in LEARNED if key in target} for target in targets]

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return model(*batch)


class DetectionTask(_ObjectsTask):
    """RetinaNet and Mask R-CNN: COCO's average precision."""

    def __init__(self, recipe: Recipe[DetectionData]):
        super().__init__(recipe)
        makes_masks = task_of(recipe.model.name) == INSTANCES
        if makes_masks and not recipe.data.masks:
            raise ValueError(f"{recipe.model.name} learns masks: with --data.masks False take --model.name retinanet")
        self.data = replace(recipe.data, masks=makes_masks)
        self._opened(DetectionSets(self.data, cache=cache_dir()))
        self.kinds = ("bbox", "segm") if makes_masks else ("bbox",)
        self.metric = f"{self.kinds[-1]}/AP"

    def build_model(self) -> nn.Module:
        model = build_dense_model(self.recipe.model, said=self.said, num_classes=len(self.sets.classes))
        self._note_many_objects(model)
        model, self.optimized = for_training(model, self.recipe.run)
        return model

    def evaluate(self, model: nn.Module, accelerator: Any, *, save: Path | None = None) -> dict[str, float]:
        """Args: save: folder for COCO's `results.json`."""
        assert self.eval_dataset is not None
        batches = self._loader(self.eval_dataset, accelerator, self.data.eval_batch_size)
        self.found = COCOAveragePrecision(self.sets.classes, self.sets.category_ids, kinds=self.kinds)
        self.measured = measure_detection(model, batches, self.found, folder=save, accelerator=accelerator)
        return self.measured.metrics

    def report(self, model: nn.Module, folder: Path) -> None:
        """COCO's results JSON, the table per class, and pictures: truth on the left, found on the right."""
        assert self.eval_dataset is not None
        assert self.found is not None
        self.found.save_results(folder / "results.json")
        self._write_per_class(folder)
        from litevit.jobs.dense_pictures import draw_detections

        draw_detections(model, self.eval_dataset, self.sets.classes, folder / "predictions.png")


class PanopticTask(_ObjectsTask):
    """Panoptic FPN: panoptic quality."""

    metric = "pq"

    def __init__(self, recipe: Recipe[DetectionData]):
        super().__init__(recipe)
        self.data = recipe.data
        self._opened(DetectionSets(recipe.data, cache=cache_dir(), panoptic=True))
        source = self.sets.train_source
        assert isinstance(source, CocoPanoptic)
        self.num_things, self.num_stuff = source.num_things, source.num_stuff

    def build_model(self) -> nn.Module:
        model = build_dense_model(
            self.recipe.model, said=self.said, num_things=self.num_things, num_stuff=self.num_stuff
        )
        model, self.optimized = for_training(model, self.recipe.run)
        return model

    def evaluate(self, model: nn.Module, accelerator: Any, *, save: Path | None = None) -> dict[str, float]:
        """Args: save: folder for COCO's panoptic results: `panoptic.json` and the PNGs in `panoptic/`."""
        assert self.eval_dataset is not None
        batches = self._loader(self.eval_dataset, accelerator, self.data.eval_batch_size)
        self.measured = measure_panoptic(
            model, batches, classes=self.sets.classes, category_ids=self.sets.category_ids,
            num_things=self.num_things, folder=save, accelerator=accelerator,
        )  # fmt: skip
        return self.measured.metrics

    def report(self, model: nn.Module, folder: Path) -> None:
        """The table per class, and pictures: truth on the left, found on the right."""
        assert self.eval_dataset is not None
        self._write_per_class(folder)
        from litevit.jobs.dense_pictures import draw_panoptic

        draw_panoptic(model, self.eval_dataset, self.sets.classes, folder / "predictions.png")


class SegmentationTask(_DenseTask):
    """Semantic FPN and SegFormer: mean intersection over union at the images' own resolution."""

    metric = "miou"

    def __init__(self, recipe: Recipe[SegmentationData]):
        super().__init__(recipe)
        self.data = recipe.data
        self._opened(SegmentationSets(recipe.data, cache=cache_dir()))

    def build_model(self) -> nn.Module:
        model = build_dense_model(self.recipe.model, said=self.said, num_classes=len(self.sets.classes))
        # Published: the head's BatchNorm sees the batch of all GPUs, the backbone's (deformable merging) its own share.
        parallel = torch.distributed.is_available() and torch.distributed.is_initialized()
        if parallel and torch.cuda.is_available() and self.recipe.run.device != "cpu":
            model.head = nn.SyncBatchNorm.convert_sync_batchnorm(model.head)  # type: ignore[arg-type]
        model, self.optimized = for_training(model, self.recipe.run)
        return model

    def train_dataset(self) -> Dataset:
        return self.sets.train

    def collate(self, samples: list[Any]) -> tuple[Tensor, Tensor]:
        images, targets = collate_lists(samples)
        return torch.stack(images), torch.stack([target["semantic"] for target in targets])

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        return model(*batch)

    def evaluate(self, model: nn.Module, accelerator: Any, *, save: Path | None = None) -> dict[str, float]:
        """Args: save: folder for `index/`, PNGs with the values of the data set's own masks."""
        assert self.eval_dataset is not None
        self.measured = measure_semantic(
            model, self._loader(self.eval_dataset, accelerator), classes=self.sets.classes,
            to_values=self.sets.labels.to_values, folder=save, accelerator=accelerator,
        )  # fmt: skip
        return self.measured.metrics

    def report(self, model: nn.Module, folder: Path) -> None:
        """The table per class, and pictures: truth on the left, found on the right."""
        assert self.eval_dataset is not None
        self._write_per_class(folder)
        from litevit.jobs.dense_pictures import draw_segmentation

        draw_segmentation(model, self.eval_dataset, self.sets.classes, folder / "predictions.png")
