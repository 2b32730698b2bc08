"""litevit's classifiers in timm: `import litevit.adapters.timm`, then `timm.create_model("litv2_s", num_classes=10)`.

The import registers every classification model of `litevit.list_models()` under its name. State-dict keys are those of
`litevit.create_model`, so a checkpoint of timm's training script loads in litevit and the other way round; official
files load too, wherever timm takes a path (`checkpoint_path=`, its scripts' `--checkpoint` and `--pretrained-path`).
`pretrained=True` takes the published weights (`weights="official"` in litevit), or those of a source that the caller
names in one of timm's ways: `hf-hub:`, `local-dir:`, or `file`, `url`, `hf_hub_id` or `state_dict` in `pretrained_cfg`
or `pretrained_cfg_overlay`.

torch.fx: the layers below are leaves of timm's tracers (`timm.models.get_notrace_modules()`); TorchScript can trace the
models (one trace serves every size and batch), not script them.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm.models
import torch
from timm.models import (
    FeatureDictNet,
    FeatureListNet,
    PretrainedCfg,
    build_model_with_cfg,
    generate_default_cfgs,
    register_model,
    register_notrace_function,
    register_notrace_module,
    resolve_pretrained_cfg,
)
from timm.models._features import FeatureGetterNet
from torch import nn
from torch.nn.modules.module import _IncompatibleKeys

from litevit.adapters.timm_models import WITH_CLASS_TOKEN, WITH_POOLING, FeatureDict, TimmLVTClassifier
from litevit.checkpoints import layouts
from litevit.checkpoints import published as weights
from litevit.checkpoints.files import read_state_dict
from litevit.checkpoints.load import load_and_tell
from litevit.layers.class_attention import ClassAttentionBlock
from litevit.layers.deformable_merging import DeformableTokenMerging
from litevit.layers.patch_embed import LinearMerging
from litevit.layers.position import AbsolutePosition
from litevit.layers.stage import Stage
from litevit.models import create_model, list_models
from litevit.ops.grid import check_images, pad_images
from litevit.zoo import MODELS, model_options, unknown

# Their forwards ask for sizes, which fx cannot follow.
for _layer in (Stage, DeformableTokenMerging, LinearMerging, AbsolutePosition, ClassAttentionBlock):
    register_notrace_module(_layer)
for _function in (check_images, pad_images):
    register_notrace_function(_function)


class UnknownOptionError(ValueError, TypeError):
    """An option that a model does not have: ValueError in litevit, TypeError in timm."""


# timm's own take a model apart into a chain of its children; ours is a backbone that gives all maps.
FEATURE_CLASSES: dict[Any, type[nn.Module]] = {
    "list": FeatureGetterNet,
    FeatureListNet: FeatureGetterNet,
    "dict": FeatureDict,
    FeatureDictNet: FeatureDict,
}


def build(
    name: str,
    *,
    pretrained: bool | str | Path = False,
    drop_rate: float = 0.0,
    global_pool: str | None = None,
    in_chans: int = 3,
    output_stride: int = 32,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    **overrides: Any,
) -> nn.Module:
    """A classifier with timm's interface.

    Args:
        name: classification model of `litevit.list_models()`.
        pretrained: the published weights, or the path of a checkpoint; a head of another size stays fresh.
        drop_rate: dropout before the head.
        global_pool: see `poolings` of the class.
        in_chans: other than that of pretrained weights: their first convolution is adapted as timm does.
        output_stride: only 32.
        device, dtype: where and as what the parameters are made.
        overrides: fields of the model's config (`num_classes`, `drop_path_rate`, `alpha`, ...).

    Returns:
        One of the classes above, in training mode; (B, in_chans, H, W), normalised -> logits (B, num_classes).

    Raises:
        UnknownOptionError: an option that the model does not have; a ValueError and a TypeError.
        ValueError: no such model, another stride, or a value out of its range.
        OSError: of `pretrained`, as `litevit.create_model`.
    """
    options = sorted(model_options(name))
    for option in overrides:
        if option not in options:
            raise UnknownOptionError(str(unknown(option, options, f"option of {name}:")))
    if output_stride != 32:
        raise ValueError(f"{name}: output_stride must be 32, got {output_stride}")
    ours: Any = create_model(name, in_chans=in_chans, **overrides)
    model: nn.Module = _kind(type(ours), ours.backbone.config)(
        ours.backbone, ours.config, drop_rate=drop_rate, global_pool=global_pool
    )
    if pretrained is not False:
        load_and_tell(model, weights.fetch(name) if pretrained is True else pretrained, drop_head=True)
    return model.to(device=device, dtype=dtype)


def _kind(classifier: Any, backbone: Any) -> type[Any]:
    """timm's form of a classifier of ours on a backbone with this config."""
    kinds = WITH_CLASS_TOKEN if getattr(backbone, "class_token", False) else WITH_POOLING
    return kinds[classifier]


def _cfg(name: str) -> dict[str, Any]:
    """timm's description of the published weights and of how images are prepared for them."""
    prepared = weights.preprocessing(name)
    published = weights.WEIGHTS.get(name)
    size = prepared.size if isinstance(prepared.size, int) else prepared.size[0]
    kind = _kind(MODELS[name].task.model, MODELS[name].backbone)
    about = {}
    if published is not None:
        about = {"url": published.url, "license": published.licence, "origin_url": published.source}
    return {
        "num_classes": 1000,
        "input_size": (3, size, size),
        "min_input_size": (3, 32, 32),
        "pool_size": (size // 32, size // 32),  # the grid of the last map, also where the head reads a class token
        "crop_pct": prepared.crop_pct,
        "crop_mode": prepared.crop_mode,
        "interpolation": prepared.interpolation,
        "mean": prepared.mean,
        "std": prepared.std,
        "first_conv": STEM,
        "classifier": ("head", "aux_head") if kind is TimmLVTClassifier else "head",
        **about,
    }


STEM = "backbone.embeds.0.proj"
SOURCE = ("url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source")  # fields that say where weights lie


class _Receiver(nn.Module):
    """Stands for a model where timm loads weights, and keeps what timm has found, as it is."""

    found: Path | Mapping[str, Any]

    def load_pretrained(self, path: str) -> None:
        """A file, for litevit to read."""
        self.found = Path(path)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """The contents of one."""
        self.found = state_dict
        return _IncompatibleKeys([], [])


def _source(name: str, cfg: PretrainedCfg, cache_dir: str | Path | None) -> Path | Mapping[str, Any]:
    """Weights from where the caller says; where nothing was said, the published ones."""
    registered = default_cfgs[name].default
    if all(getattr(cfg, field) == getattr(registered, field) for field in SOURCE):
        return weights.fetch(name)
    receiver = _Receiver()
    # Nothing is adapted: first_conv and classifier are None, and files go to `load_pretrained` unread.
    bare = dataclasses.replace(cfg, first_conv=None, classifier=None, custom_load=True)
    timm.models.load_pretrained(receiver, bare.to_dict(), cache_dir=cache_dir)
    offset = cfg.label_offset or 0
    if offset == 0:
        return receiver.found
    tensors = read_state_dict(receiver.found).tensors
    converted = layouts.to_ours(tensors)
    state = {**converted.state, **{key: tensors[key] for key in converted.unexpected}}
    for key in ("head.weight", "head.bias", "aux_head.weight", "aux_head.bias"):
        if key in state:
            state[key] = state[key][offset:]
    return state


def _entrypoint(name: str) -> Any:
    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        def model_class(**model_kwargs: Any) -> nn.Module:
            model: Any = build(name, **model_kwargs)
            if pretrained:
                cfg = resolve_pretrained_cfg(name, kwargs.get("pretrained_cfg"), kwargs.get("pretrained_cfg_overlay"))
                found = _source(name, cfg, kwargs.get("cache_dir"))
                # As timm: a head for as many classes as the source says has to fit.
                load_and_tell(model, found, drop_head=model.num_classes != cfg.num_classes)
            return model

        if kwargs.get("features_only") and "feature_cls" in kwargs:
            kwargs["feature_cls"] = FEATURE_CLASSES.get(kwargs["feature_cls"], kwargs["feature_cls"])
        features = {"out_indices": (0, 1, 2, 3), "feature_cls": "getter"}
        return build_model_with_cfg(model_class, name, False, feature_cfg=features, **kwargs)

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"`{name}` of litevit; keyword arguments are those of `build`."
    return create


NAMES: tuple[str, ...] = tuple(list_models(task="classification"))
default_cfgs = generate_default_cfgs({name: _cfg(name) for name in NAMES})
__all__ = ["build"]
for _name in NAMES:
    globals()[_name] = register_model(_entrypoint(_name))
