"""Region proposal network (arXiv:1506.01497), as Mask R-CNN and Panoptic FPN use it. B images, A anchors per cell."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litevit.ops.anchors import base_anchors, cells_inside, grid_anchors
from litevit.ops.assign import Chooser, assign_by_iou, random_subset, sample
from litevit.ops.boxes import decode_boxes, encode_boxes, grouped_nms, is_box
from litevit.ops.precision import at_least_float32, wide


class Positives(NamedTuple):
    anchors: Tensor  # (P,) indices
    objects: Tensor  # (P,) the object of each


class RPN(nn.Module):
    """A head shared by all levels, and its proposals and losses.

    Differs from torchvision's: `pre_nms` anchors per level by score and `max_proposals` in training too, L1 loss,
    anchors without rounding, objects that claim their best anchors.
    """

    def __init__(
        self,
        channels: int = 256,
        *,
        strides: Sequence[int] = (4, 8, 16, 32, 64),
        scales: Sequence[float] = (8,),
        ratios: Sequence[float] = (0.5, 1, 2),
        pre_nms_train: int = 2000,
        pre_nms_test: int = 1000,
        nms_threshold: float = 0.7,
        max_proposals: int = 1000,
        remove_empty: bool = True,
        positive_iou: float = 0.7,
        negative_iou: float = 0.3,
        min_positive_iou: float = 0.3,
        sampled: int = 256,
        positive_fraction: float = 0.5,
        choose: Chooser = random_subset,
    ):
        """
        Args:
            channels: of the pyramid.
            strides: one per level, fine to coarse.
            pre_nms_train: anchors per level that enter the suppression in training.
            pre_nms_test: the same in evaluation.
            remove_empty: drop proposals without area before the suppression. The published LIT models keep them.
            sampled: anchors per image in the loss.
            choose: draws the random subset of the loss.
        """
        super().__init__()
        self.strides = tuple(strides)
        self.scales, self.ratios = tuple(scales), tuple(ratios)
        self.pre_nms_train, self.pre_nms_test = pre_nms_train, pre_nms_test
        self.nms_threshold, self.max_proposals, self.remove_empty = nms_threshold, max_proposals, remove_empty
        self.positive_iou, self.negative_iou, self.min_positive_iou = positive_iou, negative_iou, min_positive_iou
        self.sampled, self.positive_fraction, self.choose = sampled, positive_fraction, choose
        self.num_anchors = len(self.scales) * len(self.ratios)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness = nn.Conv2d(channels, self.num_anchors, 1)
        self.deltas = nn.Conv2d(channels, self.num_anchors * 4, 1)
        for layer in (self.conv, self.objectness, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Args: x: (B, C, H, W), one level. Returns: logits (B, A, H, W) and deltas (B, 4A, H, W)."""
        x = F.relu(self.conv(x))
        return self.objectness(x), self.deltas(x)

    def anchors(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """(H_l * W_l * A, 4) per level; `maps` gives sizes and device."""
        anchors = []
        for x, stride in zip(maps, self.strides, strict=True):
            base = base_anchors(stride, scales=self.scales, ratios=self.ratios).to(x.device, wide(x.dtype))
            anchors.append(grid_anchors(base, (x.shape[-2], x.shape[-1]), stride))
        return anchors

    @torch.no_grad()
    def proposals(
        self, logits: Sequence[Tensor], deltas: Sequence[Tensor], sizes: Sequence[tuple[int, int]]
    ) -> list[tuple[Tensor, Tensor]]:
        """Boxes and scores of every image, by descending score.

        Args:
            logits, deltas: from `forward`, per level.
            sizes: height and width of each image without padding.
        """
        anchors = self.anchors(logits)
        pre_nms = self.pre_nms_train if self.training else self.pre_nms_test
        result = []
        for i, size in enumerate(sizes):
            boxes, scores, levels = [], [], []
            for level, anchor in enumerate(anchors):
                score = at_least_float32(rows_per_anchor(logits[level][i], 1).flatten()).sigmoid()
                delta = at_least_float32(rows_per_anchor(deltas[level][i], 4))
                if len(score) > pre_nms:
                    # NaN sorts first; as -1 it takes nobody's place.
                    order = score.nan_to_num(-1.0).sort(descending=True, stable=True).indices[:pre_nms]
                    score, delta, anchor = score[order], delta[order], anchor[order]
                boxes.append(decode_boxes(delta, anchor, clip_to=size))
                scores.append(score)
                levels.append(torch.full_like(score, level, dtype=torch.int64))
            box, score, group = torch.cat(boxes), torch.cat(scores), torch.cat(levels)
            ok = is_box(box, remove_empty=self.remove_empty) & torch.isfinite(score)
            box, score, group = box[ok], score[ok], group[ok]
            keep = grouped_nms(box, score, group, self.nms_threshold)[: self.max_proposals]
            result.append((box[keep], score[keep]))
        return result

    def loss(
        self,
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        objects: Sequence[Tensor],
        padded_sizes: Sequence[tuple[int, int]],
    ) -> dict[str, Tensor]:
        """Binary cross-entropy and L1 over the sampled anchors, both divided by their number in the batch.

        Args:
            logits, deltas: from `forward`, per level.
            objects: boxes (G, 4) of each image, in its pixels in the batch.
            padded_sizes: height and width of each image with its own padding; anchors beyond take no part.
        """
        per_level = self.anchors(logits)
        anchors = torch.cat(per_level)
        cls_loss = box_loss = anchors.new_zeros(())
        count = 0
        for i, (boxes, padded) in enumerate(zip(objects, padded_sizes, strict=True)):
            inside = torch.cat(
                [
                    cells_inside((x.shape[-2], x.shape[-1]), stride, padded, self.num_anchors)
                    for x, stride in zip(logits, self.strides)
                ]
            ).to(anchors.device)
            positive, negative = self.sample(anchors, inside, boxes)
            objectness = at_least_float32(torch.cat([rows_per_anchor(x[i], 1) for x in logits]).flatten())
            delta = at_least_float32(torch.cat([rows_per_anchor(x[i], 4) for x in deltas]))
            index = torch.cat((positive.anchors, negative))
            target = anchors.new_zeros(len(index))
            target[: len(positive.anchors)] = 1
            cls_loss = cls_loss + F.binary_cross_entropy_with_logits(objectness[index], target, reduction="sum")
            goal = encode_boxes(anchors[positive.anchors], boxes[positive.objects])
            box_loss = box_loss + F.l1_loss(delta[positive.anchors], goal, reduction="sum")
            count += max(len(positive.anchors), 1) + max(len(negative), 1)
        return {"loss_rpn_cls": cls_loss / count, "loss_rpn_box": box_loss / count}

    @torch.no_grad()
    def sample(self, anchors: Tensor, inside: Tensor, boxes: Tensor) -> tuple[Positives, Tensor]:
        """Anchors for the loss of one image: the positives with their objects, and the negatives."""
        index = inside.nonzero().flatten()
        codes, _ = assign_by_iou(
            anchors[index],
            boxes,
            positive=self.positive_iou,
            negative=self.negative_iou,
            min_positive=self.min_positive_iou,
        )
        positive, negative = sample(
            codes, count=self.sampled, positive_fraction=self.positive_fraction, choose=self.choose
        )
        return Positives(index[positive], codes[positive] - 1), index[negative]


def rows_per_anchor(x: Tensor, width: int) -> Tensor:
    """(A * width, H, W) map of one image -> (H * W * A, width), in the order of the anchors."""
    return x.permute(1, 2, 0).reshape(-1, width)
