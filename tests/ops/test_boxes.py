"""Box coder, suppression and pasting against plain loops."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from litevit.ops import boxes as ops
from litevit.ops.boxes import _paste_together, decode_boxes, encode_boxes, grouped_nms, paste_masks, select_detections


def random_boxes(count: int, size: float = 100.0) -> Tensor:
    corner = torch.rand(count, 2) * size
    return torch.cat((corner, corner + 1 + torch.rand(count, 2) * size / 2), dim=1)


def test_decoding_inverts_encoding() -> None:
    torch.manual_seed(0)
    boxes, targets = random_boxes(50), random_boxes(50)
    for stds in ((1, 1, 1, 1), (0.1, 0.1, 0.2, 0.2)):
        deltas = encode_boxes(boxes, targets, stds=stds)
        torch.testing.assert_close(decode_boxes(deltas, boxes, stds=stds), targets, atol=1e-3, rtol=1e-4)


def test_decoding_bounds_both_sides() -> None:
    box = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    grown = decode_boxes(torch.tensor([[0.0, 0.0, 50.0, 50.0]]), box)
    shrunk = decode_boxes(torch.tensor([[0.0, 0.0, -50.0, -50.0]]), box)
    assert math.isclose(float(grown[0, 2] - grown[0, 0]), 1000, rel_tol=1e-4)
    assert math.isclose(float(shrunk[0, 2] - shrunk[0, 0]), 16 * 16 / 1000, rel_tol=1e-3)


def plain_nms(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> list[int]:
    kept: list[int] = []
    iou = box_iou(boxes, boxes)
    for i in scores.argsort(descending=True).tolist():
        if all(groups[i] != groups[j] or iou[i, j] <= threshold for j in kept):
            kept.append(i)
    return kept


@pytest.mark.parametrize("limit", [10_000, 1])
def test_suppression_of_one_group_only(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways, one call and one call per group, agree with the definition."""
    monkeypatch.setattr(ops, "ONE_CALL_LIMIT", limit)
    torch.manual_seed(1)
    boxes, scores, groups = random_boxes(200), torch.rand(200), torch.randint(0, 4, (200,))
    kept = grouped_nms(boxes, scores, groups, 0.4)
    assert kept.tolist() == plain_nms(boxes, scores, groups, 0.4)
    assert len(kept) < 200
    assert len(grouped_nms(boxes[:0], scores[:0], groups[:0], 0.4)) == 0


def test_selection() -> None:
    boxes = torch.tensor(
        [[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10], [5, 5, 5, 9], [float("nan"), 0, 1, 1], [30, 30, 40, 40]]
    )
    scores = torch.tensor([0.9, 0.8, 0.7, 0.95, 0.99, 0.5])
    labels = torch.tensor([1, 1, 2, 0, 0, 0])

    def run(**options: bool) -> list[tuple[float, int]]:
        found = select_detections(boxes, scores, labels, iou_threshold=0.5, max_detections=3, **options)
        return [(round(float(s), 2), int(label)) for s, label in zip(found[1], found[2])]

    assert run() == [(0.95, 0), (0.9, 1), (0.7, 2)]
    assert run(remove_empty=True) == [(0.9, 1), (0.7, 2), (0.5, 0)]
    assert run(remove_empty=True, class_agnostic=True) == [(0.9, 1), (0.5, 0)]


def plain_paste(mask: Tensor, box: Tensor, size: tuple[int, int]) -> Tensor:
    y, x = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    x0, y0, x1, y1 = box
    grid = torch.stack(((x - x0) / (x1 - x0) * 2 - 1, (y - y0) / (y1 - y0) * 2 - 1), dim=-1)
    return F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0]


def test_pasting_is_bilinear_sampling() -> None:
    torch.manual_seed(2)
    masks = torch.rand(6, 28, 28)
    boxes = random_boxes(6, size=50.0)
    boxes[0] = torch.tensor([-20.0, -7.5, 30.25, 90.0])  # partly outside the image
    size = (60, 70)
    soft = paste_masks(masks, boxes, size, threshold=None, window=False)
    wanted = torch.stack([plain_paste(m, b, size) for m, b in zip(masks, boxes)])
    torch.testing.assert_close(soft, wanted, atol=1e-4, rtol=0)
    hard = paste_masks(masks, boxes, size)
    assert hard.dtype == torch.bool
    assert ((soft - 0.5).abs() < 1e-4).logical_or(hard == (soft >= 0.5)).all()


def test_pasting_all_masks_at_once() -> None:
    """The form of CUDA, on the CPU."""
    torch.manual_seed(3)
    masks, boxes = torch.rand(70, 14, 14), random_boxes(70, size=50.0) - 5
    boxes[0, 2] = boxes[0, 0]  # no width
    for window in (True, False):
        one_by_one = paste_masks(masks, boxes, (40, 50), threshold=None, window=window)
        together = _paste_together(masks, boxes, (40, 50), None, window)
        torch.testing.assert_close(together, one_by_one, atol=1e-6, rtol=0)
        hard = _paste_together(masks, boxes, (40, 50), 0.5, window)
        assert hard.dtype == torch.bool
        assert ((one_by_one - 0.5).abs() < 1e-6).logical_or(hard == (one_by_one >= 0.5)).all()
    assert _paste_together(masks[:0], boxes[:0], (20, 30), 0.5, True).shape == (0, 20, 30)


def test_pasting_odd_boxes() -> None:
    """No width, outside the image, none at all."""
    masks = torch.ones(3, 28, 28)
    boxes = torch.tensor([[5.0, 5.0, 5.0, 9.0], [-30.0, 0.0, -20.0, 9.0], [100.0, 100.0, 200.0, 200.0]])
    pasted = paste_masks(masks, boxes, (20, 20))
    assert not pasted[1:].any()
    assert pasted[0].sum() <= 3 * 6  # at most the window around it
    assert paste_masks(masks[:0], boxes[:0], (20, 30)).shape == (0, 20, 30)
