"""Greedy suppression of a whole batch at fixed shapes, so that an exported program can hold it.

`torchvision.ops.nms` returns as many indices as it keeps, of one image. Here the answer is a mask. Exporters write one
operator for it (ONNX: NonMaxSuppression). B images, N boxes of each.
"""

import torch
from torch import Tensor
from torchvision.ops import nms


@torch.library.custom_op("litevit::batched_nms", mutates_args=())
def batched_nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """The boxes that no better box of their image overlaps by more than the threshold.

    Args:
        boxes: (B, N, 4) float32, xyxy.
        scores: (B, N) float32; boxes with a score below 0 take no part.

    Returns:
        (B, N) bool.
    """
    keep = torch.zeros_like(scores, dtype=torch.bool)
    for i in range(boxes.shape[0]):
        index = (scores[i] >= 0).nonzero().flatten()
        kept = nms(boxes[i][index].float(), scores[i][index].float(), iou_threshold)
        keep[i, index[kept]] = True
    return keep


@batched_nms.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)
