"""litevit's classifiers in timm: `import litevit.adapters.timm`, then `timm.create_model("litv2_s", num_classes=10)`.

The import registers every classification model of `litevit.list_models()` under its name. State-dict keys are those of
`litevit.create_model`, so a checkpoint of timm's training script loads in litevit and the other way round; official
files load too, wherever timm takes a path (`checkpoint_path=`, its scripts' `--checkpoint` and `--pretrained-path`).
`pretrained=True` takes the published weights (`weights="official"` in litevit), or those of a source that the caller
names in one of timm's ways: `hf-hub:`, `local-dir:`, or `file`, `url`, `hf_hub_id` or `state_dict` in `pretrained_cfg`
or `pretrained_cfg_overlay`.

torch.fx: the layers below are leaves of timm's tracers (`timm.models.get_notrace_modules()`); TorchScript can trace the
models, not script them.
"""

import dataclasses
from collections.abc import Mapping, Sequence
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
from timm.models._features import FeatureGetterNet, feature_take_indices
from torch import Tensor, nn
from torch.nn.modules.module import _IncompatibleKeys

from litevit.checkpoints import layouts
from litevit.checkpoints import published as weights
from litevit.checkpoints.files import read_state_dict
from litevit.checkpoints.load import load_weights
from litevit.engine.optim import undecayed
from litevit.layers.class_attention import ClassAttentionBlock
from litevit.layers.deformable_merging import DeformableTokenMerging
from litevit.layers.patch_embed import LinearMerging
from litevit.layers.position import AbsolutePosition
from litevit.layers.stage import Stage
from litevit.models import create_model, list_models
from litevit.ops.grid import check_images, pad_images
from litevit.tasks.classification import Classifier
from litevit.tasks.lvt_classifier import LVTClassifier, LVTClassifierConfig
from litevit.zoo import MODELS, model_options, unknown

# Their forwards ask for sizes, which fx cannot follow.
for _layer in (Stage, DeformableTokenMerging, LinearMerging, AbsolutePosition, ClassAttentionBlock):
    register_notrace_module(_layer)
for _function in (check_images, pad_images):
    register_notrace_function(_function)


class UnknownOptionError(ValueError, TypeError):
    """An option that a model does not have: ValueError in litevit, TypeError in timm."""


class TimmInterface:
    """What timm asks of a model beyond `forward`. Mixed into our classifiers, so that their keys stay as they are."""

    backbone: Any
    norm: Any
    head: Any
    aux_head: Any
    num_features: int
    poolings: tuple[str, ...]  # accepted by global_pool; the first is what the model was published with

    def __init__(self, backbone: Any, config: Any, *, drop_rate: float = 0.0, global_pool: str | None = None):
        super().__init__(backbone, config)  # type: ignore[call-arg]
        self.in_chans = backbone.config.in_chans
        self.head_hidden_size = self.num_features
        self.head_drop = nn.Dropout(drop_rate)
        self._set_pooling(self.poolings[0] if global_pool is None else global_pool)
        # Every map goes through a module of its own, which a hook or a graph can name: a stage's output is BHWC.
        self.maps = nn.ModuleList(nn.Identity() for _ in backbone.features)
        self.feature_info = [
            {"num_chs": spec.channels, "reduction": spec.stride, "module": f"maps.{i}"}
            for i, spec in enumerate(backbone.features)
        ]

    def _set_pooling(self, global_pool: str) -> None:
        if global_pool not in self.poolings:
            raise ValueError(f"global_pool must be one of {self.poolings}, got {global_pool!r}")
        self.global_pool = global_pool

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the head by a fresh one, where and as what the model's parameters are; 0 takes it away."""
        like = next(self.parameters())  # type: ignore[attr-defined]
        super().reset_classifier(num_classes)  # type: ignore[misc]
        for head in (self.head, getattr(self, "aux_head", None)):
            if head is not None:
                head.to(like.device, like.dtype).train(self.training)  # type: ignore[attr-defined]
        if global_pool is not None:
            self._set_pooling(global_pool)

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False) -> Any:
        """As torch's; the keys of an official checkpoint are converted first."""
        if layouts.is_official(state_dict):
            state_dict = layouts.to_ours(state_dict).state
        return super().load_state_dict(state_dict, strict=strict, assign=assign)  # type: ignore[misc]

    def no_weight_decay(self) -> set[str]:
        """Multi-dimensional parameters that the published recipes do not decay; timm adds vectors and biases."""
        return undecayed(self)  # type: ignore[arg-type]

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that tell timm the depth of a parameter (layer-wise learning rates)."""
        stem, stage = r"^backbone\.(?:embeds\.0|positions)", r"^backbone\.(?:stages|embeds)\.(\d+)"
        if coarse:
            return {"stem": stem, "blocks": stage}
        blocks = [
            (r"^backbone\.embeds\.(\d+)", (0,)),
            (r"^backbone\.stages\.(\d+)\.blocks\.(\d+)", None),
            (r"^(?:backbone\.cls_token|backbone\.out_norms|norm|cls_token|class_blocks)", (99999,)),
        ]
        return {"stem": stem, "blocks": blocks}

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Maps of chosen stages, and what `forward_features` gives.

        Args:
            x: (B, 3, H, W), normalised.
            indices: stages 0-3, negative from the end; an int takes the last n, None all.
            norm: apply the classifier's norm to the last map.
            stop_early: accepted; all stages are computed.
            output_fmt: "NCHW" or "NHWC".
            intermediates_only: leave out the second result.
        """
        if output_fmt not in ("NCHW", "NHWC"):
            raise ValueError(f"output_fmt must be 'NCHW' or 'NHWC', got {output_fmt!r}")
        take, _ = feature_take_indices(len(self.maps), indices)
        outputs, features = self._maps_and_features(x)
        maps = list(outputs)
        if norm and len(maps) == len(self.feature_info):
            maps[-1] = self.norm(maps[-1].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        picked = [maps[i] if output_fmt == "NCHW" else maps[i].permute(0, 2, 3, 1) for i in take]
        return picked if intermediates_only else (features, picked)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Takes away what the maps do not need. Returns: indices of the stages, counted from 0.

        Args:
            indices: as in `forward_intermediates`; stages after the last of them go.
            prune_norm: the classifier's norm goes; it goes with the last stage in any case.
            prune_head: the head goes, and what belongs to it.
        """
        take, last = feature_take_indices(len(self.maps), indices)
        if cut := last < len(self.maps) - 1:
            self._cut(last + 1)
        if prune_norm or cut:
            self.norm = nn.Identity()
        if prune_head:
            # Not reset_classifier: timm keeps num_classes of the pretrained head for its own book-keeping.
            self.head = nn.Identity()
            self._prune_head()
        return take

    def _cut(self, stages: int) -> None:
        """Leaves the first stages alone: of a backbone's lists with an entry per stage, the first entries."""
        backbone, all_stages = self.backbone, len(self.maps)
        for name, child in list(backbone.named_children()):
            if isinstance(child, nn.ModuleList) and len(child) == all_stages:
                setattr(backbone, name, child[:stages])
        backbone.features = backbone.features[:stages]
        self.maps = self.maps[:stages]

    def _prune_head(self) -> None:
        """Takes away what belongs to the head besides `head`."""

    def _tap(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(tap(x) for tap, x in zip(self.maps, maps))

    def _maps_and_features(self, x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        maps = self._tap(self.backbone(x))
        return maps, maps[-1]

    def forward_features(self, x: Tensor) -> Tensor:
        """The last map (B, C, H/32, W/32); with a class token, tokens (B, 1 + L, C), not normalised."""
        return self._maps_and_features(x)[1]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Args: x: of `forward_features`. Returns: logits, or what the head sees. Each classifier has its own."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (B, 3, H, W), normalised. Returns: logits (B, num_classes)."""
        return self.forward_head(self.forward_features(x))


class TimmClassifier(TimmInterface, Classifier):
    """`Classifier` with timm's interface."""

    poolings = ("avg", "")

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Args: x: of `forward_features`. Returns: logits, or what the head sees."""
        tokens = self.norm(x.permute(0, 2, 3, 1))  # B h w C
        if self.global_pool == "avg":
            pooled = self.head_drop(tokens.mean((1, 2)))
            return pooled if pre_logits else self.head(pooled)
        out = self.head_drop(tokens)
        return (out if pre_logits else self.head(out)).permute(0, 3, 1, 2)


class TimmTokenClassifier(TimmInterface, Classifier):
    """`Classifier` on a class token (LIT-Ti, PVT) with timm's interface."""

    poolings = ("token", "avg", "")

    def _cut(self, stages: int) -> None:
        super()._cut(stages)
        self.backbone.has_class_token = False  # type: ignore[assignment]  # it enters with the last stage
        del self.backbone.cls_token

    def _maps_and_features(self, x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        if not self.backbone.has_class_token:  # cut before the stage that has it
            return super()._maps_and_features(x)
        maps, class_token = self.backbone(x, class_token=True)  # type: ignore[operator]
        maps = self._tap(maps)
        patches = maps[-1].flatten(2).transpose(1, 2)
        return maps, torch.cat([class_token[:, None], patches], 1)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Args: x: of `forward_features`. Returns: logits, or what the head sees."""
        if self.global_pool == "token":
            x = x[:, 0]
        x = self.norm(x)
        if self.global_pool == "avg":
            x = x[:, 1:].mean(1)
        x = self.head_drop(x)
        return x if pre_logits else self.head(x)


class TimmLVTClassifier(TimmInterface, LVTClassifier):
    """`LVTClassifier` with timm's interface: logits of the class token and of the best patch."""

    poolings = ("token", "")

    def _prune_head(self) -> None:
        self.aux_head = nn.Identity()
        self.class_blocks = nn.ModuleList()
        del self.cls_token

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Args: x: (B, C, h, w). Returns: logits; the class token (B, C); or the normalised map, by `global_pool`."""
        class_token, patches = self._read(x)
        if self.global_pool == "":
            return patches.permute(0, 3, 1, 2)
        class_token = self.head_drop(class_token)
        if pre_logits or self.num_classes == 0:
            return class_token
        best = self.aux_head(patches).flatten(1, 2).amax(1)
        return self.head(class_token) + self.config.aux_weight * best

    forward = TimmInterface.forward  # type: ignore[assignment]  # MixToken's arguments are litevit's


class FeatureDict(FeatureGetterNet):
    """`feature_cls="dict"`: maps under the numbers of their stages, as timm's `FeatureDictNet` names them."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """Args: x: (B, 3, H, W), normalised. Returns: maps (B, C_i, H_i, W_i)."""
        names: Any = self.out_map or self.out_indices
        return dict(zip(map(str, names), super().forward(x)))


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
        in_chans: other than 3 with pretrained weights: the first convolution is adapted as timm does.
        output_stride: only 32.
        device, dtype: where and as what the parameters are made.
        overrides: fields of the model's config (`num_classes`, `drop_path_rate`, `alpha`, ...).
    """
    options = sorted(model_options(name))
    for option in overrides:
        if option not in options:
            raise UnknownOptionError(str(unknown(option, options, f"option of {name}:")))
    if output_stride != 32:
        raise ValueError(f"{name}: output_stride must be 32, got {output_stride}")
    ours: Any = create_model(name, in_chans=in_chans, **overrides)
    model: nn.Module = _kind(ours.config, ours.backbone.config)(
        ours.backbone, ours.config, drop_rate=drop_rate, global_pool=global_pool
    )
    if pretrained is not False:
        load_weights(model, weights.fetch(name) if pretrained is True else pretrained, drop_head=True)
    return model.to(device=device, dtype=dtype)


def _kind(head: Any, backbone: Any) -> type[Any]:
    """The class for a head's and a backbone's config."""
    if isinstance(head, LVTClassifierConfig):
        return TimmLVTClassifier
    return TimmTokenClassifier if getattr(backbone, "class_token", False) else TimmClassifier


def _cfg(name: str) -> dict[str, Any]:
    """timm's description of the published weights and of how images are prepared for them."""
    prepared = weights.preprocessing(name)
    published = weights.WEIGHTS.get(name)
    size = prepared.size if isinstance(prepared.size, int) else prepared.size[0]
    kind = _kind(MODELS[name].head, MODELS[name].backbone)
    about = {}
    if published is not None:
        about = {"url": published.url, "license": published.licence, "origin_url": published.source}
    return {
        "num_classes": 1000,
        "input_size": (3, size, size),
        "min_input_size": (3, 32, 32),
        "pool_size": None if kind is TimmTokenClassifier else (size // 32, size // 32),  # None: tokens, no grid
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


def _source(name: str, cfg: PretrainedCfg, in_chans: int, cache_dir: str | Path | None) -> Path | Mapping[str, Any]:
    """Weights from where the caller says; where nothing was said, the published ones."""
    registered = default_cfgs[name].default
    if all(getattr(cfg, field) == getattr(registered, field) for field in SOURCE):
        return weights.fetch(name)
    receiver = _Receiver()
    # Nothing is adapted: first_conv and classifier are None, and files go to `load_pretrained` unread.
    bare = dataclasses.replace(cfg, first_conv=None, classifier=None, custom_load=True)
    timm.models.load_pretrained(receiver, bare.to_dict(), cache_dir=cache_dir)
    channels, offset = cfg.input_size[0], cfg.label_offset or 0
    if offset == 0 and channels in (3, in_chans):
        return receiver.found
    tensors = read_state_dict(receiver.found).tensors
    converted = layouts.to_ours(tensors)
    state = {**converted.state, **{key: tensors[key] for key in converted.unexpected}}
    for key in ("head.weight", "head.bias", "aux_head.weight", "aux_head.bias"):
        if key in state:
            state[key] = state[key][offset:]
    stem = f"{STEM}.weight"
    if channels not in (3, in_chans) and stem in state:  # `load_weights` adapts those of RGB models
        state[stem] = timm.models.adapt_input_conv(in_chans, state[stem], base_chans=channels)
    return state


def _entrypoint(name: str) -> Any:
    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        def model_class(**model_kwargs: Any) -> nn.Module:
            model: Any = build(name, **model_kwargs)
            if pretrained:
                cfg = resolve_pretrained_cfg(name, kwargs.get("pretrained_cfg"), kwargs.get("pretrained_cfg_overlay"))
                found = _source(name, cfg, model.in_chans, kwargs.get("cache_dir"))
                # As timm: a head for as many classes as the source says has to fit.
                load_weights(model, found, drop_head=model.num_classes != cfg.num_classes)
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
__all__ = ["TimmClassifier", "TimmLVTClassifier", "TimmTokenClassifier", "build"]
for _name in NAMES:
    globals()[_name] = register_model(_entrypoint(_name))
