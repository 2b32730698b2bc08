"""Cross-entropy between small logits and large masks, without the logits at the masks' size.

A segmentation head ends at a quarter of the image's size, and its loss is taken at the image's. At 150 classes and
512 x 512 pixels one image's resized logits are 157 MB, and interpolation, softmax, loss and their gradients each write
or read them whole. Here the columns are resized first (a quarter of that), then the rows in strips, whose loss and
gradient are made while they are in cache and added up in the columns. The same function; on one CPU thread 3 to 5 times
as fast (docs/performance.md). It has never run on CUDA.

Shapes: B images, K classes, h x w logits, H x W masks.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

STRIP_ELEMENTS = {"cpu": 2**18}  # logits made at one time: what a second-level cache holds
STRIP_ELEMENTS_ELSEWHERE = 2**24  # few launches matter more


def resized_cross_entropy(logits: Tensor, masks: Tensor, *, ignore_index: int) -> Tensor:
    """Sum over pixels of the softmax cross-entropy of logits resized to the masks' size.

    Bilinear with half-pixel centres, no antialiasing, as `F.interpolate(..., align_corners=False)`. Computed in float32
    (float64 for float64 logits). The gradient cannot be differentiated again.

    Args:
        logits: (B, K, h, w).
        masks: (B, H, W) integers, 0..K-1 or `ignore_index`.

    Returns:
        Scalar; 0 when every pixel is ignored.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    H, W = masks.shape[-2:]
    h, w = logits.shape[-2:]
    compiling = torch.compiler.is_compiling()  # the compiler fuses the plain formula, and would unroll the strips
    if compiling or h >= H or w >= W or not masks.numel():
        if (h, w) != (H, W):
            logits = F.interpolate(logits, size=(H, W), mode="bilinear", align_corners=False)
        return F.cross_entropy(logits, masks.long(), ignore_index=ignore_index, reduction="sum")
    columns = F.interpolate(logits, size=(h, W), mode="bilinear", align_corners=False)
    loss: Tensor = _RowsCrossEntropy.apply(
        columns, masks, ignore_index, torch.is_grad_enabled() and columns.requires_grad
    )
    return loss


def _row_weights(rows_in: int, rows_out: int, dtype: torch.dtype) -> tuple[Tensor, list[int], list[int]]:
    """Bilinear interpolation of rows as a matrix (rows_out, rows_in), and each row's first and last + 1 column used."""
    weights = F.interpolate(torch.eye(rows_in, dtype=dtype)[None], size=rows_out, mode="linear", align_corners=False)
    weights = weights[0].T.contiguous()
    used = (weights != 0).byte()
    return weights, used.argmax(1).tolist(), (rows_in - used.flip(1).argmax(1)).tolist()


class _RowsCrossEntropy(torch.autograd.Function):
    """Resizes the rows and sums the loss; the gradient is made beside it, since the strips are gone afterwards."""

    @staticmethod
    def forward(ctx: Any, columns: Tensor, masks: Tensor, ignore_index: int, with_gradient: bool) -> Tensor:
        (B, K, h, W), H = columns.shape, masks.shape[1]
        weights, first, end = _row_weights(h, H, columns.dtype)
        weights = weights.to(columns.device)
        size = STRIP_ELEMENTS.get(columns.device.type, STRIP_ELEMENTS_ELSEWHERE)
        step = max(1, size // (W * K))
        maps = columns.permute(0, 2, 3, 1).contiguous().view(B, h, W * K)
        gradient = torch.zeros_like(maps) if with_gradient else None
        losses = []  # of the strips: one sum of all is exact enough without float64, which not every device has
        with torch.autocast(columns.device.type, enabled=False):  # products stay in the logits' dtype
            for b in range(B):
                for top in range(0, H, step):
                    rows = slice(top, min(top + step, H))
                    source = slice(first[rows.start], end[rows.stop - 1])
                    mix = weights[rows, source]
                    labels = masks[b, rows].reshape(-1, 1).long()
                    ignored = labels == ignore_index
                    labels = labels.masked_fill(ignored, 0)
                    log_p = (mix @ maps[b, source]).view(-1, K).log_softmax(1)
                    losses.append(log_p.gather(1, labels).masked_fill(ignored, 0).sum())
                    if gradient is not None:
                        p = log_p.exp_().scatter_add_(1, labels, log_p.new_full((), -1).expand_as(labels))
                        gradient[b, source].addmm_(mix.T, p.masked_fill_(ignored, 0).view(-1, W * K))
        if gradient is not None:
            ctx.save_for_backward(gradient.view(B, h, W, K).permute(0, 3, 1, 2))
        return -torch.stack(losses).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * outputs[0], None, None, None
