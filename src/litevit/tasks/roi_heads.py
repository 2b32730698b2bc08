"""Box and mask heads on regions of interest (arXiv:1703.06870), as Mask R-CNN and Panoptic FPN use them.

R regions of the whole batch, K classes; the background is class K, the last.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from litevit.ops.assign import Chooser, assign_by_iou, random_subset, sample
from litevit.ops.boxes import decode_boxes, encode_boxes, select_detections
from litevit.ops.precision import at_least_float32, wide
from litevit.tasks.detection import Objects

BOX_STDS = (0.1, 0.1, 0.2, 0.2)
FINEST_SIZE = 56  # regions below twice this side are read from the finest map
# Masks resized at a time when mask targets are cut, in pixels of all of them.
MAX_MASK_PIXELS = 16_000_000


def join_rois(boxes: Sequence[Tensor]) -> Tensor:
    """Boxes (N_i, 4) of each image -> (R, 5) rows of image index and box."""
    return torch.cat([F.pad(box, (1, 0), value=float(i)) for i, box in enumerate(boxes)])


def roi_levels(rois: Tensor, num_levels: int) -> Tensor:
    """(R,) the pyramid level of each (R, 5) region: one coarser at every doubling of sqrt(area)."""
    side = ((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])).sqrt()
    return torch.log2(side / FINEST_SIZE + 1e-6).floor().clamp(0, num_levels - 1).long()


def roi_features(maps: Sequence[Tensor], rois: Tensor, *, strides: Sequence[int], size: int) -> Tensor:
    """RoIAlign with half-pixel centres and as many samples per bin as the region has cells.

    Differs from torchvision's `MultiScaleRoIAlign`, which uses neither.

    Args:
        maps: (B, C, H_l, W_l) per level.
        rois: (R, 5).
        strides: of the maps.
        size: bins per side.

    Returns:
        (R, C, size, size).
    """
    levels = roi_levels(rois, len(maps))
    bins, order = [], []
    for level, (x, stride) in enumerate(zip(maps, strides, strict=True)):
        index = (levels == level).nonzero().flatten()
        order.append(index)
        # On the CPU the operator has no bfloat16, and coordinates need the digits.
        x, regions = at_least_float32(x), rois[index].to(wide(x.dtype))
        bins.append(roi_align(x, regions, size, 1 / stride, sampling_ratio=0, aligned=True))
    return torch.cat(bins)[torch.cat(order).argsort()].to(maps[0].dtype)


class BoxHead(nn.Module):
    """Two hidden layers, class logits (background last) and one box per class."""

    def __init__(self, channels: int, *, num_classes: int, hidden: int = 1024, size: int = 7):
        super().__init__()
        self.fc1 = nn.Linear(channels * size * size, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.cls_logits = nn.Linear(hidden, num_classes + 1)
        self.deltas = nn.Linear(hidden, num_classes * 4)
        for layer in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(layer.weight)
        nn.init.normal_(self.cls_logits.weight, std=0.01)
        nn.init.normal_(self.deltas.weight, std=0.001)
        for layer in (self.fc1, self.fc2, self.cls_logits, self.deltas):
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Args: x: (R, C, size, size). Returns: logits (R, K + 1) and deltas (R, 4K)."""
        x = F.relu(self.fc2(F.relu(self.fc1(x.flatten(1)))))
        return self.cls_logits(x), self.deltas(x)


class MaskHead(nn.Module):
    """Four convolutions, upsampling by 2, one mask per class."""

    def __init__(self, channels: int, *, num_classes: int, num_convs: int = 4):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(num_convs))
        self.upsample = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.logits = nn.Conv2d(channels, num_classes, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (R, C, h, w). Returns: (R, K, 2h, 2w) logits."""
        for conv in self.convs:
            x = F.relu(conv(x))
        return self.logits(F.relu(self.upsample(x)))


class Detections(NamedTuple):
    """Of one image. M detections by descending score."""

    boxes: Tensor  # (M, 4), in pixels of the image in the batch
    scores: Tensor  # (M,)
    labels: Tensor  # (M,)


class Samples(NamedTuple):
    """Regions for the loss of one image: the P positives first."""

    boxes: Tensor  # (R, 4)
    objects: Tensor  # (P,) the object of each positive


class Losses(NamedTuple):
    """Of the regions of a batch."""

    cls: Tensor
    box: Tensor
    mask: Tensor | None  # None without a mask head


class RoIHeads(nn.Module):
    """Box head, mask head, their sampling, losses and post-processing.

    Differs from torchvision's: RoIAlign as in `roi_features`, L1 loss, objects claim their best proposals before they
    are put in front of them, no small box removed, the lower bound of the box coder.
    """

    def __init__(
        self,
        channels: int = 256,
        *,
        num_classes: int = 80,
        hidden: int = 1024,
        strides: Sequence[int] = (4, 8, 16, 32),
        masks: bool = True,
        box_size: int = 7,
        mask_size: int = 14,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        max_detections: int = 100,
        class_agnostic_nms: bool = False,
        positive_iou: float = 0.5,
        sampled: int = 512,
        positive_fraction: float = 0.25,
        choose: Chooser = random_subset,
    ):
        """
        Args:
            channels: of the pyramid.
            hidden: width of the box head.
            strides: of the maps that regions are read from, fine to coarse.
            masks: with a mask head.
            class_agnostic_nms: classes suppress each other.
            sampled: regions per image in the loss.
            choose: draws the random subset of the loss.
        """
        super().__init__()
        self.num_classes, self.strides = num_classes, tuple(strides)
        self.box_size, self.mask_size = box_size, mask_size
        self.score_threshold, self.nms_threshold = score_threshold, nms_threshold
        self.max_detections, self.class_agnostic_nms = max_detections, class_agnostic_nms
        self.positive_iou, self.sampled, self.positive_fraction = positive_iou, sampled, positive_fraction
        self.choose = choose
        self.box_head = BoxHead(channels, num_classes=num_classes, hidden=hidden, size=box_size)
        self.mask_head = MaskHead(channels, num_classes=num_classes) if masks else None

    def forward(
        self,
        maps: Sequence[Tensor],
        proposals: Sequence[Tensor],
        sizes: Sequence[tuple[int, int]],
        objects: Sequence[Objects] | None = None,
    ) -> Losses | tuple[list[Detections], list[Tensor]]:
        """
        Args:
            maps: of the pyramid.
            proposals: (N_i, 4) of each image.
            sizes: height and width of each image without padding.
            objects: of each image, for training.

        Returns:
            The losses; without objects the detections of each image and their masks (M_i, 28, 28), probabilities.
        """
        if objects is not None:
            return self.loss(maps, proposals, objects, sizes)
        detections = self.detect(maps, proposals, sizes)
        return detections, self.predict_masks(maps, detections)

    def features(self, maps: Sequence[Tensor], rois: Tensor, size: int) -> Tensor:
        """(R, C, size, size) of `rois` (R, 5); maps coarser than the last stride are not used."""
        return roi_features(maps[: len(self.strides)], rois, strides=self.strides, size=size)

    def detect(
        self, maps: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[tuple[int, int]]
    ) -> list[Detections]:
        """Args: proposals: (N_i, 4) of each image. sizes: height and width of each image without padding."""
        logits, deltas = self.box_head(self.features(maps, join_rois(proposals), self.box_size))
        counts = [len(boxes) for boxes in proposals]
        return [
            self.select(boxes, logit, delta, size)
            for boxes, logit, delta, size in zip(proposals, logits.split(counts), deltas.split(counts), sizes)
        ]

    def select(self, proposals: Tensor, logits: Tensor, deltas: Tensor, size: tuple[int, int]) -> Detections:
        """Detections of one image from the box head's outputs for its proposals (N, 4)."""
        scores = at_least_float32(logits).softmax(dim=1)[:, :-1]
        # Only classes above the threshold are decoded: few of N * K.
        rows, labels = (scores > self.score_threshold).nonzero(as_tuple=True)
        delta = at_least_float32(deltas).view(-1, self.num_classes, 4)[rows, labels]
        boxes = decode_boxes(delta, at_least_float32(proposals[rows]), stds=BOX_STDS, clip_to=size)
        return Detections(
            *select_detections(
                boxes,
                scores[rows, labels],
                labels,
                iou_threshold=self.nms_threshold,
                max_detections=self.max_detections,
                class_agnostic=self.class_agnostic_nms,
            )
        )

    def predict_masks(self, maps: Sequence[Tensor], detections: Sequence[Detections]) -> list[Tensor]:
        """(M_i, 28, 28) probabilities of the detected class, per image."""
        assert self.mask_head is not None
        counts = [len(d.labels) for d in detections]
        logits = self.mask_head(self.features(maps, join_rois([d.boxes for d in detections]), self.mask_size))
        labels = torch.cat([d.labels for d in detections])
        chosen = logits[torch.arange(len(labels), device=labels.device), labels]
        return list(at_least_float32(chosen).sigmoid().split(counts))

    @torch.no_grad()
    def sample(self, proposals: Tensor, objects: Tensor) -> Samples:
        """Regions for the loss of one image.

        Args:
            proposals: (N, 4).
            objects: (G, 4) boxes; they become proposals themselves, after the assignment of the others.
        """
        codes, _ = assign_by_iou(
            proposals,
            objects,
            positive=self.positive_iou,
            negative=self.positive_iou,
            min_positive=self.positive_iou,
        )
        codes = torch.cat((torch.arange(1, len(objects) + 1, device=codes.device), codes))
        boxes = torch.cat((objects, proposals))
        positive, negative = sample(
            codes, count=self.sampled, positive_fraction=self.positive_fraction, choose=self.choose
        )
        return Samples(torch.cat((boxes[positive], boxes[negative])), codes[positive] - 1)

    def loss(
        self,
        maps: Sequence[Tensor],
        proposals: Sequence[Tensor],
        objects: Sequence[Objects],
        sizes: Sequence[tuple[int, int]],
    ) -> Losses:
        """Cross-entropy and L1 over the number of regions of the batch, mask cross-entropy over that of positives.

        Args:
            maps: of the pyramid.
            proposals: (N_i, 4) of each image.
            objects: of each image.
            sizes: height and width of each image without padding; masks are resized to it.
        """
        samples = [self.sample(p, o.boxes) for p, o in zip(proposals, objects, strict=True)]
        rois = join_rois([s.boxes for s in samples])
        labels, goals, is_positive = [], [], []
        for s, o in zip(samples, objects):
            P = len(s.objects)
            label = torch.full((len(s.boxes),), self.num_classes, device=rois.device)
            label[:P] = o.labels[s.objects]
            labels.append(label)
            goals.append(encode_boxes(s.boxes[:P], o.boxes[s.objects], stds=BOX_STDS))
            is_positive.append(torch.arange(len(s.boxes), device=rois.device) < P)
        label, positive = torch.cat(labels), torch.cat(is_positive).nonzero().flatten()
        count = max(len(rois), 1)

        logits, deltas = self.box_head(self.features(maps, rois, self.box_size))
        predicted = at_least_float32(deltas).view(-1, self.num_classes, 4)[positive, label[positive]]
        cls_loss = F.cross_entropy(at_least_float32(logits), label, reduction="sum") / count
        box_loss = F.l1_loss(predicted, torch.cat(goals), reduction="sum") / count
        mask_loss = None
        if self.mask_head is not None:
            mask_logits = self.mask_head(self.features(maps, rois[positive], self.mask_size))
            target = torch.cat(
                [
                    mask_targets(o.masks, s.objects, s.boxes[: len(s.objects)], size, 2 * self.mask_size)
                    for s, o, size in zip(samples, objects, sizes)
                    if o.masks is not None
                ]
            )
            chosen = at_least_float32(mask_logits)[torch.arange(len(positive), device=rois.device), label[positive]]
            loss = F.binary_cross_entropy_with_logits(chosen, target.to(chosen), reduction="sum")
            mask_loss = loss / max(target.numel(), 1)
        return Losses(cls_loss, box_loss, mask_loss)


@torch.no_grad()
def mask_targets(masks: Tensor, objects: Tensor, boxes: Tensor, size: tuple[int, int], resolution: int) -> Tensor:
    """The part of its object's mask that each region sees.

    Only the objects in use are resized, a few at a time: an image may hold hundreds.

    Args:
        masks: (G, H, W) bool or 0 / not 0, at any size, on any device.
        objects: (P,) the mask of each region.
        boxes: (P, 4) regions, in pixels of an image of `size`.
        size: height and width that the masks are resized to (nearest).
        resolution: side of the result.

    Returns:
        (P, resolution, resolution) float32, 0 or 1.
    """
    out = torch.zeros(len(boxes), resolution, resolution, device=boxes.device)
    used = objects.unique()
    step = max(1, MAX_MASK_PIXELS // (size[0] * size[1]))
    for chunk in used.split(step):
        bitmaps = masks[chunk.to(masks.device), None].to(boxes.device).bool().float()
        if bitmaps.shape[-2:] != tuple(size):
            bitmaps = F.interpolate(bitmaps, size=tuple(size), mode="nearest")
        regions = torch.isin(objects, chunk).nonzero().flatten()
        slot = torch.searchsorted(chunk, objects[regions])
        rois = torch.cat((slot[:, None].to(boxes), boxes[regions]), dim=1).float()
        cut = roi_align(bitmaps, rois, resolution, 1.0, sampling_ratio=0, aligned=True)
        out[regions] = (cut[:, 0] >= 0.5).float()
    return out
