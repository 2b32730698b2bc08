"""Our classifiers with the interface of timm's; `litevit.adapters.timm` registers them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from timm.models._features import FeatureGetterNet, feature_take_indices
from torch import Tensor, nn

from litevit.checkpoints import layouts
from litevit.engine.optim import undecayed
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


# Our classifier -> timm's form of it: on a backbone whose tokens are pooled, and on one with a class token.
WITH_POOLING: dict[type, type] = {Classifier: TimmClassifier, LVTClassifier: TimmLVTClassifier}
WITH_CLASS_TOKEN: dict[type, type] = {Classifier: TimmTokenClassifier}


class FeatureDict(FeatureGetterNet):
    """`feature_cls="dict"`: maps under the numbers of their stages, as timm's `FeatureDictNet` names them."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """Args: x: (B, 3, H, W), normalised. Returns: maps (B, C_i, H_i, W_i)."""
        names: Any = self.out_map or self.out_indices
        return dict(zip(map(str, names), super().forward(x)))
