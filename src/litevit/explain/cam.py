"""Class activation maps through the pytorch-grad-cam package: which cells a class, or a box, was decided by.

Grad-CAM (arXiv:1610.02391) weighs the channels of a map by the mean of the score's gradient; Layer-CAM (IEEE TIP 2021)
weighs every cell by its own positive gradient, and so also serves the fine maps of early stages.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from litevit.explain.inside import as_batch, backbone_of, evaluation
from litevit.ops.boxes import decode_boxes
from litevit.tasks.rpn import rows_per_anchor

Method = Literal["gradcam", "layercam"]
Score = Callable[[Any, Tensor], Tensor]  # model, batch -> a number


def class_score(label: int) -> Score:
    """A classifier's logit."""

    def score(model: Any, batch: Tensor) -> Tensor:
        logits = model(batch)[0]
        if not 0 <= label < len(logits):
            raise ValueError(f"class must be 0 to {len(logits) - 1}, got {label}")
        return logits[label]

    return score


def region_score(label: int) -> Score:
    """A segmenter's logit of a class, the mean over the cells where it wins (over all where it wins nowhere)."""

    def score(model: Any, batch: Tensor) -> Tensor:
        raw = model.forward_raw(batch)
        logits = raw["logits" if "logits" in raw else "seg"][0]
        if not 0 <= label < len(logits):
            raise ValueError(f"class must be 0 to {len(logits) - 1}, got {label}")
        won = logits.argmax(0) == label
        return logits[label][won].mean() if won.any() else logits[label].mean()

    return score


def box_score(box: Tensor, label: int) -> Score:
    """A detector's logit of a class for one box.

    Two-stage models read the box's own features; RetinaNet's is the logit of the anchor that became the box, or the
    one most like it.

    Args:
        box: (4,) xyxy, in pixels of the batch.
        label: 0-based class.
    """

    def score(model: Any, batch: Tensor) -> Tensor:
        raw = model.forward_raw(batch)
        maps = [raw[f"F{i}"] for i in range(sum(key[0] == "F" for key in raw))]
        if hasattr(model, "roi_heads"):
            heads = model.roi_heads
            roi = torch.cat([box.new_zeros(1), box])[None]
            logits, _ = heads.box_head(heads.features(maps, roi, heads.box_size))
            return logits[0, label]
        logits = torch.cat([rows_per_anchor(raw[f"cls{i}"][0], model.config.num_classes) for i in range(len(maps))])
        deltas = torch.cat([rows_per_anchor(raw[f"reg{i}"][0], 4) for i in range(len(maps))]).detach()
        boxes = decode_boxes(deltas, torch.cat(model.anchors(maps)), clip_to=(batch.shape[2], batch.shape[3]))
        overlap = box_iou(box[None].to(boxes), boxes)[0]
        # Several anchors can become one box: of those, the one that is surest of the class.
        return logits[overlap >= min(float(overlap.max()), 0.99), label].max()

    return score


def class_activation(
    model: nn.Module, image: Tensor, score: Score, *, method: Method = "gradcam", stage: int = 4
) -> Tensor:
    """What a score was decided by.

    Args:
        model: any plain model of litevit; it is left as it was, its gradients too.
        image: (3, H, W) or (1, 3, H, W), normalised (a detector's: as its `forward_raw` takes it).
        score: of `class_score`, `box_score` or `region_score`.
        method: "gradcam" or "layercam".
        stage: 1-4, whose map is shown.

    Returns:
        (H, W) of the image, in [0, 1].
    """
    try:
        from pytorch_grad_cam import GradCAM, LayerCAM
    except ImportError:
        raise ImportError("Class activation needs the package grad-cam: pip install 'litevit[explain]'") from None
    batch = as_batch(image)
    backbone: Any = backbone_of(model)
    if not 1 <= stage <= 4:
        raise ValueError(f"stage must be 1 to 4, got {stage}")
    blocks = backbone.stages[stage - 1].blocks
    layer = blocks[-1]
    tokens = stage == 4 and getattr(backbone, "has_class_token", False)
    if tokens:  # the patches that come out of the last block are not read: what goes into its attention is
        layer = getattr(layer, "norm1", layer)
    grid: list[tuple[int, int]] = []
    handle = backbone.embeds[stage - 1].register_forward_hook(
        lambda m, a, out: grid.append((out.shape[1], out.shape[2]))
    )

    def as_maps(x: Tensor) -> Tensor:
        if x.dim() == 3:
            x = x[:, 1:].unflatten(1, grid[-1])
        return x.permute(0, 3, 1, 2)

    kind = {"gradcam": GradCAM, "layercam": LayerCAM}[method]
    try:
        with _no_parameter_gradients(model), evaluation(model), torch.enable_grad():
            scored = _Scored(model, score)
            with kind(model=scored, target_layers=[layer], reshape_transform=as_maps) as cam:
                x = batch.to(next(model.parameters()).device).detach().clone().requires_grad_()
                found = cam(input_tensor=x, targets=[lambda out: out.sum()])
    finally:
        handle.remove()
    return torch.from_numpy(found[0].copy())


class _Scored(nn.Module):
    """A model whose output is one number."""

    def __init__(self, model: nn.Module, score: Score):
        super().__init__()
        self.model = model
        self.score = score

    def forward(self, batch: Tensor) -> Tensor:
        return self.score(self.model, batch).view(1, 1)


@contextmanager
def _no_parameter_gradients(model: nn.Module) -> Iterator[None]:
    """pytorch-grad-cam zeroes gradients and leaves new ones: they are put aside, and nothing collects any."""
    kept = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    try:
        for p, _, _ in kept:
            p.requires_grad_(False)
            p.grad = None
        yield
    finally:
        for p, required, gradient in kept:
            p.requires_grad_(required)
            p.grad = gradient
