"""Metrics of predictions that lie on a device without float64 (Apple's MPS), played by a tensor that refuses it."""

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from litevit.metrics.classification import ClassificationMetric
from litevit.metrics.coco import COCOAveragePrecision
from litevit.metrics.segmentation import MeanIoU


class OnMPS(Tensor):
    """Leaves the device by `cpu()` or `to(device)`; float64 before that is refused, as by MPS."""

    @classmethod
    def __torch_function__(cls, function, kinds, args=(), kwargs=None):
        kwargs = kwargs or {}
        leaves = function is Tensor.cpu or (function is Tensor.to and isinstance(args[1], torch.device))
        if leaves:
            with torch._C.DisableTorchFunctionSubclass():
                return function(*args, **kwargs).as_subclass(Tensor)
        out = super().__torch_function__(function, kinds, args, kwargs)
        if any(isinstance(leaf, OnMPS) and leaf.dtype == torch.float64 for leaf in tree_leaves(out)):
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
            )
        return out


def there(*values, dtype=torch.float32) -> Tensor:
    return torch.tensor(values, dtype=dtype).as_subclass(OnMPS)


def test_the_stand_in_refuses_float64():
    with pytest.raises(TypeError, match="MPS"):
        there(1.0).double()
    assert type(there(1.0).cpu().double()) is Tensor


class NoFloat64OnMPS(TorchDispatchMode):
    def __torch_dispatch__(self, function, kinds, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if any(isinstance(t, Tensor) and t.dtype == torch.float64 and t.device.type == "mps" for t in tree_leaves(out)):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return out


def test_classification():
    with FakeTensorMode(), NoFloat64OnMPS():
        metric = ClassificationMetric(3, device="mps")
        assert metric.images.device.type == "mps"
        with pytest.raises(TypeError):
            torch.zeros(1, device="mps").double()
    metric = ClassificationMetric(3, confusion=True)
    logits = there([2.0, 1.0, 0.0], [0.0, 1.0, 3.0])
    metric.update(logits, there(0, 1, dtype=torch.int64))
    plain = ClassificationMetric(3, confusion=True)
    plain.update(logits.cpu(), torch.tensor([0, 1]))
    assert metric.compute() == plain.compute()
    assert metric.compute()["top1"] == 50


def test_coco():
    pytest.importorskip("faster_coco_eval", reason="COCO evaluation needs faster-coco-eval")
    box, label = there([1.0, 1.0, 9.0, 9.0]), there(0, dtype=torch.int64)
    metric = COCOAveragePrecision(["thing"], kinds=("bbox",))
    target = {"image_id": 1, "boxes": box, "labels": label, "area": there(64.0)}
    metric.update([{"boxes": box, "labels": label, "scores": there(0.9)}], [target])
    assert metric.compute()["bbox/AP"] == pytest.approx(1.0)


def test_segmentation():
    metric = MeanIoU(2)
    metric.update(there([0, 1], dtype=torch.int64), there([0, 1], dtype=torch.int64))
    assert metric.compute()["miou"] == 1
