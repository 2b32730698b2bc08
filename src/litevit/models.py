"""Models by name, with their weights and what is known about them: `litevit.create_model` and its kin."""

import fnmatch
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from litevit.checkpoints import published
from litevit.checkpoints.load import load_weights
from litevit.checkpoints.recorded import recorded_options, weights_file
from litevit.layers.out_norms import OutNorms
from litevit.zoo import MODELS, build_backbone, build_model, unknown


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What is known about a model. `macs` are multiply-adds of one image of `image_size`."""

    name: str
    task: str
    params: int
    macs: int
    image_size: tuple[int, int]
    published: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    licence: str | None = None
    source: str | None = None


def list_models(pattern: str = "*", *, task: str | None = None) -> list[str]:
    """Names of all models, sorted.

    Args:
        pattern: shell-style pattern, such as `"litv2*"`.
        task: keep one task: `classification`, `detection`, `instance segmentation`, `semantic segmentation` or
            `panoptic segmentation`.
    """
    tasks = sorted({entry.task.name for entry in MODELS.values()})
    if task is not None and task not in tasks:
        raise unknown(task, tasks, "task")
    return sorted(
        name for name, e in MODELS.items() if fnmatch.fnmatch(name, pattern) and (task is None or e.task.name == task)
    )


def create_backbone(name: str, out_norms: OutNorms = "none", **overrides: Any) -> nn.Module:
    """Builds a backbone with random weights.

    Args:
        name: a classification model of `list_models()` (`"litv2_s"`), or a timm model with maps at strides 4-32.
        out_norms: LayerNorms on the maps: `"none"`, `"detection"` (maps 2-4) or `"segmentation"` (all); LIT's relative
            tables are then made for 224, 800 or 512 pixel images. LIT-Ti, PVT and LVT have no such norms.
        overrides: fields of the family's config, such as `drop_path_rate=0.2`.

    Returns:
        Module with `features` (channels and stride of each map) and `forward((B, 3, H, W)) -> 4 x (B, C_i, H_i, W_i)`.
    """
    return build_backbone(name, out_norms, **overrides)


def create_model(
    name: str, weights: str | Path | None = None, *, backbone: str | nn.Module | None = None, **overrides: Any
) -> nn.Module:
    """Builds a model.

    Args:
        name: one of `list_models()`, or a task that takes any backbone (`"mask_rcnn"`, `"retinanet"`,
            `"semantic_fpn"`, `"segformer"`, `"panoptic_fpn"`) together with `backbone`.
        weights: None (random), `"official"` (the published file, downloaded once), a checkpoint file, or the folder of
            a training run, whose classes and options the model then has.
        backbone: for the generic names: a backbone's name (ours or timm's) or a module with `features`.
        overrides: fields of the backbone's or the task's config, such as `num_classes=10, drop_path_rate=0.1`.
    """
    file = None if weights is None else published.fetch(name) if weights == "official" else weights_file(weights)
    if file is not None and weights != "official" and file.is_file():
        recorded = recorded_options(file, name)
        backbone = backbone or recorded.pop("backbone", None)
        overrides = {**recorded, **overrides}
    model = build_model(name, backbone=backbone, **overrides)
    if file is not None:
        load_weights(model, file)
    return model


def count_macs(model: nn.Module, image_size: tuple[int, int]) -> int:
    """Multiply-adds of one forward pass on one image: matrix products, convolutions and attention.

    Args:
        model: classifier, backbone, segmenter or detector (its `forward_raw`).
        image_size: (H, W).
    """
    from torch.utils.flop_counter import FlopCounterMode

    images = torch.zeros(1, 3, *image_size, device=next(model.parameters()).device)
    forward = getattr(model, "forward_raw", model)
    training = model.training
    counter = FlopCounterMode(display=False)
    learned = [p for p in model.parameters() if p.requires_grad]
    model.requires_grad_(False)  # the counter's hooks trip on views of parameters that learn
    with counter, torch.no_grad():
        forward(images) if not training else model.eval()(images)
    for parameter in learned:
        parameter.requires_grad_(True)
    model.train(training)
    return counter.get_total_flops() // 2


def info(name: str, image_size: int | tuple[int, int] | None = None) -> ModelInfo:
    """Facts about a model: parameters and multiply-adds of ours, published figures, weights, licence, source.

    Args:
        name: one of `list_models()`.
        image_size: side or (H, W) for the multiply-adds; None takes the model's own size.
    """
    if name not in MODELS:
        raise unknown(name, sorted(MODELS), "model")
    known = published.WEIGHTS.get(name)
    if image_size is None:
        image_size = known.figure_size if known is not None else 224
    size = (image_size, image_size) if isinstance(image_size, int) else (image_size[0], image_size[1])
    with torch.device("meta"):
        model = create_model(name).eval()
    return ModelInfo(
        name=name,
        task=MODELS[name].task.name,
        params=sum(p.numel() for p in model.parameters()),
        macs=count_macs(model, size),
        image_size=size,
        published=dict(known.published if known is not None else published.ABLATIONS.get(name, {})),
        weights=(known.url or known.page) if known is not None else None,
        licence=known.licence if known is not None else None,
        source=known.source if known is not None else None,
    )
