"""Every model by name: the MODELS table and what builds from it."""

import difflib
import fnmatch
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import timm
import torch
from torch import Tensor, nn

from litevit.backbones import lit, litv2, lvt, pvt, swin
from litevit.layers.features import FeatureSpec
from litevit.layers.out_norms import OutNorms
from litevit.tasks.classification import Classifier, ClassifierConfig
from litevit.tasks.lvt_classifier import LVTClassifier, LVTClassifierConfig
from litevit.tasks.mask_rcnn import MaskRCNN, MaskRCNNConfig
from litevit.tasks.panoptic_fpn import PanopticFPN, PanopticFPNConfig
from litevit.tasks.retinanet import RetinaNet, RetinaNetConfig
from litevit.tasks.segformer import SegFormer, SegFormerConfig
from litevit.tasks.semantic_fpn import SemanticFPN, SemanticFPNConfig

BackboneConfig = lit.LITConfig | litv2.LITv2Config | lvt.LVTConfig | swin.SwinConfig

BACKBONES: dict[str, BackboneConfig] = {
    **lit.VARIANTS,
    **pvt.VARIANTS,
    **litv2.VARIANTS,
    **swin.VARIANTS,
    **lvt.VARIANTS,
}


class Task(NamedTuple):
    """How a task puts a head on a backbone."""

    name: str  # as the field calls it; the `task=` filter of list_models
    model: type[nn.Module]  # (backbone, config)
    config: type
    out_norms: OutNorms


class Entry(NamedTuple):
    """One row of MODELS: a task, a backbone, and the task's config."""

    task: Task
    backbone: BackboneConfig
    head: Any
    backbone_name: str


CLASSIFICATION = Task("classification", Classifier, ClassifierConfig, "none")
LVT_CLASSIFICATION = Task("classification", LVTClassifier, LVTClassifierConfig, "none")
RETINANET = Task("detection", RetinaNet, RetinaNetConfig, "detection")
MASK_RCNN = Task("instance segmentation", MaskRCNN, MaskRCNNConfig, "detection")
SEMANTIC_FPN = Task("semantic segmentation", SemanticFPN, SemanticFPNConfig, "segmentation")
SEGFORMER = Task("semantic segmentation", SegFormer, SegFormerConfig, "segmentation")
PANOPTIC_FPN = Task("panoptic segmentation", PanopticFPN, PanopticFPNConfig, "detection")

# Tasks that take any backbone: create_model("mask_rcnn", backbone="lvt").
GENERIC: dict[str, Task] = {
    "retinanet": RETINANET,
    "mask_rcnn": MASK_RCNN,
    "semantic_fpn": SEMANTIC_FPN,
    "segformer": SEGFORMER,
    "panoptic_fpn": PANOPTIC_FPN,
}

# LIT's detectors were published with mmdetection 2.11, LITv2's code is for 3.2: they differ in what is selected.
LIT_RETINANET = RetinaNetConfig(selection="anchors", remove_empty_boxes=False)
LIT_MASK_RCNN = MaskRCNNConfig(remove_empty_proposals=False)
WINDOW_4 = (0, 0, 4, 1)


def _dense(task: Task, backbone_name: str, head: Any = None, **backbone: Any) -> Entry:
    config = replace(_dense_config(BACKBONES[backbone_name], task.out_norms), **backbone)
    return Entry(task, config, task.config() if head is None else head, backbone_name)


def _dense_config(config: BackboneConfig, out_norms: OutNorms) -> BackboneConfig:
    """The config of a backbone that hands out maps: no class token, and the output norms of the task."""
    if isinstance(config, lit.LITConfig):
        return replace(config, class_token=False, out_norms=out_norms)
    return replace(config, out_norms=out_norms)


MODELS: dict[str, Entry] = {
    **{name: Entry(CLASSIFICATION, config, ClassifierConfig(), name) for name, config in BACKBONES.items()},
    "lvt": Entry(LVT_CLASSIFICATION, BACKBONES["lvt"], LVTClassifierConfig(), "lvt"),  # the published 74.8 % model
    "lvt_plain": Entry(CLASSIFICATION, BACKBONES["lvt"], ClassifierConfig(), "lvt"),
    "retinanet_lit_ti": _dense(RETINANET, "lit_ti", LIT_RETINANET),
    "retinanet_lit_s": _dense(RETINANET, "lit_s", LIT_RETINANET),
    "retinanet_litv2_s": _dense(RETINANET, "litv2_s"),
    "retinanet_litv2_m": _dense(RETINANET, "litv2_m"),
    "retinanet_litv2_b": _dense(RETINANET, "litv2_b"),
    "retinanet_litv2_s_ws4": _dense(RETINANET, "litv2_s", window_sizes=WINDOW_4),
    "retinanet_litv2_m_ws4": _dense(RETINANET, "litv2_m", window_sizes=WINDOW_4),
    "retinanet_litv2_b_ws4": _dense(RETINANET, "litv2_b", window_sizes=WINDOW_4),
    "mask_rcnn_lit_ti": _dense(MASK_RCNN, "lit_ti", LIT_MASK_RCNN),
    "mask_rcnn_lit_s": _dense(MASK_RCNN, "lit_s", LIT_MASK_RCNN),
    "mask_rcnn_litv2_s": _dense(MASK_RCNN, "litv2_s"),
    "mask_rcnn_litv2_m": _dense(MASK_RCNN, "litv2_m"),
    "mask_rcnn_litv2_b": _dense(MASK_RCNN, "litv2_b"),
    "mask_rcnn_litv2_s_ws4": _dense(MASK_RCNN, "litv2_s", window_sizes=WINDOW_4),
    "mask_rcnn_litv2_m_ws4": _dense(MASK_RCNN, "litv2_m", window_sizes=WINDOW_4),
    "mask_rcnn_litv2_b_ws4": _dense(MASK_RCNN, "litv2_b", window_sizes=WINDOW_4),
    "semantic_fpn_lit_ti": _dense(SEMANTIC_FPN, "lit_ti"),
    "semantic_fpn_lit_s": _dense(SEMANTIC_FPN, "lit_s"),
    "semantic_fpn_litv2_s": _dense(SEMANTIC_FPN, "litv2_s"),
    "semantic_fpn_litv2_m": _dense(SEMANTIC_FPN, "litv2_m"),
    "semantic_fpn_litv2_b": _dense(SEMANTIC_FPN, "litv2_b"),
    "segformer_lvt": _dense(SEGFORMER, "lvt"),
    "panoptic_fpn_lvt": _dense(PANOPTIC_FPN, "lvt"),
}


class TimmBackbone(nn.Module):
    """A timm model as a backbone: its maps at strides 4, 8, 16 and 32."""

    has_class_token = False

    def __init__(self, name: str):
        super().__init__()
        self.trunk: Any
        try:
            try:  # Swin's kin take other sizes only when asked to
                self.trunk = timm.create_model(name, features_only=True, pretrained=False, strict_img_size=False)
            except TypeError:
                self.trunk = timm.create_model(name, features_only=True, pretrained=False)
        except RuntimeError as error:
            raise ValueError(f"timm cannot make feature maps of {name!r}: {error}") from error
        for module in self.trunk.modules():
            if isinstance(module, timm.layers.PatchEmbed):
                module.dynamic_img_pad = True  # type: ignore[misc]  # sides that patches do not divide
        self.channels_last = str(getattr(self.trunk, "output_fmt", "NCHW")).endswith("NHWC")
        strides = list(self.trunk.feature_info.reduction())
        if not {4, 8, 16, 32} <= set(strides):
            raise ValueError(f"{name}: a backbone needs maps at strides 4, 8, 16 and 32, timm gives {strides}")
        self.picked = [strides.index(s) for s in (4, 8, 16, 32)]
        channels = self.trunk.feature_info.channels()
        self.features = tuple(FeatureSpec(channels[i], strides[i]) for i in self.picked)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Passed on to timm."""
        self.trunk.set_grad_checkpointing(enable)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Args: images: (B, 3, H, W), normalised. Returns: 4 x (B, C_i, H_i, W_i)."""
        maps = self.trunk(images)
        return tuple(maps[i].permute(0, 3, 1, 2) if self.channels_last else maps[i] for i in self.picked)


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


def _unknown(name: str, known: list[str], what: str) -> ValueError:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else f" Known: {', '.join(known)}"
    return ValueError(f"Unknown {what} {name!r}.{hint}")


def list_models(pattern: str = "*", *, task: str | None = None) -> list[str]:
    """Names of all models, sorted.

    Args:
        pattern: shell-style pattern, such as `"litv2*"`.
        task: keep one task: `classification`, `detection`, `instance segmentation`, `semantic segmentation` or
            `panoptic segmentation`.
    """
    tasks = sorted({entry.task.name for entry in MODELS.values()})
    if task is not None and task not in tasks:
        raise _unknown(task, tasks, "task")
    return sorted(
        name for name, e in MODELS.items() if fnmatch.fnmatch(name, pattern) and (task is None or e.task.name == task)
    )


def _build_backbone(config: BackboneConfig) -> nn.Module:
    if isinstance(config, lit.LITConfig):
        return lit.LIT(config)
    if isinstance(config, litv2.LITv2Config):
        return litv2.LITv2(config)
    if isinstance(config, lvt.LVTConfig):
        return lvt.LVT(config)
    return swin.Swin(config)


def _split_overrides(name: str, overrides: dict, *configs: Any) -> list[dict]:
    """Gives each override to the first config that has the field; a field of none raises."""
    out: list[dict] = [{} for _ in configs]
    for key, value in overrides.items():
        for config, mine in zip(configs, out):
            if config is not None and key in {f.name for f in fields(config)}:
                mine[key] = value
                break
        else:
            known = sorted({f.name for c in configs if c is not None for f in fields(c)})
            raise _unknown(key, known, f"option of {name}:")
    return out


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
    if name not in BACKBONES:
        if timm.is_model(name):
            if overrides:
                raise ValueError(f"{name}: options of timm backbones are not supported, got {sorted(overrides)}")
            return TimmBackbone(name)
        raise _unknown(name, sorted(BACKBONES), "backbone")
    config = BACKBONES[name]
    (mine,) = _split_overrides(name, overrides, config)
    return _build_backbone(replace(_dense_config(config, out_norms), **mine))


def create_model(
    name: str, weights: str | Path | None = None, *, backbone: str | nn.Module | None = None, **overrides: Any
) -> nn.Module:
    """Builds a model.

    Args:
        name: one of `list_models()`, or a task that takes any backbone (`"mask_rcnn"`, `"retinanet"`,
            `"semantic_fpn"`, `"segformer"`, `"panoptic_fpn"`) together with `backbone`.
        weights: None (random), `"official"` (the published file, downloaded once) or a path.
        backbone: for the generic names: a backbone's name (ours or timm's) or a module with `features`.
        overrides: fields of the backbone's or the task's config, such as `num_classes=10, drop_path_rate=0.1`.
    """
    if name in GENERIC:
        model = _create_generic(name, backbone, overrides)
    elif name in MODELS:
        if backbone is not None:
            raise ValueError(f"{name} has its own backbone; use one of {sorted(GENERIC)} to choose another")
        entry = MODELS[name]
        mine, head = _split_overrides(name, overrides, entry.backbone, entry.head)
        model = entry.task.model(_build_backbone(replace(entry.backbone, **mine)), replace(entry.head, **head))
    else:
        raise _unknown(name, sorted([*MODELS, *GENERIC]), "model")
    if weights is not None:
        from litevit.checkpoints import published  # the table is only needed here
        from litevit.checkpoints.load import load_weights

        load_weights(model, published.fetch(name) if weights == "official" else weights)
    return model


def model_options(name: str, backbone: str | None = None) -> dict[str, Any]:
    """The options that `create_model` takes for a model, and their types.

    Args:
        name: as for `create_model`.
        backbone: for the generic names; a timm backbone takes no options.
    """
    if name in GENERIC:
        if backbone is None:
            raise ValueError(f"{name} needs backbone=, such as create_model({name!r}, backbone='litv2_s')")
        configs = [GENERIC[name].config, *([type(BACKBONES[backbone])] if backbone in BACKBONES else [])]
    elif name in MODELS:
        configs = [type(MODELS[name].backbone), type(MODELS[name].head)]
    else:
        raise _unknown(name, sorted([*MODELS, *GENERIC]), "model")
    found: dict[str, Any] = {"backbone": str} if name in GENERIC else {}
    for config in configs:
        found = {**get_type_hints(config), **found}  # an option of both goes to the first
    return found


def _create_generic(name: str, backbone: str | nn.Module | None, overrides: dict) -> nn.Module:
    task = GENERIC[name]
    if backbone is None:
        raise ValueError(f"{name} needs backbone=, such as create_model({name!r}, backbone='litv2_s')")
    head_config = task.config()
    if isinstance(backbone, nn.Module):
        (head,) = _split_overrides(name, overrides, head_config)
        return task.model(backbone, replace(head_config, **head))
    known = BACKBONES.get(backbone)
    head, mine = _split_overrides(name, overrides, head_config, known)
    return task.model(create_backbone(backbone, task.out_norms, **mine), replace(head_config, **head))


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
    from litevit.checkpoints.published import ABLATIONS, WEIGHTS

    if name not in MODELS:
        raise _unknown(name, sorted(MODELS), "model")
    known = WEIGHTS.get(name)
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
        published=dict(known.published if known is not None else ABLATIONS.get(name, {})),
        weights=(known.url or known.page) if known is not None else None,
        licence=known.licence if known is not None else None,
        source=known.source if known is not None else None,
    )
