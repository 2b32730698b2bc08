"""Top-k accuracy, loss, per-class table and confusion matrix; exact over any division of the data."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from litevit.devices import has_float64


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """One line of the per-class table."""

    index: int
    images: int
    top1: float  # in %
    top5: float


class ClassificationMetric:
    """Counts in int64, the loss in float64, so that sums over batches and processes are the sums over the set.

    Two kinds of labels: one class per image, or (ImageNet-ReaL) a set of right classes per image, where any of them
    counts and images with an empty set are left out.
    """

    def __init__(self, num_classes: int, *, confusion: bool = False, device: torch.device | str = "cpu"):
        self.num_classes = num_classes
        self.k = min(5, num_classes)
        self.images = torch.zeros(num_classes, dtype=torch.int64, device=device)  # per class
        self.right1 = torch.zeros_like(self.images)
        self.right5 = torch.zeros_like(self.images)
        self.confusion = torch.zeros(num_classes if confusion else 0, num_classes, dtype=torch.int64, device=device)
        exact = device if has_float64(device) else "cpu"
        self.loss = torch.zeros((), dtype=torch.float64, device=exact)
        self.sets = torch.zeros(3, dtype=torch.int64, device=device)  # with label sets: images, right at 1, right at 5

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Args: logits: (B, K). targets: (B,) classes, or (B, K) bool, the set of right classes of each image."""
        if logits.shape[1] != self.num_classes:
            raise ValueError(f"The model gives {logits.shape[1]} classes, the labels have {self.num_classes}.")
        logits = logits.float()
        best = logits.topk(self.k, dim=1).indices
        if targets.dtype == torch.bool:
            labelled = targets.any(1)
            right = targets.gather(1, best)[labelled]
            self.sets += torch.stack([labelled.sum(), right[:, 0].sum(), right.any(1).sum()])
            return
        right = best == targets[:, None]
        self.images += torch.bincount(targets, minlength=self.num_classes)
        self.right1 += torch.bincount(targets[right[:, 0]], minlength=self.num_classes)
        self.right5 += torch.bincount(targets[right.any(1)], minlength=self.num_classes)
        self.loss += F.cross_entropy(logits, targets, reduction="none").to(self.loss.device).double().sum()
        if self.confusion.numel():
            pairs = targets * self.num_classes + best[:, 0]
            counts = torch.bincount(pairs, minlength=self.num_classes**2)
            self.confusion += counts.view(self.num_classes, self.num_classes)

    def reduce(self, accelerator: Any) -> None:
        """Sums over processes; every process has to call it."""
        for name in ("images", "right1", "right5", "confusion", "loss", "sets"):
            tensor = getattr(self, name)
            if tensor.numel():
                setattr(self, name, accelerator.reduce(tensor, "sum"))

    def compute(self) -> dict[str, float]:
        """`top1` and `top5` in % (top5 is the top min(5, K)), `loss` (mean cross-entropy), `images`."""
        count = int(self.images.sum() + self.sets[0])
        if count == 0:
            raise ValueError("Nothing to evaluate: no image was counted.")
        right1 = int(self.right1.sum() + self.sets[1])
        right5 = int(self.right5.sum() + self.sets[2])
        result = {"top1": 100 * right1 / count, "top5": 100 * right5 / count}
        if not int(self.sets[0]):
            result["loss"] = float(self.loss) / count
        return result | {"images": count}

    def per_class(self) -> list[ClassRow]:
        """One row per class that has images."""
        return [
            ClassRow(index=index, images=images, top1=100 * right1 / images, top5=100 * right5 / images)
            for index, (images, right1, right5) in enumerate(
                zip(self.images.tolist(), self.right1.tolist(), self.right5.tolist())
            )
            if images
        ]
