"""torchvision: our backbones in its detectors, our detectors in its training and evaluation scripts.

from litevit.adapters.torchvision import backbone_with_fpn, torchvision_detector

theirs = torchvision.models.detection.FasterRCNN(backbone_with_fpn("litv2_s"), num_classes=91)
ours = torchvision_detector(litevit.create_model("mask_rcnn_litv2_s", weights="official"))
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool

from litevit.models import create_backbone
from litevit.tasks.mask_rcnn import MaskRCNN
from litevit.tasks.retinanet import RetinaNet


class _MapsByName(nn.Module):
    """A backbone's maps as torchvision has them: "0" (stride 4) to "3" (stride 32)."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        return OrderedDict((str(i), features) for i, features in enumerate(self.backbone(images)))


class _BackboneWithFPN(BackboneWithFPN):
    """torchvision's, whose own constructor wants a backbone that is a chain of its children."""

    def __init__(self, body: nn.Module, channels: list[int], out_channels: int, extra_blocks: ExtraFPNBlock | None):
        nn.Module.__init__(self)
        self.body = body
        self.fpn = FeaturePyramidNetwork(channels, out_channels, extra_blocks=extra_blocks)
        self.out_channels = out_channels


def backbone_with_fpn(
    backbone: str | nn.Module, *, out_channels: int = 256, extra_blocks: ExtraFPNBlock | None = None
) -> BackboneWithFPN:
    """What torchvision's `FasterRCNN`, `MaskRCNN`, `RetinaNet` and `FCOS` take as their `backbone`.

    `torchvision.models.detection.backbone_utils.BackboneWithFPN` itself takes ResNet-like models only, whose children
    are called one after another.

    Args:
        backbone: a name, or a backbone of `litevit.create_backbone`, with weights from `litevit.load_weights` or not.
        out_channels: of every map of the pyramid.
        extra_blocks: further maps of the pyramid; None: a pooled one, "pool", as torchvision's default.

    Returns:
        Module with `out_channels`; (B, 3, H, W) -> {"0", "1", "2", "3", "pool"} -> (B, out_channels, H_i, W_i) of
        strides 4, 8, 16, 32 and 64. Images: RGB, normalised by ImageNet's mean and deviation, as torchvision does.

    Raises:
        ValueError: no backbone of this name.
        TypeError: a module without `features`.
    """
    body = create_backbone(backbone, out_norms="detection") if isinstance(backbone, str) else backbone
    if not hasattr(body, "features"):
        raise TypeError(f"backbone_with_fpn takes a backbone of litevit.create_backbone, got {type(body).__name__}")
    channels = [feature.channels for feature in body.features]  # type: ignore[union-attr]
    return _BackboneWithFPN(_MapsByName(body), channels, out_channels, extra_blocks or LastLevelMaxPool())


class TorchvisionDetector(nn.Module):
    """Our detector with torchvision's labels and masks; see `torchvision_detector`."""

    class_ids: Tensor

    def __init__(self, model: nn.Module, class_ids: Sequence[int]):
        super().__init__()
        self.model = model
        self.register_buffer("class_ids", torch.tensor(class_ids), persistent=False)

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Args and returns: as `torchvision.models.detection`'s models."""
        if self.training:
            return self.model(images, [self._ours(target) for target in targets or ()])
        return [self._theirs(output) for output in self.model(images)]

    def _ours(self, target: dict[str, Tensor]) -> dict[str, Tensor]:
        known = target["labels"][:, None] == self.class_ids
        if not known.any(1).all():
            strange = sorted(set(target["labels"][~known.any(1)].tolist()))
            raise ValueError(f"targets have labels {strange}, which are none of class_ids: {self.class_ids.tolist()}")
        ours = {**target, "labels": known.long().argmax(1)}
        return {**ours, "masks": target["masks"].bool()} if "masks" in target else ours

    def _theirs(self, output: dict[str, Tensor]) -> dict[str, Tensor]:
        theirs = {**output, "labels": self.class_ids[output["labels"]]}
        return {**theirs, "masks": output["masks"][:, None].float()} if "masks" in output else theirs


def torchvision_detector(model: nn.Module, *, class_ids: Sequence[int] | None = None) -> TorchvisionDetector:
    """A RetinaNet or Mask R-CNN of ours for scripts that are written for torchvision's detectors.

    Two things differ: torchvision's labels start at 1, because 0 is its background, ours at 0; and its masks are
    (N, 1, H, W) probabilities, which `CocoEvaluator.prepare` of its references compares with 0.5, ours (N, H, W) bool.
    Images, boxes, scores and losses are the same already.

    Args:
        model: of `litevit.create_model`.
        class_ids: the label of each class of the model, in order, such as COCO's category ids; None: 1, 2, ...

    Returns:
        Module that takes and gives torchvision's labels and masks (0 or 1, float32); its `model` is the one given.

    Raises:
        TypeError: another model.
        ValueError: not one label for each class.
    """
    if not isinstance(model, RetinaNet | MaskRCNN):
        raise TypeError(f"torchvision_detector takes a RetinaNet or Mask R-CNN of litevit, got {type(model).__name__}")
    classes = model.config.num_classes
    ids = list(class_ids) if class_ids is not None else list(range(1, classes + 1))
    if len(ids) != classes or len(set(ids)) != classes:
        raise ValueError(f"class_ids must be {classes} different numbers, one for each class, got {len(ids)}: {ids}")
    return TorchvisionDetector(model, ids)
