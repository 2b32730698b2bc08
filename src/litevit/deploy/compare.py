"""Detections compared as sets: near-ties may swap their ranks, and what is on the edge of a rule may fall either way.

Two detections are the same when class, box and score agree within tolerances that come from the model itself: how far
its float32 detections are from its float64 ones. One without a partner is excused only on the edge: its score at the
threshold or at the last place of a full list, or its overlap with another one at the suppression's threshold.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou

from litevit.deploy.graph import FLOOR, TIMES_NOISE, Difference

MATCHED_IOU = 0.5  # of the same detection in float32 and float64
NEAR_IOU = 0.01  # an overlap this near to the suppression's threshold falls either way
LOST = 0.02  # share of detections that may be without a partner and without excuse, besides what float32 loses itself
MASK_PIXELS = 0.002  # share of an image's mask pixels at the mask's threshold, besides what float32 loses itself


@dataclass(frozen=True)
class SetRules:
    """Of the model's selection."""

    score_threshold: float
    nms_threshold: float
    max_detections: int
    class_agnostic: bool = False

    @staticmethod
    def of(config: Any, *, class_agnostic: bool = False) -> "SetRules":
        return SetRules(config.score_threshold, config.nms_threshold, config.max_detections, class_agnostic)


def compare_detections(
    found: dict[str, Tensor], ours: dict[str, Tensor], exact: dict[str, Tensor], rules: SetRules
) -> list[Difference]:
    """Differences of boxes, scores, masks, and the share of detections that only one side has."""
    images = [({k: v[i] for k, v in side.items()} for side in (found, ours, exact)) for i in range(len(ours["count"]))]
    boxes = scores = mask_share = 0.0
    box_noise = score_noise = mask_noise = 0.0
    lost = lost_ours = total = 0
    extent = float(ours["boxes"].abs().max()) if ours["boxes"].numel() else 0.0
    pairs = []
    for f, o, e in images:
        f, o, e = _valid(f), _valid(o), _valid(e)
        a, b, missing = match(o, e, rules, torch.inf, torch.inf)
        box_noise = max(box_noise, _far(o["boxes"][a], e["boxes"][b]))
        score_noise = max(score_noise, _far(o["scores"][a], e["scores"][b]))
        mask_noise = max(mask_noise, _mask_share(o, e, a, b))
        lost_ours += missing
        pairs.append((f, o))
    box_tolerance = max(TIMES_NOISE * box_noise, FLOOR * extent)
    score_tolerance = max(TIMES_NOISE * score_noise, FLOOR)
    for f, o in pairs:
        a, b, missing = match(f, o, rules, box_tolerance, score_tolerance)
        boxes = max(boxes, _far(f["boxes"][a], o["boxes"][b]))
        scores = max(scores, _far(f["scores"][a], o["scores"][b]))
        mask_share = max(mask_share, _mask_share(f, o, a, b))
        lost += missing
        total += max(len(f["scores"]), len(o["scores"]), 1)
    out = [
        Difference("boxes", boxes, box_tolerance or 1.0),
        Difference("scores", scores, score_tolerance),
        Difference("detections", lost / total, LOST + 2 * lost_ours / total),
    ]
    if "masks" in ours:
        out.append(Difference("masks", mask_share, MASK_PIXELS + TIMES_NOISE * mask_noise))
    return out


def _valid(side: dict[str, Tensor]) -> dict[str, Tensor]:
    n = int(side["count"])
    return {key: side[key][:n] for key in ("boxes", "scores", "labels", "masks") if key in side}


def _far(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).abs().max()) if a.numel() else 0.0


def _mask_share(x: dict[str, Tensor], y: dict[str, Tensor], a: Tensor, b: Tensor) -> float:
    """Share of the pixels of matched masks that differ."""
    if "masks" not in x or not len(a):
        return 0.0
    one, other = x["masks"][a].bool(), y["masks"][b].bool()
    return float((one ^ other).sum()) / max(float((one | other).sum()), 1.0)


def match(
    x: dict[str, Tensor], y: dict[str, Tensor], rules: SetRules, box_tolerance: float, score_tolerance: float
) -> tuple[Tensor, Tensor, int]:
    """Partners within the tolerances, nearest first.

    Returns:
        Indices into x and y of the pairs, and how many of both have no partner and no excuse.
    """
    n, m = len(x["scores"]), len(y["scores"])
    none = torch.zeros(0, dtype=torch.int64)
    if n == 0 and m == 0:
        return none, none, 0
    overlap = box_iou(x["boxes"].float(), y["boxes"].float())
    distance = (x["boxes"].double()[:, None] - y["boxes"].double()).abs().amax(2)
    apart = (x["scores"].double()[:, None] - y["scores"].double()).abs()
    same = x["labels"][:, None] == y["labels"]
    if box_tolerance == torch.inf:
        possible = same & (overlap > MATCHED_IOU)
        cost = torch.where(possible, (1 - overlap.double()) + apart, torch.inf)
    else:
        possible = same & (distance <= box_tolerance) & (apart <= score_tolerance)
        cost = torch.where(possible, distance / max(box_tolerance, 1e-12) + apart / score_tolerance, torch.inf)
    a, b = [], []
    cost = cost.clone()
    for _ in range(min(n, m)):
        k = int(cost.argmin())
        i, j = divmod(k, m)
        if cost[i, j] == torch.inf:
            break
        a.append(i)
        b.append(j)
        cost[i], cost[:, j] = torch.inf, torch.inf
    first = torch.tensor(a, dtype=torch.int64)
    second = torch.tensor(b, dtype=torch.int64)
    margin = score_tolerance if score_tolerance != torch.inf else 1e-4
    missing = _without_excuse(x, y, first, rules, margin) + _without_excuse(y, x, second, rules, margin)
    return first, second, missing


def _without_excuse(x: dict[str, Tensor], y: dict[str, Tensor], matched: Tensor, rules: SetRules, margin: float) -> int:
    """How many of x, besides those matched, are on no edge of a rule."""
    alone = torch.ones(len(x["scores"]), dtype=torch.bool)
    alone[matched] = False
    if not alone.any():
        return 0
    scores = x["scores"][alone]
    on_edge = (scores - rules.score_threshold).abs() <= margin
    if max(len(x["scores"]), len(y["scores"])) >= rules.max_detections:
        last = min(float(side["scores"].min()) for side in (x, y) if len(side["scores"]))
        on_edge |= scores <= last + margin
    for side in (x, y):
        if not len(side["scores"]):
            continue
        overlap = box_iou(x["boxes"][alone].float(), side["boxes"].float())
        related = (x["labels"][alone][:, None] == side["labels"]) | rules.class_agnostic
        at_threshold = (overlap - rules.nms_threshold).abs() < NEAR_IOU
        on_edge |= (related & at_threshold).any(1)
    return int((~on_edge).sum())
