"""Every model by name: the tables, and what builds from them. Nothing is read from disk."""

import difflib
from dataclasses import fields, replace
from typing import Any, NamedTuple, get_type_hints

import timm
from torch import nn

from litevit.backbones import lit, litv2, lvt, pvt, swin
from litevit.backbones.family import Family
from litevit.backbones.timm_features import TimmBackbone
from litevit.layers.out_norms import OutNorms
from litevit.tasks.classification import Classifier, ClassifierConfig
from litevit.tasks.lvt_classifier import LVTClassifier, LVTClassifierConfig
from litevit.tasks.mask_rcnn import MaskRCNN, MaskRCNNConfig
from litevit.tasks.panoptic_fpn import PanopticFPN, PanopticFPNConfig
from litevit.tasks.retinanet import RetinaNet, RetinaNetConfig
from litevit.tasks.segformer import SegFormer, SegFormerConfig
from litevit.tasks.semantic_fpn import SemanticFPN, SemanticFPNConfig

FAMILIES: tuple[Family, ...] = (lit.FAMILY, pvt.FAMILY, litv2.FAMILY, swin.FAMILY, lvt.FAMILY)
BACKBONES: dict[str, Any] = {name: config for family in FAMILIES for name, config in family.variants.items()}


def family_of(config: Any) -> Family:
    """The family whose config this is."""
    return next(family for family in FAMILIES if type(config) is family.config)


class Task(NamedTuple):
    """How a task puts a head on a backbone."""

    name: str  # as the field calls it; the `task=` filter of list_models
    model: type[nn.Module]  # (backbone, config)
    config: type
    out_norms: OutNorms


class Entry(NamedTuple):
    """One row of MODELS: a task, a backbone, and the task's config."""

    task: Task
    backbone: Any  # config
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
    known = BACKBONES[backbone_name]
    config = replace(family_of(known).dense(known, task.out_norms), **backbone)
    return Entry(task, config, task.config() if head is None else head, backbone_name)


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


# Options of timm and torchvision that no model has here, and what is there instead.
ELSEWHERE = {
    "pretrained": 'weights="official" gives create_model the published weights',
    "img_size": "models take images of any size",
    "drop_rate": "the published models have no dropout before the head",
}

MOST_LISTED = 100  # names in a message; timm has a thousand


def unknown(name: str, known: list[str], what: str) -> ValueError:
    """What to raise for a name that is not among the known ones."""
    plain = {other.lower(): other for other in known}
    near = [plain[match] for match in difflib.get_close_matches(name.lower(), plain, n=3, cutoff=0.5)]
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else f" Known: {', '.join(known)}"
    return ValueError(f"Unknown {what} {name!r:.60}.{hint if near or len(known) <= MOST_LISTED else ''}")


def _split_overrides(name: str, overrides: dict, *configs: Any) -> list[dict]:
    """Gives each override to the first config that has the field; a field of none raises."""
    out: list[dict] = [{} for _ in configs]
    for key, value in overrides.items():
        for config, mine in zip(configs, out):
            if config is not None and key in {f.name for f in fields(config)}:
                if isinstance(value, str) and isinstance(getattr(config, key), int | float | tuple):
                    raise ValueError(f"{name}: {key} must be like {getattr(config, key)!r}, got the text {value!r:.60}")
                mine[key] = value
                break
        else:
            if key in ELSEWHERE:
                raise ValueError(f"Unknown option of {name}: {key!r}: {ELSEWHERE[key]}")
            known = sorted({f.name for c in configs if c is not None for f in fields(c)})
            raise unknown(key, known, f"option of {name}:")
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

    Raises:
        ValueError: an unknown name or option, or a value out of its range.
    """
    if name not in BACKBONES:
        if timm.is_model(name):
            if overrides:
                raise ValueError(f"{name}: options of timm backbones are not supported, got {sorted(overrides)}")
            return TimmBackbone(name)
        raise unknown(name, sorted(BACKBONES), "backbone")
    config = BACKBONES[name]
    (mine,) = _split_overrides(name, overrides, config)
    family = family_of(config)
    return family.model(replace(family.dense(config, out_norms), **mine))


def build_model(name: str, *, backbone: str | nn.Module | None = None, **overrides: Any) -> nn.Module:
    """Builds a model with random weights.

    Args:
        name: of `MODELS`, or of `GENERIC` together with `backbone`.
        backbone: for the generic names: a backbone's name (ours or timm's) or a module with `features`.
        overrides: fields of the backbone's or the task's config, such as `num_classes=10, drop_path_rate=0.1`.
    """
    if name in GENERIC:
        return _build_generic(name, backbone, overrides)
    if name not in MODELS:
        if timm.is_model(theirs := name.removeprefix("timm/")):
            raise ValueError(
                f"{name} is timm's: timm.create_model({theirs!r}) makes it. Here it is a backbone, as in "
                f"create_model('retinanet', backbone={theirs!r}), and a classifier of litevit train --model.name "
                f"timm/{theirs}"
            )
        raise unknown(name, sorted([*MODELS, *GENERIC]), "model")
    if backbone is not None:
        raise ValueError(f"{name} has its own backbone; use one of {sorted(GENERIC)} to choose another")
    entry = MODELS[name]
    mine, head = _split_overrides(name, overrides, entry.backbone, entry.head)
    made = family_of(entry.backbone).model(replace(entry.backbone, **mine))
    return entry.task.model(made, replace(entry.head, **head))


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
        raise unknown(name, sorted([*MODELS, *GENERIC]), "model")
    found: dict[str, Any] = {"backbone": str} if name in GENERIC else {}
    for config in configs:
        found = {**get_type_hints(config), **found}  # an option of both goes to the first
    return found


def _build_generic(name: str, backbone: str | nn.Module | None, overrides: dict) -> nn.Module:
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
