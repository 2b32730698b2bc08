"""Semantic FPN and SegFormer: loss, sizes, inference in strips, windows and several scales, training, wrong input."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import litevit
from litevit.tasks import segmentation
from litevit.tasks.segmentation import (
    SegmentationTest,
    View,
    normalise,
    segment,
    segmentation_loss,
    strips,
    window_logits,
)

SMALL = {"embed_dims": (16, 16, 32, 32), "num_heads": (1, 1, 1, 1), "depths": (1, 1, 1, 1)}


def small(name: str, **options) -> torch.nn.Module:
    torch.manual_seed(0)
    backbone = litevit.create_backbone("lvt", **SMALL)
    channels = {"segformer": {"head_channels": 32}, "semantic_fpn": {"head_channels": 16, "fpn_channels": 32}}
    return litevit.create_model(name, backbone=backbone, **{"num_classes": 5} | channels[name] | options)


HEADS = ("segformer", "semantic_fpn")


def shortfall(found: Tensor, scores: Tensor) -> float:
    """How far the worst found class (H, W) stays behind the best of the scores (C, H, W).

    0 where argmax agrees; small where a tie is broken the other way, as by another processor that rounds the resized
    image differently."""
    return float((scores.amax(0) - scores.gather(0, found[None].long())[0]).max())


# ------------------------------------------------------------ loss


def test_loss_divides_by_all_pixels():
    torch.manual_seed(0)
    logits, masks = torch.randn(2, 4, 6, 7), torch.randint(0, 4, (2, 12, 14))
    masks[0, :5] = 255
    resized = F.interpolate(logits, (12, 14), mode="bilinear", align_corners=False).log_softmax(1)
    total = 0.0
    for b in range(2):
        for y in range(12):
            for x in range(14):
                if masks[b, y, x] != 255:
                    total -= float(resized[b, masks[b, y, x], y, x])
    assert float(segmentation_loss(logits, masks)) == pytest.approx(total / (2 * 12 * 14), rel=1e-5)


def test_masks_without_a_label_give_zero_loss_and_zero_gradient():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = segmentation_loss(logits, torch.full((1, 8, 8), 255))
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("name", HEADS)
def test_training(name):
    """Loss falls, every parameter learns, and the model without masks still gives logits."""
    model = small(name).train()
    images = torch.randn(2, 3, 64, 96)
    masks = (torch.arange(96) // 24).expand(2, 64, 96).clone()
    masks[:, :8] = 255
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(6):
        loss = model(images, masks)["loss_seg"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0]
    assert not [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert model(images).shape == (2, 5, 64, 96)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (torch.zeros(1, 32, 33, dtype=torch.int64), r"size, got \(1, 32, 33\) for images \(1, 3, 32, 32\)"),
        (torch.zeros(2, 32, 32, dtype=torch.int64), "must be"),
        (torch.zeros(1, 1, 32, 32, dtype=torch.int64), "must be"),
        (torch.full((1, 32, 32), 5), r"classes 0\.\.4 or 255 \(ignore\), got 0\.\.5|got 5\.\.5"),
        (torch.full((1, 32, 32), -1), "must hold"),
        (torch.zeros(1, 32, 32), "integer"),
    ],
)
@pytest.mark.parametrize("name", HEADS)
def test_wrong_masks(name, masks, message):
    with pytest.raises(ValueError, match=message):
        small(name)(torch.randn(1, 3, 32, 32), masks)


# ------------------------------------------------------------ sizes and backbones


@pytest.mark.parametrize("backbone", ["lvt", "lit_ti", "litv2_s", "resnet18"])
@pytest.mark.parametrize("name", HEADS)
@torch.no_grad()
def test_any_backbone_any_size(name, backbone):
    model = litevit.create_model(name, backbone=backbone, num_classes=3).eval()
    images = torch.randn(1, 3, 75, 101)
    assert model(images).shape == (1, 3, 75, 101)
    raw = model.forward_raw(images)
    assert raw["logits"].shape[:2] == (1, 3)
    assert raw["logits"].shape[2:] == raw["C2"].shape[2:]
    assert model.segment(torch.rand(3, 50, 40), test=SegmentationTest(scale=None)).shape == (50, 40)


def test_a_backbone_without_features_is_named():
    with pytest.raises(ValueError, match="features"):
        litevit.create_model("semantic_fpn", backbone=torch.nn.Conv2d(3, 8, 1))


# ------------------------------------------------------------ inference


def chain(logits: Tensor, padded: tuple[int, int], size: tuple[int, int], original: tuple[int, int]) -> Tensor:
    """The published chain of resizes, whole."""
    x = F.interpolate(logits, padded, mode="bilinear", align_corners=False)[..., : size[0], : size[1]]
    return F.interpolate(x, original, mode="bilinear", align_corners=False)


@pytest.mark.parametrize("original", [(37, 90), (64, 96), (300, 20), (1, 1)])
def test_rows_of_a_view_are_rows_of_the_published_chain(original):
    torch.manual_seed(0)
    logits = torch.randn(1, 4, 16, 24)
    view, expected = View(logits, (64, 96), (61, 90)), chain(logits, (64, 96), (61, 90), original)
    for step in (1, 7, 1000):
        rows = [view.rows(original, a, min(a + step, original[0])) for a in range(0, original[0], step)]
        assert torch.allclose(torch.cat(rows, 2), expected, atol=2e-6)


def test_strips_cover_the_image_once(monkeypatch):
    monkeypatch.setattr(segmentation, "STRIP_ELEMENTS", 7 * 10 * 3)
    assert list(strips((20, 10), 7)) == [(0, 3), (3, 6), (6, 9), (9, 12), (12, 15), (15, 18), (18, 20)]
    monkeypatch.setattr(segmentation, "STRIP_ELEMENTS", 1)
    assert len(list(strips((20, 10), 7))) == 20


@pytest.mark.parametrize("name", HEADS)
@torch.no_grad()
def test_segment_is_the_published_chain(name, monkeypatch):
    model = small(name).eval()
    image = torch.rand(3, 70, 111)
    test = SegmentationTest(scale=(256, 64), multiple=32)
    seen = F.interpolate(image[None] * 255, (64, 101), mode="bilinear", align_corners=False).round()
    seen = F.interpolate(seen, (64, 128), mode="bilinear", align_corners=False).round()[0] / 255
    logits = F.interpolate(model(normalise(seen)[None]), (70, 111), mode="bilinear", align_corners=False)
    expected = logits[0].softmax(0)
    assert expected.argmax(0).unique().numel() > 1
    assert shortfall(model.segment(image, test=test), expected) < 5e-3
    monkeypatch.setattr(segmentation, "STRIP_ELEMENTS", 5 * 111 * 4)
    assert shortfall(model.segment(image, test=test), expected) < 5e-3


@torch.no_grad()
def test_several_scales_and_mirror_images_are_averaged():
    model = small("segformer").eval()
    image = torch.rand(3, 64, 96)
    test = SegmentationTest(scale=None, ratios=(0.5, 1.0), flip=True)
    total = torch.zeros(5, 64, 96)
    for size in ((32, 48), (64, 96)):
        seen = F.interpolate(image[None] * 255, size, mode="bilinear", align_corners=False).round() / 255
        x = normalise(seen[0])[None]
        for flip in (False, True):
            logits = model(x.flip(-1) if flip else x)
            probability = F.interpolate(logits, (64, 96), mode="bilinear", align_corners=False).softmax(1)[0]
            total += probability.flip(-1) if flip else probability
    mean = total / 4
    assert shortfall(model.segment(image, test=test), mean) < 5e-3
    assert shortfall(model.segment(image.flip(-1), test=test).flip(-1), mean) < 5e-3
    once = model.segment(image, test=SegmentationTest(scale=None, ratios=(1.0,), flip=False))
    assert shortfall(once, mean) > 2e-2


@pytest.mark.parametrize(
    ("size", "window", "stride"),
    [((50, 70), (32, 32), (20, 24)), ((20, 70), (32, 32), (32, 32)), ((33, 33), (32, 32), (1, 1))],
)
def test_windows_against_a_plain_loop(size, window, stride):
    def predict(x: Tensor) -> Tensor:  # depends on the place inside the window, so that averaging shows
        ramp = torch.linspace(0, 1, x.shape[-1])
        return torch.cat([x[:, :1] * 2, x[:, 1:2] + ramp], 1)

    torch.manual_seed(0)
    image = torch.randn(1, 3, *size)
    total, count = torch.zeros(1, 2, *size), torch.zeros(size)
    tops = {min(t, max(size[0] - window[0], 0)) for t in range(0, size[0], stride[0])}
    lefts = {min(t, max(size[1] - window[1], 0)) for t in range(0, size[1], stride[1])}
    for top in tops:
        for left in lefts:
            part = predict(image[..., top : top + window[0], left : left + window[1]])
            total[..., top : top + window[0], left : left + window[1]] += part
            count[top : top + window[0], left : left + window[1]] += 1
    assert count.min() > 0
    assert torch.allclose(window_logits(predict, image, window=window, stride=stride), total / count, atol=1e-5)


@torch.no_grad()
def test_a_window_larger_than_the_image_sees_it_whole():
    model = small("segformer").eval()
    image = torch.rand(3, 64, 64)
    whole = model.segment(image, test=SegmentationTest(scale=None))
    windowed = model.segment(image, test=SegmentationTest(scale=None, window=(100, 100)))
    assert (whole != windowed).float().mean() < 1e-3
    assert model.segment(image, test=SegmentationTest(scale=None, window=(48, 48))).shape == (64, 64)


@pytest.mark.parametrize("stride", [(0, 8), (8, 33)])
def test_wrong_windows(stride):
    with pytest.raises(ValueError, match="1 <= stride <= window"):
        window_logits(lambda x: x, torch.zeros(1, 3, 64, 64), window=(32, 32), stride=stride)


@pytest.mark.parametrize(
    "image", [torch.rand(1, 3, 8, 8), torch.rand(4, 8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8)]
)
def test_wrong_images(image):
    with pytest.raises(ValueError, match=r"\(3, H, W\) floats"):
        segment(lambda x: x, image, SegmentationTest())


def test_published_test_settings():
    assert litevit.create_model("segformer_lvt").config.test == SegmentationTest(scale=(2048, 512), multiple=32)
    assert litevit.create_model("semantic_fpn_litv2_s").config.test == SegmentationTest(scale=(2048, 512), multiple=1)
