"""Image classifier: backbone, LayerNorm, class token or mean over positions, linear head."""

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """Fields of the head."""

    num_classes: int = 1000  # 0: no head, the pooled features come out


class Classifier(nn.Module):
    """Classifier on the last map of a backbone.

    Args:
        backbone: any module with `features` and four maps; with `has_class_token` its class token is used.
        config: see `ClassifierConfig`.
    """

    def __init__(self, backbone: nn.Module, config: ClassifierConfig):
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.num_features: int = backbone.features[-1].channels  # type: ignore[index, union-attr, assignment]
        norm_eps = getattr(getattr(backbone, "config", None), "norm_eps", 1e-5)
        self.norm = nn.LayerNorm(self.num_features, eps=norm_eps)
        self.reset_classifier(config.num_classes)

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces the head by a fresh one.

        Args:
            num_classes: K of the new one; 0 takes the head away, and the model then gives what it saw, (B, C).

        Raises:
            ValueError: below 0.
        """
        if num_classes < 0:
            raise ValueError(f"Classifier: num_classes must be 0 or more, got {num_classes}")
        self.num_classes = num_classes
        self.head: nn.Module = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        if isinstance(self.head, nn.Linear):
            nn.init.trunc_normal_(self.head.weight, std=0.02)
            nn.init.zeros_(self.head.bias)

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of storing its activations.

        Args:
            enable: False stores them again.
        """
        self.backbone.set_grad_checkpointing(enable)  # type: ignore[operator]

    def forward_features(self, images: Tensor) -> Tensor:
        """Args: images: (B, 3, H, W), normalised. Returns: the backbone's last map, (B, C, H/32, W/32)."""
        return self.backbone(images)[-1]

    def forward_pooled(self, images: Tensor) -> Tensor:
        """Args: images: (B, 3, H, W), normalised. Returns: what the head sees, (B, C)."""
        if getattr(self.backbone, "has_class_token", False):
            _, class_token = self.backbone(images, class_token=True)  # type: ignore[operator]
            return self.norm(class_token)
        tokens = self.backbone(images)[-1].permute(0, 2, 3, 1)
        return self.norm(tokens).mean((1, 2))

    def forward(self, images: Tensor) -> Tensor:
        """Args: images: (B, 3, H, W), normalised, H and W >= 32. Returns: logits (B, num_classes)."""
        return self.head(self.forward_pooled(images))
