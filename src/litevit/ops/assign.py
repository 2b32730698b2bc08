"""Assignment of boxes to objects by IoU, and the samplers after it. N boxes, G objects."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.ops import box_iou

# `choose(candidates, count)` returns `count` of the candidates.
Chooser = Callable[[Tensor, int], Tensor]

# Objects compared at a time: an image with 500 objects has 500 x 200,000 IoUs otherwise.
MAX_IOUS = 4_000_000


def random_subset(candidates: Tensor, count: int) -> Tensor:
    """A uniform subset, by torch's default generator whatever the device."""
    return candidates[torch.randperm(len(candidates))[:count].to(candidates.device)]


def assign_by_iou(
    boxes: Tensor, objects: Tensor, *, positive: float, negative: float, min_positive: float
) -> tuple[Tensor, Tensor]:
    """Max-IoU assignment.

    A box is background when its best IoU is below `negative`, gets its best object from `positive` on, and is ignored
    between. Then every object whose best IoU is at least `min_positive` takes all the boxes that reach this best,
    whatever they had; among objects that ask for the same box the last wins.

    Differs from torchvision's `Matcher`: there such a box gets its own best object, and every object asks.

    Args:
        boxes: (N, 4).
        objects: (G, 4), each with an area.

    Returns:
        codes (N,) int64: -1 ignored, 0 background, k for object k - 1; and the best IoU (N,).
    """
    N, G = len(boxes), len(objects)
    codes = torch.zeros(N, dtype=torch.int64, device=boxes.device)
    best = torch.zeros(N, dtype=boxes.dtype, device=boxes.device)
    if N == 0 or G == 0:
        return codes, best
    best_object = torch.zeros_like(codes)
    claimed_by = torch.zeros_like(codes)  # object + 1
    step = max(1, MAX_IOUS // N)
    for start in range(0, G, step):
        iou_GN = box_iou(objects[start : start + step], boxes)
        values, indices = iou_GN.max(dim=0)
        better = values > best
        best = torch.where(better, values, best)
        best_object = torch.where(better, indices + start, best_object)
        object_best = iou_GN.amax(dim=1)
        # Differs from official: an object that touches no box claims none (there: all boxes with IoU 0).
        asks = (object_best >= min_positive) & (object_best > 0)
        # Few pairs reach an object's best: listed, not multiplied out.
        objects_of, boxes_of = (iou_GN == object_best.where(asks, torch.inf)[:, None]).nonzero(as_tuple=True)
        claimed_by.scatter_reduce_(0, boxes_of, objects_of + start + 1, "amax")
    codes[best >= negative] = -1
    codes = torch.where(best >= positive, best_object + 1, codes)
    codes = torch.where(claimed_by > 0, claimed_by, codes)
    return codes, best


def sample(
    codes: Tensor, *, count: int, positive_fraction: float, choose: Chooser = random_subset
) -> tuple[Tensor, Tensor]:
    """Picks boxes for a loss.

    Args:
        codes: (N,) from `assign_by_iou`.
        count: boxes to pick, positives and negatives.
        positive_fraction: largest share of positives; negatives fill up.

    Returns:
        Indices of the positives and of the negatives, each ascending.
    """
    positives = (codes > 0).nonzero().flatten()
    negatives = (codes == 0).nonzero().flatten()
    quota = int(count * positive_fraction)
    if len(positives) > quota:
        positives = choose(positives, quota).sort().values
    quota = count - len(positives)
    if len(negatives) > quota:
        negatives = choose(negatives, quota).sort().values
    return positives, negatives
