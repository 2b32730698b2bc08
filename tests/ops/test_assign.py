"""Assignment and sampling against the rule read literally."""

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from litevit.ops import assign
from litevit.ops.assign import assign_by_iou, random_subset, sample


def plain_assignment(boxes: Tensor, objects: Tensor, positive: float, negative: float, lowest: float) -> list[int]:
    iou = box_iou(objects, boxes)
    codes = []
    for n in range(len(boxes)):
        best = float(iou[:, n].max())
        code = -1
        if best < negative:
            code = 0
        if best >= positive:
            code = int(iou[:, n].argmax()) + 1
        codes.append(code)
    for g in range(len(objects)):
        best = float(iou[g].max())
        if best >= lowest and best > 0:
            for n in range(len(boxes)):
                if float(iou[g, n]) == best:
                    codes[n] = g + 1
    return codes


def grid_of_boxes() -> Tensor:
    y, x = torch.meshgrid(torch.arange(0, 64, 8.0), torch.arange(0, 64, 8.0), indexing="ij")
    corner = torch.stack((x, y), dim=-1).view(-1, 2)
    return torch.cat([torch.cat((corner, corner + side), dim=1) for side in (8.0, 16.0, 24.0)])


@pytest.mark.parametrize("max_ious", [10_000_000, 400])
def test_rule(max_ious: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when objects are compared two at a time. The grid makes exact ties."""
    monkeypatch.setattr(assign, "MAX_IOUS", max_ious)
    torch.manual_seed(0)
    boxes = grid_of_boxes()
    corner = torch.randint(0, 40, (9, 2)).float()
    objects = torch.cat((corner, corner + torch.randint(4, 24, (9, 2))), dim=1)
    objects[4] = objects[3]  # two objects at one place: the last gets the boxes that both ask for
    for lowest in (0.0, 0.3, 0.5):
        codes, best = assign_by_iou(boxes, objects, positive=0.5, negative=0.4, min_positive=lowest)
        assert codes.tolist() == plain_assignment(boxes, objects, 0.5, 0.4, lowest)
        torch.testing.assert_close(best, box_iou(objects, boxes).amax(dim=0))


def test_no_objects_and_no_boxes() -> None:
    boxes = grid_of_boxes()
    codes, best = assign_by_iou(boxes, torch.zeros(0, 4), positive=0.5, negative=0.4, min_positive=0)
    assert not codes.any()
    assert not best.any()
    codes, _ = assign_by_iou(boxes[:0], boxes[:2], positive=0.5, negative=0.4, min_positive=0)
    assert codes.shape == (0,)


def test_an_object_that_touches_nothing_claims_nothing() -> None:
    far = torch.tensor([[900.0, 900.0, 910.0, 910.0]])
    codes, _ = assign_by_iou(grid_of_boxes(), far, positive=0.5, negative=0.4, min_positive=0)
    assert not codes.any()


def test_sample_fills_up_with_negatives() -> None:
    codes = torch.tensor([0, 1, -1, 2, 0, 0, 3, 0, -1, 0])
    positives, negatives = sample(codes, count=6, positive_fraction=0.5)
    assert positives.tolist() == [1, 3, 6]
    assert len(negatives) == 3
    assert (codes[negatives] == 0).all()
    positives, negatives = sample(codes, count=6, positive_fraction=0.25, choose=lambda c, n: c[:n])
    assert (positives.tolist(), negatives.tolist()) == ([1], [0, 4, 5, 7, 9])


def test_random_subset_follows_the_default_generator() -> None:
    candidates = torch.arange(100)
    torch.manual_seed(3)
    first = random_subset(candidates, 10)
    torch.manual_seed(3)
    assert torch.equal(first, random_subset(candidates, 10))
    assert len(first.unique()) == 10
    assert not torch.equal(first, random_subset(candidates, 10))
