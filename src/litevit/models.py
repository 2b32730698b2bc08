"""Models by name, with their weights and what is known about them: `litevit.create_model` and its kin."""

import fnmatch
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from litevit.checkpoints import published
from litevit.checkpoints.claims import check_options
from litevit.checkpoints.load import load_and_tell
from litevit.checkpoints.packed import is_packed, open_packed
from litevit.checkpoints.recorded import recorded_options, weights_file
from litevit.tasks.two_stage import TwoStage
from litevit.zoo import BACKBONES, GENERIC, MODELS, build_model, unknown
from litevit.zoo import create_backbone as create_backbone


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What is known about a model."""

    name: str  # of `list_models()`
    task: str  # as `list_models(task=...)` takes it
    params: int  # parameters
    macs: int  # multiply-adds of one image of `image_size`, of the whole system
    image_size: tuple[int, int]  # H, W
    regions: tuple[int, int] | None = None  # boxes and masks that the heads of a two-stage detector are counted on
    published: dict[str, Any] = field(default_factory=dict)  # figures of paper and repository
    weights: str | None = None  # address of the published file; None: there is none
    licence: str | None = None  # of the weights
    source: str | None = None  # repository and paper


def list_models(pattern: str = "*", *, task: str | None = None) -> list[str]:
    """Names of all models, sorted.

    Args:
        pattern: shell-style pattern, such as `"litv2*"`.
        task: keep one task: `classification`, `detection`, `instance segmentation`, `semantic segmentation` or
            `panoptic segmentation`.

    Returns:
        Names that `create_model` takes.

    Raises:
        ValueError: no such task.
    """
    tasks = sorted({entry.task.name for entry in MODELS.values()})
    if task is not None and task not in tasks:
        raise unknown(task, tasks, "task")
    return sorted(
        name for name, e in MODELS.items() if fnmatch.fnmatch(name, pattern) and (task is None or e.task.name == task)
    )


def create_model(
    name: str, weights: str | Path | None = None, *, backbone: str | nn.Module | None = None, **overrides: Any
) -> nn.Module:
    """Builds a model.

    Args:
        name: one of `list_models()`, or a task that takes any backbone (`"mask_rcnn"`, `"retinanet"`,
            `"semantic_fpn"`, `"segformer"`, `"panoptic_fpn"`) together with `backbone`; or a packed model
            (`litevit pack`), which has its own weights and options: `"local-dir:FOLDER"`, `"hf-hub:OWNER/NAME"`.
        weights: None or `"none"` (random), `"official"` (the published file, downloaded once), `"imagenet"` (of a dense
            model: the published ImageNet weights of its backbone), a checkpoint file, or the folder of a training run,
            whose classes and options the model then has. Of a packed model None means its own; `"none"` is random.
        backbone: for the generic names: a backbone's name (ours or timm's) or a module with `features`.
        overrides: fields of the backbone's or the task's config, such as `num_classes=10, drop_path_rate=0.1`.

    Returns:
        The model in training mode, in float32, on PyTorch's default device. Classifiers take (B, 3, H, W), normalised,
        and give logits (B, K); segmenters logits (B, K, H, W); detectors take a list of (3, H, W) in [0, 1] and give a
        dict per image.

    Raises:
        ValueError: an unknown name or option, a value out of its range, weights of another model or none published.
        FileNotFoundError: no such file; or one that has to be fetched by hand (LVT).
        OSError: the download broke off; the next call resumes it.
    """
    word = published.weights_word(weights)
    file = None
    if is_packed(name):
        packed = open_packed(name)
        if word == "imagenet":
            raise ValueError(f"{name} has its own weights: leave weights out, or give none or a file")
        if word == "official" or weights is None:
            word = packed.weights()
        name, overrides = packed.name, {**packed.options, **overrides}
        backbone = overrides.pop("backbone", backbone) if backbone is None else backbone
    if word == "imagenet":
        file = published.fetch(_classifier_of(name, backbone))
    elif word == "official":
        file = published.fetch(name)
    elif word is not None:
        file = weights_file(word)
        if file.is_file():
            recorded = recorded_options(file, name)
            if recorded:
                check_options(name, recorded, file, file)
            theirs = recorded.pop("backbone", None)
            backbone = backbone or theirs
            overrides = {**recorded, **overrides}
    model = build_model(name, backbone=backbone, **overrides)
    if file is not None:
        load_and_tell(model, file)
    return model


def _classifier_of(name: str, backbone: str | nn.Module | None) -> str:
    """The classifier whose published weights a model's backbone starts from."""
    if name not in (*MODELS, *GENERIC):
        raise unknown(name, sorted([*MODELS, *GENERIC]), "model")
    if backbone is None and name in MODELS:
        return name if MODELS[name].task.name == "classification" else MODELS[name].backbone_name
    if isinstance(backbone, str) and backbone in BACKBONES:
        return backbone
    raise ValueError(f'{name}: weights="imagenet" needs a backbone of ours by its name, such as backbone="litv2_s"')


def count_macs(model: nn.Module, image_size: tuple[int, int]) -> int:
    """Multiply-adds of one image in evaluation: matrix products, convolutions and attention. The model stays as it is.

    Args:
        model: classifier, backbone, segmenter or detector. Of a two-stage detector the heads of the regions are counted
            on as many as an image may have (`max_proposals` boxes, `max_detections` masks), as mmdetection counts them.
        image_size: (H, W).
    """
    from torch.utils.flop_counter import FlopCounterMode

    images = torch.zeros(1, 3, *image_size, device=next(model.parameters()).device)
    counter = FlopCounterMode(display=False)
    training = {module: module.training for module in model.modules()}
    learned = [p for p in model.parameters() if p.requires_grad]
    try:
        model.eval().requires_grad_(False)  # the counter's hooks trip on views of parameters that learn
        with counter, torch.no_grad():
            getattr(model, "forward_raw", model)(images)
            if isinstance(model, TwoStage):
                _run_heads(model, images)
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)
        for module, mode in training.items():
            module.training = mode
    return counter.get_total_flops() // 2


def _run_heads(model: TwoStage, images: Tensor) -> None:
    """The heads on the most regions that one image may have; which pixels they hold costs nothing to count."""
    heads, config = model.roi_heads, model.config
    heads.box_head(images.new_zeros(config.max_proposals, config.channels, heads.box_size, heads.box_size))
    if heads.mask_head is not None:
        size = heads.mask_size
        heads.mask_head(images.new_zeros(config.max_detections, config.channels, size, size))


def info(name: str, image_size: int | tuple[int, int] | None = None) -> ModelInfo:
    """Facts about a model: parameters and multiply-adds of ours, published figures, weights, licence, source.

    Args:
        name: one of `list_models()`.
        image_size: side or (H, W) in pixels for the multiply-adds; None takes the model's own size.

    Returns:
        Counts of ours and figures of the papers.

    Raises:
        ValueError: no such model.
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
        regions=(model.config.max_proposals, model.config.max_detections) if isinstance(model, TwoStage) else None,
        published=dict(known.published if known is not None else published.ABLATIONS.get(name, {})),
        weights=(known.url or known.page) if known is not None else None,
        licence=known.licence if known is not None else None,
        source=known.source if known is not None else None,
    )
