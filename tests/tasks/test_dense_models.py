"""What holds for every dense model: RetinaNet, Mask R-CNN, Panoptic FPN, Semantic FPN and SegFormer."""

import pytest
import torch
from torch import Tensor, nn

import litevit
from litevit.tasks.segmentation import SegmentationTest

DETECTORS = ("retinanet", "mask_rcnn", "panoptic_fpn")
SEGMENTERS = ("semantic_fpn", "segformer")
# One of each kind: convolutions, convolutions and LayerNorm, attention with reduced keys, windows with channels last.
TIMM = ("test_resnet", "test_convnext", "pvt_v2_b0", "swin_tiny_patch4_window7_224")
SMALL = {"embed_dim": 24, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)}


def create(name: str, backbone: str, classes: int = 3, **options: object) -> nn.Module:
    torch.manual_seed(0)
    counts = {"num_things": classes, "num_stuff": 2} if name == "panoptic_fpn" else {"num_classes": classes}
    if name in DETECTORS:
        options = {"channels": 24, "resize": False, **options}
    if name in ("mask_rcnn", "panoptic_fpn"):
        options = {"box_hidden": 16, "rpn_samples": 32, "roi_samples": 32, **options}
    if backbone == "litv2_s":
        options = {**options, **SMALL}
    return litevit.create_model(name, backbone=backbone, **counts, **options)


def pictures(sizes: tuple[tuple[int, int], ...], classes: int) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Images of these sizes with two rectangles each, the last without objects."""
    rng = torch.Generator().manual_seed(1)
    images, targets = [], []
    for i, (h, w) in enumerate(sizes):
        count = 2 if i < len(sizes) - 1 or len(sizes) == 1 else 0
        boxes = torch.tensor([[1.0, 2.0, w / 2, h / 2], [w / 3, h / 3, w - 1.5, h - 2.5]])[:count]
        masks = torch.zeros(count, h, w, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes.int().tolist()):
            mask[y0:y1, x0:x1] = True
        labels = torch.randint(0, classes, (count,), generator=rng)
        images.append(torch.rand(3, h, w, generator=rng))
        semantic = torch.randint(0, 3, (h, w), generator=rng)
        targets.append({"boxes": boxes, "labels": labels, "masks": masks, "semantic": semantic})
    return images, targets


def losses(model: nn.Module, name: str, sizes: tuple[tuple[int, int], ...], classes: int) -> dict[str, Tensor]:
    model.train()
    torch.manual_seed(7)  # of the samplers and of stochastic depth
    if name in DETECTORS:
        return model(*pictures(sizes, classes))
    h, w = sizes[0]
    rng = torch.Generator().manual_seed(1)
    images = torch.randn(2, 3, h, w, generator=rng)
    return model(images, torch.randint(0, classes, (2, h, w), generator=rng))


def gradients(model: nn.Module, name: str) -> dict[str, Tensor]:
    model.zero_grad()
    sum(losses(model, name, ((64, 96), (64, 96)), 3).values()).backward()
    return {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", DETECTORS + SEGMENTERS)
@pytest.mark.parametrize("backbone", ["litv2_s", "lvt", "test_resnet"])
def test_grad_checkpointing_changes_no_gradient(name: str, backbone: str) -> None:
    model = create(name, backbone)
    stored = gradients(model, name)
    model.set_grad_checkpointing()
    recomputed = gradients(model, name)
    assert stored.keys() == recomputed.keys()
    for key, gradient in stored.items():
        torch.testing.assert_close(recomputed[key], gradient, atol=1e-6, rtol=1e-4, msg=key)
    model.set_grad_checkpointing(False)
    assert gradients(model, name).keys() == stored.keys()


def test_grad_checkpointing_recomputes_the_blocks() -> None:
    """Fewer activations are kept for the backward pass."""

    def kept(model: nn.Module) -> int:
        elements = 0

        def pack(x: Tensor) -> Tensor:
            nonlocal elements
            elements += x.numel()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            losses(model, "retinanet", ((64, 64),), 3)
        return elements

    model = create("retinanet", "litv2_s")
    everything = kept(model)
    model.set_grad_checkpointing()
    assert kept(model) < 0.7 * everything


@pytest.mark.parametrize("name", DETECTORS + SEGMENTERS)
@pytest.mark.parametrize("backbone", [pytest.param(b, marks=[pytest.mark.slow] * ("swin" in b)) for b in TIMM])
def test_timm_backbones_by_name(name: str, backbone: str) -> None:
    """They train and predict, at odd sizes too."""
    model = create(name, backbone)
    assert all(torch.isfinite(v) for v in losses(model, name, ((64, 96), (64, 96)), 3).values())
    model.eval()
    with torch.no_grad():
        if name in DETECTORS:
            (found,) = model([torch.rand(3, 67, 101)])
            assert torch.isfinite(found["boxes"]).all()
        else:
            assert model(torch.randn(1, 3, 67, 101)).shape == (1, 3, 67, 101)


@pytest.mark.parametrize("classes", [1, 365])
@pytest.mark.parametrize("name", DETECTORS + SEGMENTERS)
def test_any_number_of_classes(name: str, classes: int) -> None:
    model = create(name, "test_resnet", classes)
    assert all(torch.isfinite(v) for v in losses(model, name, ((64, 64), (64, 64)), classes).values())
    model.eval()
    with torch.no_grad():
        if name in DETECTORS:
            (found,) = model([torch.rand(3, 64, 64)])
            assert ((found["labels"] >= 0) & (found["labels"] < classes)).all()
        else:
            labels = model.segment(torch.rand(3, 64, 64), test=SegmentationTest(scale=None))
            assert 0 <= int(labels.min()) <= int(labels.max()) < classes


@pytest.mark.parametrize("resize", [False, True])
@pytest.mark.parametrize("name", DETECTORS)
def test_mixed_odd_sizes_in_a_batch(name: str, resize: bool) -> None:
    sizes = ((33, 97), (131, 45), (64, 64))
    model = create(name, "litv2_s", resize=resize, min_size=61, max_size=111, **THRESHOLDS.get(name, {}))
    assert all(torch.isfinite(v) for v in losses(model, name, sizes, 3).values())
    model.eval()
    with torch.no_grad():
        results = model(pictures(sizes, 3)[0])
    assert sum(len(found["boxes"]) for found in results) > 0
    for (h, w), found in zip(sizes, results, strict=True):
        x0, y0, x1, y1 = found["boxes"].unbind(1)
        assert ((x0 >= 0) & (y0 >= 0) & (x1 <= w) & (y1 <= h)).all()
        if "masks" in found:
            assert found["masks"].shape[1:] == (h, w)
        if "panoptic" in found:
            assert found["panoptic"].shape == (h, w)


THRESHOLDS = {name: {"score_threshold": 0.0} for name in DETECTORS}  # random weights are never sure
