"""Mean intersection over union (mIoU) and accuracies of semantic segmentation, from one confusion matrix."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from litevit.files import whole_file


class MeanIoU:
    """Accumulates a confusion matrix image by image; the metrics are those of ADE20K and Cityscapes.

    `confusion` is its whole state, exact integers: `reduce` adds those of all processes, `merge` those of another
    object, and `compute` gives the same figures as one process would.

    Args:
        num_classes: K; labels are 0..K-1.
        ignore_index: label of pixels that count for nothing.
        class_names: K names for messages and per-class results; None uses the numbers.
    """

    def __init__(self, num_classes: int, *, ignore_index: int = 255, class_names: tuple[str, ...] | None = None):
        if num_classes < 1:
            raise ValueError(f"MeanIoU: num_classes must be at least 1, got {num_classes}")
        if class_names is not None and len(class_names) != num_classes:
            raise ValueError(f"MeanIoU: class_names needs {num_classes} entries, got {len(class_names)}")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.class_names = class_names
        self.confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)  # rows truth, columns prediction

    def update(self, prediction: Tensor | np.ndarray, truth: Tensor | np.ndarray, *, name: str = "mask") -> None:
        """Counts one image, or a batch of one size.

        Args:
            prediction: (..., H, W) integer labels in 0..K-1.
            truth: the same shape, labels in 0..K-1 or `ignore_index`.
            name: says which mask an error is about.

        Raises:
            ValueError: two shapes, labels that are no integers, or out of range.
        """
        prediction, truth = torch.as_tensor(prediction), torch.as_tensor(truth)
        if prediction.shape != truth.shape:
            raise ValueError(
                f"{name}: prediction and truth must have one size, got {tuple(prediction.shape)} and "
                f"{tuple(truth.shape)}; resize the prediction to the mask, never the mask"
            )
        for what, labels in (("prediction", prediction), ("truth", truth)):
            if labels.is_floating_point() or labels.is_complex():
                raise ValueError(f"{name}: {what} must hold integer labels, got {labels.dtype}")
        K = self.num_classes
        if not truth.numel():
            return
        truth = truth.reshape(-1).int()
        prediction = prediction.reshape(-1).to(truth.device, torch.int32)
        ignored = truth == self.ignore_index
        truth = truth.masked_fill(ignored, 0)
        self._require_labels(truth, f"{name}: truth", f" or {self.ignore_index} (ignore)")
        self._require_labels(prediction, f"{name}: prediction", "")
        # The cell of each pixel in the matrix; ignored ones go to a cell behind its end.
        cell = (truth * K + prediction).masked_fill_(ignored, K * K)
        counts = torch.bincount(cell, minlength=K * K + 1)[: K * K]
        self.confusion += counts.view(K, K).to(self.confusion.device)

    def merge(self, other: "MeanIoU") -> None:
        """Adds what another process or worker counted.

        Args:
            other: of as many classes.

        Raises:
            ValueError: it has another number.
        """
        if self.num_classes != other.num_classes:
            raise ValueError(f"MeanIoU.merge: {self.num_classes} classes here, {other.num_classes} in the other")
        self.confusion += other.confusion.to(self.confusion.device)

    def reduce(self, accelerator: Any) -> None:
        """Sums over processes; every one has to call it.

        Args:
            accelerator: a Hugging Face `Accelerator`.
        """
        if accelerator.num_processes > 1:
            self.confusion = accelerator.reduce(self.confusion.to(accelerator.device), "sum").cpu()

    def compute(self) -> dict:
        """Returns: fractions.

        `miou` and `mean_accuracy` (means over the classes that occur), `pixel_accuracy`, and `per_class`: name (or
        number) -> {"iou", "accuracy"}; nan where a class has no pixel in truth (accuracy) nor prediction (iou).
        """
        confusion = self.confusion.double()
        hit, true, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
        iou = hit / (true + predicted - hit)  # 0/0 = nan: the class did not occur
        accuracy = hit / true
        total = true.sum()
        keys: Sequence[str | int] = self.class_names or range(self.num_classes)
        return {
            "miou": float(iou.nanmean()),
            "mean_accuracy": float(accuracy.nanmean()),
            "pixel_accuracy": float(hit.sum() / total),
            "per_class": {k: {"iou": i, "accuracy": a} for k, i, a in zip(keys, iou.tolist(), accuracy.tolist())},
        }

    def _require_labels(self, labels: Tensor, what: str, besides: str) -> None:
        low, high = (int(x) for x in torch.aminmax(labels))
        if low < 0 or high >= self.num_classes:
            raise ValueError(
                f"{what} must hold labels 0..{self.num_classes - 1}{besides}, got {low}..{high}. ADE20K's files hold "
                "0 = ignore, 1..150 = classes: the data set subtracts 1 when it reads them"
            )


def write_index_png(path: str | os.PathLike, labels: Tensor | np.ndarray, *, reduce_zero_label: bool = False) -> None:
    """Writes predicted classes as an 8-bit index PNG.

    Args:
        labels: (H, W) integer classes.
        reduce_zero_label: write class + 1, as ADE20K's files count (0 is "ignore" there).
    """
    indices = torch.as_tensor(labels).cpu().numpy().astype(np.int64) + int(reduce_zero_label)
    if indices.ndim != 2 or (indices.size and (indices.min() < 0 or indices.max() > 255)):
        raise ValueError(f"An index PNG takes (H, W) indices in 0..255, got {indices.shape}")
    with whole_file(path) as temporary:
        Image.fromarray(indices.astype(np.uint8)).save(temporary, format="PNG")
