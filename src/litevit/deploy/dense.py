"""Exported detectors, segmenters and panoptic models: from images of any sizes to what the models return.

A file answers for one batch of images of one size. What lies around that is done here as the models do it, with their
own functions: resizing, normalising, boxes back to the image given, masks drawn at its size, segments joined.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from litevit.data.class_names import ClassList, read_class_list
from litevit.deploy.exported import Exported, Pathlike
from litevit.jobs.dense_models import DETECTION, INSTANCES, PANOPTIC, SEMANTIC, DenseModel
from litevit.jobs.predict_dense import SHOWN
from litevit.ops.boxes import paste_masks
from litevit.tasks.detection import ImageBatch, prepare_images, to_original
from litevit.tasks.mask_rcnn import MaskRCNNConfig
from litevit.tasks.panoptic_fpn import PanopticFPNConfig, panoptic_results
from litevit.tasks.retinanet import RetinaNetConfig
from litevit.tasks.roi_heads import Detections
from litevit.tasks.segformer import SegFormerConfig
from litevit.tasks.segmentation import SegmentationTest, read_overrides, segment
from litevit.tasks.semantic_fpn import SemanticFPNConfig

CONFIGS = {DETECTION: RetinaNetConfig, INSTANCES: MaskRCNNConfig, PANOPTIC: PanopticFPNConfig}


class ExportedDetector(Exported):
    """A detector's or panoptic model's file.

    Attributes:
        config: of the head, as the model's.
    """

    @property
    def config(self) -> Any:
        return CONFIGS[self.task](**read_overrides(self.metadata.config))

    least_score = 0.0

    def as_dense(self, names: Pathlike | None = None, score_threshold: float | None = None) -> DenseModel:
        own = self.config.score_threshold
        if score_threshold is not None:
            if (self.task == PANOPTIC and score_threshold != own) or not own <= score_threshold <= 1:
                raise ValueError(
                    f"{self.path} was exported with the score threshold {own}"
                    + ("; segments are fused with it" if self.task == PANOPTIC else f", got {score_threshold}")
                )
            self.least_score = score_threshold
        elif self.task != PANOPTIC:
            self.least_score = SHOWN
        return _dense_model(self, names)

    @torch.no_grad()
    def forward(self, images: Sequence[Tensor] | Tensor) -> Any:
        """
        Args:
            images: a list of (3, H, W), RGB in [0, 1], of any sizes; or the file's own input: a batch (B, 3, H, W),
                normalised.

        Returns:
            For a list: what the model returns. For a batch: the file's tensors under their names; the first `count`
            detections of each image are its.
        """
        if isinstance(images, Tensor):
            return self.named(images.detach().cpu())
        return [self._one(image.cpu()) for image in images]

    def _one(self, image: Tensor) -> dict[str, Any]:
        config = self.config
        low, high = config.min_size, config.max_size
        batch = prepare_images([image], resize=config.resize, min_size=low, max_size=high)
        if self.shape.size is not None:
            batch = _fitted(image, self.shape.size, batch)
        h, w = self.shape.size or batch.sizes[0]
        if self.shape.size is None and min(h, w) < self.shape.smallest:
            raise ValueError(
                f"{self.path.name} takes images with sides of at least {self.shape.smallest}, got one that is resized "
                f"to {h} x {w}"
            )
        found = self.named(batch.images[..., :h, :w].expand(self.shape.batch or 1, -1, -1, -1).contiguous())
        return self._result({name: x[:1] for name, x in found.items()}, batch)

    def _result(self, found: dict[str, Tensor], batch: ImageBatch) -> dict[str, Any]:
        config = self.config
        n = self._count(found)
        boxes, scores, labels = (found[name][0, :n] for name in ("boxes", "scores", "labels"))
        if self.task == PANOPTIC:
            masks = found["mask_probabilities"][0, :n]
            return panoptic_results(
                config, [Detections(boxes, scores, labels)], [masks], found["semantic_logits"], batch
            )[0]
        result = {"boxes": to_original(boxes, batch, 0), "scores": scores, "labels": labels}
        if self.task == INSTANCES:
            result["masks"] = paste_masks(
                found["mask_probabilities"][0, :n],
                result["boxes"],
                batch.original_sizes[0],
                threshold=config.mask_threshold,
            )
        return result

    def _count(self, found: dict[str, Tensor]) -> int:
        """Of the first image's detections, by descending score."""
        return int((found["scores"][0, : int(found["count"][0])] >= self.least_score).sum())


def _dense_model(file: Exported, names: Pathlike | None) -> DenseModel:
    told = file.metadata
    classes = ClassList(told.classes, told.class_ids, told.num_things)
    if names is not None:
        given = read_class_list(Path(names), first_id=int(file.task == SEMANTIC))
        if len(given.names) != len(classes.names):
            raise ValueError(f"{names} has {len(given.names)} names, the model {len(classes.names)} classes")
        classes = replace(given, num_things=classes.num_things)
    return DenseModel(file, told.model, file.task, classes)


def _fitted(image: Tensor, size: tuple[int, int], batch: ImageBatch) -> ImageBatch:
    """The image in a canvas of the one size that a file takes; smaller than the model would have it, where need be."""
    (h, w), (H, W) = batch.sizes[0], size
    if h > H or w > W:
        scale = min(H / h, W / w)
        h, w = max(int(h * scale), 1), max(int(w * scale), 1)
        resized = F.interpolate(image[None] * 255, size=(h, w), mode="bilinear", align_corners=False)[0].round() / 255
        batch = prepare_images([resized], resize=False)._replace(original_sizes=batch.original_sizes)
    canvas = batch.images.new_zeros(1, 3, H, W)
    canvas[..., :h, :w] = batch.images[..., :h, :w]
    return batch._replace(images=F.pad(canvas, (0, -W % 32, 0, -H % 32)))


class ExportedSegmenter(Exported):
    """A segmenter's file.

    Attributes:
        config: of the head, as the model's.
    """

    @property
    def config(self) -> Any:
        kind: Any = SemanticFPNConfig if "fpn_channels" in self.metadata.config else SegFormerConfig
        config = kind(**read_overrides(self.metadata.config))
        return config

    def as_dense(self, names: Pathlike | None = None, score_threshold: float | None = None) -> DenseModel:
        if score_threshold is not None:
            raise ValueError(f"{self.path} does {self.task}, whose classes have no scores: no score threshold")
        return _dense_model(self, names)

    @torch.no_grad()
    def segment(self, image: Tensor, *, test: SegmentationTest | None = None) -> Tensor:
        """Class of every pixel. Args: image: (3, H, W) RGB in [0, 1], any size. Returns: (H, W) int64."""
        image = image.cpu()
        test = test or self.config.test
        if self.shape.size is None:
            return segment(self._logits, image, test)
        fixed = (
            F.interpolate(image[None] * 255, size=self.shape.size, mode="bilinear", align_corners=False).round() / 255
        )
        own_size = SegmentationTest(scale=None, multiple=1)
        labels = segment(self._logits, fixed[0], own_size)[None, None].float()
        return F.interpolate(labels, size=image.shape[1:], mode="nearest-exact")[0, 0].long()

    def _logits(self, images: Tensor) -> Tensor:
        return self.named(images.expand(self.shape.batch or 1, -1, -1, -1).contiguous())["logits"][:1]
