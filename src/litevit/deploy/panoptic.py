"""Panoptic FPN with its fusion at fixed shapes.

B images of H x W, T thing classes, S stuff classes, D detections.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from litevit.deploy.compare import MASK_PIXELS
from litevit.deploy.detection import TwoStageGraph, as_batch, pad_to_multiple, stack_detections
from litevit.deploy.graph import TIMES_NOISE, Difference, compare_floats
from litevit.tasks.panoptic_fpn import INSTANCE, VOID, PanopticFPN

SEGMENTS = ("segment_ids", "segment_classes", "segment_scores")


class PanopticGraph(TwoStageGraph):
    """`panoptic` (B, H, W) int64 segment ids, 0 = void; `segment_ids`, `segment_classes` (B, D + S) int64 and
    `segment_scores` (B, D + S), id 0 = no segment; the instances as `MaskRCNNGraph` gives them; `semantic` (B, H, W)
    and `semantic_logits` (B, S + 1, h/4, w/4) of the padded image."""

    def __init__(self, model: PanopticFPN):
        names = ("boxes", "scores", "labels", "count", "masks", "mask_probabilities", "semantic", "semantic_logits")
        super().__init__(model, "panoptic segmentation", ("panoptic", *SEGMENTS, *names))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        model: Any = self.model
        H, W = images.shape[-2:]
        padded = pad_to_multiple(images)
        maps = self.maps(padded)
        boxes, scores, labels, count, small = self.detect(maps, (H, W))
        masks = self.drawn(small, boxes, labels, (H, W))
        logits = _void_where_nan(model.semantic_head(maps[:4]))
        full = F.interpolate(logits, size=padded.shape[-2:], mode="bilinear", align_corners=False)
        semantic = full[..., :H, :W].argmax(1)
        panoptic, *segments = self.fuse(scores, labels, masks, semantic, self._stuff_scores(logits, H, W))
        return panoptic, *segments, boxes, scores, labels, count, masks, small, semantic, logits

    def fuse(
        self, scores: Tensor, labels: Tensor, masks: Tensor, semantic: Tensor, stuff_scores: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`litevit.tasks.panoptic_fpn.fuse` of a batch.

        Args:
            scores, labels: (B, D), by descending score.
            masks: (B, D, H, W) bool, empty where there is no detection.
            semantic: (B, H, W) in 0..S.
            stuff_scores: (B, S).
        """
        config: Any = self.model.config
        S, T = config.num_stuff, config.num_things
        panoptic = torch.where(semantic < S, semantic + T, VOID)
        taken = torch.zeros_like(semantic, dtype=torch.bool)
        area = masks.flatten(2).sum(2)  # B D
        rank = torch.zeros_like(labels[:, 0])
        ids = []
        for n in range(masks.shape[1]):
            free = masks[:, n] & ~taken
            visible = free.flatten(1).sum(1)
            covered = (area[:, n] - visible) / (area[:, n] + 1e-5)
            seen = (visible > 0) & (covered <= config.overlap_threshold)
            free = free & seen[:, None, None]
            taken = taken | free
            rank = rank + seen.long()
            here = torch.where(seen, labels[:, n] + INSTANCE * rank, VOID)
            panoptic = torch.where(free, here[:, None, None], panoptic)
            ids.append(here)
        instances = torch.stack(ids, 1)  # B D
        areas = _count(torch.where(taken, S, semantic), S + 1)  # B S+1
        classes = torch.arange(S + 1, device=areas.device)
        lost = (areas < config.min_stuff_area) & (classes < S)
        small = lost.long().gather(1, semantic.flatten(1)).view(semantic.shape) > 0
        panoptic = torch.where(small & ~taken, VOID, panoptic)
        stuff = (~lost & (areas > 0))[:, :S]
        stuff_classes = (classes[:S] + T).expand(stuff.shape)
        return (
            panoptic,
            torch.cat((instances, torch.where(stuff, stuff_classes, VOID)), 1),
            torch.cat((torch.where(instances != VOID, labels, 0), torch.where(stuff, stuff_classes, 0)), 1),
            torch.cat((torch.where(instances != VOID, scores, 0.0), torch.where(stuff, stuff_scores, 0.0)), 1),
        )

    def _stuff_scores(self, logits: Tensor, H: Any, W: Any) -> Tensor:
        """Mean probability of every stuff class over the cells where it is the best. Returns: (B, S)."""
        inside = logits[:, :, : (H + 3) // 4, : (W + 3) // 4].float().softmax(1).flatten(2)
        best, winner = inside.max(1)
        total = torch.zeros_like(inside[..., 0]).scatter_add(1, winner, best)
        cells = torch.zeros_like(inside[..., 0]).scatter_add(1, winner, torch.ones_like(best))
        scores = torch.where(cells > 0, total / cells.clamp(min=1), inside.amax(2))
        return scores[:, : self.model.config.num_stuff]  # type: ignore[union-attr]

    @torch.no_grad()
    def reference(self, images: Tensor) -> dict[str, Tensor]:
        model: Any = self.model
        padded = pad_to_multiple(images)
        found = model.detect(self.maps(padded), as_batch(images, padded))
        out = stack_detections(found, self.rules)
        for key in ("panoptic", "semantic", "semantic_logits"):
            out[key] = torch.stack([one[key] for one in found])
        return out

    @torch.no_grad()
    def compare(self, found: dict[str, Tensor], ours: dict[str, Tensor], exact: dict[str, Tensor]) -> list[Difference]:
        """What goes into the fusion is compared with the model; the fusion, with the model's of the same input.

        Rounding may move an instance over the edge of a rule (see `compare.py`), and the fusion then gives or takes a
        whole segment: 1 % of a small image, and nothing is wrong.
        """
        name = "semantic_logits"
        out = [*super().compare(found, ours, exact), compare_floats(name, found[name], ours[name], exact[name])]
        noise = _share(ours["semantic"], exact["semantic"])
        out.append(
            Difference("semantic", _share(found["semantic"], ours["semantic"]), MASK_PIXELS + TIMES_NOISE * noise)
        )
        stuff = self._stuff_scores(found["semantic_logits"], *found["semantic"].shape[1:])
        fused = self.fuse(found["scores"], found["labels"], found["masks"], found["semantic"], stuff)
        for name, mine in zip(("panoptic", *SEGMENTS[:2]), fused):
            out.append(Difference(name, _share(found[name], mine), 0.0))
        out.append(compare_floats(SEGMENTS[2], found[SEGMENTS[2]], fused[3], fused[3]))
        return out


def _count(labels: Tensor, classes: int) -> Tensor:
    """How many pixels of each class. Args: labels: (B, H, W). Returns: (B, classes) float32."""
    flat = labels.flatten(1)
    ones = torch.ones_like(flat, dtype=torch.float32)
    return torch.zeros(labels.shape[0], classes, device=labels.device).scatter_add(1, flat, ones)


def _void_where_nan(logits: Tensor) -> Tensor:
    """Cells of NaN are "any thing", which is void where no instance is."""
    broken = logits.isnan().any(1, keepdim=True)
    last = torch.arange(logits.shape[1], device=logits.device)[:, None, None] == logits.shape[1] - 1
    return torch.where(broken, torch.where(last, 100.0, 0.0).to(logits.dtype), logits)


def _share(x: Tensor, y: Tensor) -> float:
    return float((x != y).double().mean()) if x.shape == y.shape else 1.0
