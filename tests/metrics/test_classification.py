import pytest
import torch
import torch.nn.functional as F
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_confusion_matrix

from litevit.metrics.classification import ClassificationMetric


@pytest.fixture
def results():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(200, 7, generator=generator), torch.randint(0, 7, (200,), generator=generator)


def test_is_torchmetrics_and_the_mean_cross_entropy(results):
    logits, targets = results
    metric = ClassificationMetric(7, confusion=True)
    for part in range(0, 200, 33):  # unequal batches
        metric.update(logits[part : part + 33], targets[part : part + 33])
    found = metric.compute()
    for name, k in (("top1", 1), ("top5", 5)):
        expected = multiclass_accuracy(logits, targets, num_classes=7, average="micro", top_k=k)
        assert found[name] == pytest.approx(100 * expected.item(), rel=1e-6)
    assert found["loss"] == pytest.approx(F.cross_entropy(logits, targets).item(), rel=1e-6)
    assert found["images"] == 200
    assert torch.equal(metric.confusion, multiclass_confusion_matrix(logits, targets, num_classes=7))


def test_per_class_table(results):
    logits, targets = results
    metric = ClassificationMetric(7)
    metric.update(logits, targets)
    rows = metric.per_class()
    per_class = multiclass_accuracy(logits, targets, num_classes=7, average="none")
    assert [row.top1 for row in rows] == pytest.approx((100 * per_class).tolist(), rel=1e-5)
    assert sum(row.images for row in rows) == 200


def test_classes_without_images_are_not_in_the_table():
    metric = ClassificationMetric(3)
    metric.update(torch.eye(3)[[0, 2]], torch.tensor([0, 2]))
    assert [row.index for row in metric.per_class()] == [0, 2]
    assert metric.compute()["top5"] == 100  # of three classes


class Summing:
    """Stands in for processes: what one reduces is added to what the others have."""

    def __init__(self, *others):
        self.others = others

    def reduce(self, tensor, how):
        assert how == "sum"
        name = next(k for k, v in vars(self.metric).items() if v is tensor)
        return tensor + sum(getattr(other, name) for other in self.others)


@pytest.mark.parametrize("world", [2, 3])
def test_any_division_gives_the_same(results, world):
    from litevit.data.sampling import shard

    logits, targets = results
    whole = ClassificationMetric(7, confusion=True)
    whole.update(logits, targets)
    parts = []
    for rank in range(world):
        mine = list(shard(200, rank=rank, world=world))
        parts.append(ClassificationMetric(7, confusion=True))
        parts[-1].update(logits[mine], targets[mine])
    processes = Summing(*parts[1:])
    processes.metric = parts[0]
    parts[0].reduce(processes)
    found, expected = parts[0].compute(), whole.compute()
    assert found == {**expected, "loss": pytest.approx(expected["loss"], rel=1e-12)}
    assert torch.equal(parts[0].confusion, whole.confusion)


def test_label_sets_count_any_right_class_and_leave_out_images_without():
    metric = ClassificationMetric(6)
    logits = torch.tensor([[6.0, 5, 4, 3, 2, 1]] * 4)
    sets = torch.zeros(4, 6, dtype=torch.bool)
    sets[0, [0, 3]] = True  # best is right
    sets[1, 4] = True  # fifth
    sets[2, 5] = True  # sixth: wrong
    metric.update(logits, sets)
    assert metric.compute() == {"top1": pytest.approx(100 / 3), "top5": pytest.approx(200 / 3), "images": 3}


def test_wrong_input():
    metric = ClassificationMetric(3)
    with pytest.raises(ValueError, match="gives 4 classes, the labels have 3"):
        metric.update(torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match="no image"):
        metric.compute()
