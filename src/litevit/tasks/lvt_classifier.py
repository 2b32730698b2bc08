"""LVT's published classifier: class-attention layers, a class head, and a head on every token (as VOLO trains).

arXiv:2112.10809; official name lvt_cls. Shapes: B batch, C channels, K classes, L = h * w tokens of the last map.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from litevit.layers.class_attention import ClassAttentionBlock
from litevit.ops.mix_token import swap_box


@dataclass(frozen=True, kw_only=True)
class LVTClassifierConfig:
    """Fields of the head."""

    num_classes: int = 1000  # 0: no heads, the class token comes out
    num_class_blocks: int = 2
    num_class_heads: int = 8
    class_mlp_ratio: int = 4
    aux_weight: float = 0.5  # of the best token in the prediction


class LVTClassifier(nn.Module):
    """Classifier that can be trained on a label per token.

    Args:
        backbone: any module with `features` and four maps; MixToken needs one whose forward takes `mix_box`.
        config: see `LVTClassifierConfig`.
    """

    no_decay = ("cls_token",)

    def __init__(self, backbone: nn.Module, config: LVTClassifierConfig):
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.num_features: int = backbone.features[-1].channels  # type: ignore[index, union-attr, assignment]
        dim = self.num_features
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.class_blocks = nn.ModuleList(
            ClassAttentionBlock(dim, config.num_class_heads, mlp_ratio=config.class_mlp_ratio)
            for _ in range(config.num_class_blocks)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-5)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        for module in self.class_blocks.modules():
            if isinstance(module, nn.Linear):
                _init_linear(module)
        self.reset_classifier(config.num_classes)

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces both heads by fresh ones.

        Args:
            num_classes: K of the new ones; 0 takes them away.

        Raises:
            ValueError: below 0.
        """
        if num_classes < 0:
            raise ValueError(f"LVTClassifier: num_classes must be 0 or more, got {num_classes}")
        self.num_classes = num_classes
        heads = [nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity() for _ in range(2)]
        self.head, self.aux_head = heads
        for head in heads:
            if isinstance(head, nn.Linear):
                _init_linear(head)

    def get_classifier(self) -> nn.Module:
        """The head on the class token."""
        return self.head

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block of the backbone in the backward pass instead of storing its activations.

        Args:
            enable: False stores them again.
        """
        self.backbone.set_grad_checkpointing(enable)  # type: ignore[operator]

    def forward_features(self, images: Tensor) -> Tensor:
        """Args: images: (B, 3, H, W), normalised. Returns: the backbone's last map, (B, C, H/32, W/32)."""
        return self.backbone(images)[-1]

    def _read(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Args: features: (B, C, h, w). Returns: normalised class token (B, C) and patch tokens (B, h, w, C)."""
        x = features.permute(0, 2, 3, 1)
        patches = x.flatten(1, 2)
        cls = self.cls_token.repeat(x.shape[0], 1, 1)  # no view of a parameter: PyTorch's FLOP counter trips on it
        for block in self.class_blocks:
            cls = block(cls, patches)
        return self.norm(cls[:, 0]), self.norm(x)

    def forward_pooled(self, images: Tensor) -> Tensor:
        """Args: images: (B, 3, H, W), normalised. Returns: what the class head sees, (B, C)."""
        return self._read(self.forward_features(images))[0]

    def forward(
        self,
        images: Tensor,
        mix_box: Sequence[int] | Tensor | None = None,
        return_tokens: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Class logits, or those and the logits of every token.

        Args:
            images: (B, 3, H, W), normalised, H and W >= 32.
            mix_box: mixes each image b with B - 1 - b inside (top, left, bottom, right), in cells of the last map; see
                `litevit.ops.mix_token.draw_mix_box`. Token logits come back unmixed, class logits stay mixed.
            return_tokens: also on with `mix_box`.

        Returns:
            (B, K): logits of the class token + 0.5 * best token of each class; or the class token's logits (B, K) and
            the tokens' (B, L, K).
        """
        features = self.backbone(images)[-1] if mix_box is None else self.backbone(images, mix_box=mix_box)[-1]
        cls, patches = self._read(features)
        cls_logits = self.head(cls)
        if self.num_classes == 0:
            return cls_logits
        aux_logits = self.aux_head(patches)  # B h w K
        if mix_box is not None:
            aux_logits = swap_box(aux_logits, mix_box)
        aux_logits = aux_logits.flatten(1, 2)
        if return_tokens or mix_box is not None:
            return cls_logits, aux_logits
        return cls_logits + self.config.aux_weight * aux_logits.amax(1)


def _init_linear(linear: nn.Linear) -> None:
    nn.init.trunc_normal_(linear.weight, std=0.02)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
