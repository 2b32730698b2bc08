"""litevit's classifiers in timm: `import litevit.adapters.timm`, then `timm.create_model("litv2_s", num_classes=10)`.

The import registers every classification model of `litevit.list_models()` under its name. State-dict keys are those of
`litevit.create_model`, so a checkpoint of timm's training script loads in litevit and the other way round; official
files load too, wherever timm takes a path (`checkpoint_path=`, its scripts' `--checkpoint` and `--pretrained-path`).
`pretrained=True` takes the published weights (`weights="official"` in litevit).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm.models
import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from litevit.checkpoints import layouts
from litevit.checkpoints import published as weights
from litevit.checkpoints.load import load_weights
from litevit.engine.optim import undecayed
from litevit.models import create_model, list_models
from litevit.tasks.classification import Classifier
from litevit.tasks.lvt_classifier import LVTClassifier


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
        self.head_hidden_size = self.num_features
        self.head_drop = nn.Dropout(drop_rate)
        self._set_pooling(self.poolings[0] if global_pool is None else global_pool)
        trunk = "backbone.stages"
        self.feature_info = [
            {"num_chs": spec.channels, "reduction": spec.stride, "module": f"{trunk}.{i}"}
            for i, spec in enumerate(backbone.features)
        ]

    def _set_pooling(self, global_pool: str) -> None:
        if global_pool not in self.poolings:
            raise ValueError(f"global_pool must be one of {self.poolings}, got {global_pool!r}")
        self.global_pool = global_pool

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the head by a fresh one on the device of the old; 0 takes it away."""
        device = self.norm.weight.device
        super().reset_classifier(num_classes)  # type: ignore[misc]
        self.to(device)  # type: ignore[attr-defined]
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
        take, _ = feature_take_indices(len(self.feature_info), indices)
        outputs, features = self._maps_and_features(x)
        maps = list(outputs)
        if norm:
            maps[-1] = self.norm(maps[-1].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        picked = [maps[i] if output_fmt == "NCHW" else maps[i].permute(0, 2, 3, 1) for i in take]
        return picked if intermediates_only else (features, picked)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Takes away what maps do not need. Returns: indices of the stages, counted from 0."""
        take, _ = feature_take_indices(len(self.feature_info), indices)
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            # Not reset_classifier: timm keeps num_classes of the pretrained head for its own book-keeping.
            self.head = nn.Identity()
            if hasattr(self, "aux_head"):
                self.aux_head = nn.Identity()
        return take

    def _maps_and_features(self, x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        maps = self.backbone(x)
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

    def _maps_and_features(self, x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        maps, class_token = self.backbone(x, class_token=True)  # type: ignore[operator]
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
    if output_stride != 32:
        raise ValueError(f"{name}: output_stride must be 32, got {output_stride}")
    ours = create_model(name, in_chans=in_chans, **overrides)
    if isinstance(ours, LVTClassifier):
        kind: type[Any] = TimmLVTClassifier
    else:
        kind = TimmTokenClassifier if getattr(ours.backbone, "has_class_token", False) else TimmClassifier
    model = kind(ours.backbone, ours.config, drop_rate=drop_rate, global_pool=global_pool)
    if pretrained is not False:
        source = weights.fetch(name) if pretrained is True else pretrained
        if in_chans == 3:
            load_weights(model, source, drop_head=True)
        else:
            rgb = create_model(name, **overrides)
            load_weights(rgb, source, drop_head=True)
            state = rgb.state_dict()
            stem = f"{_stem(rgb)}.weight"
            state[stem] = timm.models.adapt_input_conv(in_chans, state[stem])
            model.load_state_dict(state)
    return model.to(device=device, dtype=dtype)


def _stem(model: nn.Module) -> str:
    return "backbone.embeds.0.proj"


def _cfg(name: str) -> dict[str, Any]:
    """timm's description of the published weights and of how images are prepared for them."""
    prepared = weights.preprocessing(name)
    published = weights.WEIGHTS.get(name)
    size = prepared.size if isinstance(prepared.size, int) else prepared.size[0]
    with torch.device("meta"):
        model = create_model(name)
    about = {}
    if published is not None:
        about = {"url": published.url, "license": published.licence, "origin_url": published.source}
    return {
        "num_classes": 1000,
        "input_size": (3, size, size),
        "min_input_size": (3, 32, 32),
        "crop_pct": prepared.crop_pct,
        "crop_mode": prepared.crop_mode,
        "interpolation": prepared.interpolation,
        "mean": prepared.mean,
        "std": prepared.std,
        "first_conv": _stem(model),
        "classifier": ("head", "aux_head") if isinstance(model, LVTClassifier) else "head",
        **about,
    }


def _entrypoint(name: str) -> Any:
    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        # A file of the user's comes as timm.create_model(..., pretrained_cfg_overlay={"file": path}), or whole.
        given = kwargs.get("pretrained_cfg")
        file = given.get("file") if isinstance(given, dict) else getattr(given, "file", None)
        file = (kwargs.get("pretrained_cfg_overlay") or {}).get("file") or file
        source = file or True if pretrained else False

        def model_class(**model_kwargs: Any) -> nn.Module:
            return build(name, pretrained=source, **model_kwargs)

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
