"""What holds for both detectors: RetinaNet and Mask R-CNN on a small backbone, without stored data."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import litevit
from litevit.layers.features import FeatureSpec
from litevit.tasks.detection import prepare_images, prepare_targets, resized_size, to_original
from litevit.tasks.mask_rcnn import MaskRCNN, MaskRCNNConfig
from litevit.tasks.retinanet import RetinaNet, RetinaNetConfig
from litevit.tasks.roi_heads import mask_targets

NAMES = ("retinanet", "mask_rcnn")


class Tiny(nn.Module):
    """Four strided convolutions."""

    features = tuple(FeatureSpec(c, s) for c, s in zip((8, 12, 16, 24), (4, 8, 16, 32)))

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in ((8, 12), (12, 16), (16, 24)))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = [F.gelu(self.stem(images))]
        for conv in self.convs:
            maps.append(F.gelu(conv(maps[-1])))
        return tuple(maps)


def detector(name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    common = {"num_classes": 3, "channels": 16, "min_size": 96, "max_size": 160, **options}
    if name == "retinanet":
        return RetinaNet(Tiny(), RetinaNetConfig(**common))
    return MaskRCNN(Tiny(), MaskRCNNConfig(box_hidden=32, **common))


def scene(height: int, width: int, count: int, seed: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    """Filled rectangles: image, boxes, labels, masks."""
    rng = torch.Generator().manual_seed(seed)
    image = torch.rand(3, height, width, generator=rng)
    corner = torch.rand(count, 2, generator=rng) * torch.tensor([width * 0.6, height * 0.6])
    boxes = torch.cat((corner, corner + 4 + torch.rand(count, 2, generator=rng) * min(height, width) * 0.3), dim=1)
    masks = torch.zeros(count, height, width, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.int().tolist()):
        mask[y0:y1, x0:x1] = True
    return image, {"boxes": boxes, "labels": torch.randint(0, 3, (count,), generator=rng), "masks": masks}


def scenes(counts: tuple[int, ...] = (3, 5)) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    sizes = ((70, 90), (101, 64))
    pairs = [scene(*sizes[i % 2], count, seed=i) for i, count in enumerate(counts)]
    return [image for image, _ in pairs], [target for _, target in pairs]


# ------------------------------------------------------- images and targets


def test_published_sizes() -> None:
    for (width, height), (new_width, new_height) in {
        (640, 480): (1067, 800),
        (640, 427): (1199, 800),
        (1000, 400): (1333, 533),
        (612, 612): (800, 800),
    }.items():
        assert resized_size((height, width), min_size=800, max_size=1333) == (new_height, new_width)


def test_images_are_resized_as_integers_then_normalised_then_padded() -> None:
    image = torch.randint(0, 256, (3, 30, 45)).float() / 255
    other = torch.rand(3, 64, 40)
    batch = prepare_images([image, other], min_size=60, max_size=100)
    assert batch.sizes == [(60, 90), (96, 60)]
    assert batch.padded_sizes == [(64, 96), (96, 64)]
    assert batch.images.shape == (2, 3, 96, 96)
    assert not batch.images[0, :, 60:].any()
    assert not batch.images[0, :, :, 90:].any()
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    pixels = batch.images[0, :, :60, :90] * std[:, None, None] + mean[:, None, None]
    torch.testing.assert_close(pixels, pixels.round(), atol=1e-3, rtol=0)
    smooth = F.interpolate(image[None] * 255, size=(60, 90), mode="bilinear")[0]
    assert (pixels - smooth).abs().max() <= 0.501


def test_boxes_there_and_back() -> None:
    image, target = scene(70, 90, 6)
    batch = prepare_images([image], min_size=113, max_size=1000)
    (objects,) = prepare_targets([target], batch, num_classes=3)
    x_scale, y_scale = batch.scale(0)
    assert x_scale != y_scale  # each axis is rounded on its own
    torch.testing.assert_close(to_original(objects.boxes, batch, 0), target["boxes"])


def test_objects_outside_their_image_are_left_out() -> None:
    image, target = scene(70, 90, 2)
    target["boxes"][0] = torch.tensor([100.0, 10.0, 120.0, 20.0])
    batch = prepare_images([image], resize=False)
    (objects,) = prepare_targets([target], batch, num_classes=3, masks=True)
    assert len(objects.boxes) == len(objects.labels) == len(objects.masks) == 1


def test_mask_targets_of_a_resized_image() -> None:
    """Resizing only what is used gives what resizing everything gives."""
    _, target = scene(50, 60, 5)
    boxes = target["boxes"] * 2
    objects = torch.tensor([3, 0, 3, 4, 1])
    resized = F.interpolate(target["masks"][None].float(), size=(100, 120), mode="nearest")[0].bool()
    got = mask_targets(target["masks"], objects, boxes[objects], (100, 120), 28)
    torch.testing.assert_close(got, mask_targets(resized, objects, boxes[objects], (100, 120), 28))
    assert got.mean() > 0.8  # each region is filled by its own rectangle


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("name", NAMES)
def test_losses_gradients_and_a_step(name: str) -> None:
    model = detector(name).train()
    images, targets = scenes()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def total() -> Tensor:
        torch.manual_seed(1)  # the same sampled regions
        losses = model(images, targets)
        assert all(torch.isfinite(v) and v.dim() == 0 for v in losses.values())
        return sum(losses.values())

    before = total()
    before.backward()
    assert not [key for key, p in model.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    optimizer.step()
    assert total() < before


def test_loss_names() -> None:
    images, targets = scenes()
    assert set(detector("retinanet").train()(images, targets)) == {"loss_cls", "loss_box"}
    names = {"loss_rpn_cls", "loss_rpn_box", "loss_cls", "loss_box", "loss_mask"}
    assert set(detector("mask_rcnn").train()(images, targets)) == names


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("counts", [(0, 0), (0, 2)])
def test_images_without_objects(name: str, counts: tuple[int, ...]) -> None:
    """Finite losses, and every parameter takes part (distributed training waits for all of them)."""
    model = detector(name).train()
    losses = model(*scenes(counts))
    sum(losses.values()).backward()
    assert all(torch.isfinite(v) for v in losses.values())
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_five_hundred_objects(name: str) -> None:
    model = detector(name).train()
    losses = model(*scenes((500,)))
    assert all(torch.isfinite(v) for v in losses.values())


@pytest.mark.parametrize("name", NAMES)
def test_small_images_without_resizing(name: str) -> None:
    model = detector(name, resize=False).train()
    image, target = scene(128, 128, 4)
    assert all(torch.isfinite(v) for v in model([image], [target]).values())


# -------------------------------------------------------------- evaluation


def excite(model: nn.Module) -> nn.Module:
    """Spreads the class logits of an untrained model, so that it finds something."""
    head = model.head if isinstance(model, RetinaNet) else model.roi_heads.box_head
    with torch.no_grad():
        head.cls_logits.weight.normal_(std=0.3)
        head.cls_logits.bias.zero_()
    return model.eval()


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_detections(name: str) -> None:
    model = excite(detector(name, max_detections=7))
    images, _ = scenes()
    results = model(images)
    assert len(results) == 2
    for image, result in zip(images, results):
        height, width = image.shape[1:]
        boxes, scores, labels = result["boxes"], result["scores"], result["labels"]
        assert 0 < len(boxes) <= 7
        assert boxes.shape == (len(scores), 4)
        assert labels.dtype == torch.int64
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] <= torch.tensor([width, height])).all()
        assert (labels >= 0).all()
        assert (labels < 3).all()
        assert (scores > model.config.score_threshold).all()
        assert (scores.diff() <= 0).all()
        assert set(result) == {"boxes", "scores", "labels"} | ({"masks"} if name == "mask_rcnn" else set())
        if name == "mask_rcnn":
            assert result["masks"].shape == (len(scores), height, width)
            assert result["masks"].dtype == torch.bool


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_an_image_does_not_depend_on_its_batch(name: str) -> None:
    """Up to convolutions that see the padding of the batch: here both have the same padded size."""
    model = excite(detector(name))
    images = [torch.rand(3, 70, 90), torch.rand(3, 71, 91)]
    together = model(images)
    for image, result in zip(images, together):
        (alone,) = model([image])
        for key, value in alone.items():
            torch.testing.assert_close(value, result[key], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_not_a_number_finds_nothing(name: str) -> None:
    model = excite(detector(name))
    nn.init.constant_(model.backbone.stem.weight, float("nan"))
    image = torch.rand(3, 70, 90)
    (result,) = model([image])
    assert result["boxes"].shape == (0, 4)
    assert result["scores"].shape == result["labels"].shape == (0,)
    if name == "mask_rcnn":
        assert result["masks"].shape == (0, 70, 90)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_nothing_above_the_threshold(name: str) -> None:
    model = detector(name, score_threshold=0.999).eval()
    assert all(len(result["boxes"]) == 0 for result in model(scenes()[0]))


@torch.no_grad()
def test_selections_of_retinanet() -> None:
    """Fewer candidates than `pre_nms`: both rules keep the same."""
    images, _ = scenes()
    results = [excite(detector("retinanet", selection=rule, pre_nms=100_000))(images) for rule in ("pairs", "anchors")]
    for pairs, anchors in zip(*results):
        torch.testing.assert_close(pairs, anchors)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_raw_maps(name: str) -> None:
    raw = detector(name).eval().forward_raw(torch.randn(2, 3, 64, 96))
    prefix = "" if name == "retinanet" else "rpn_"
    wanted = [f"C{i}" for i in range(2, 6)] + [
        f"{p}{i}" for p in ("F", f"{prefix}cls", f"{prefix}reg") for i in range(5)
    ]
    assert sorted(raw) == sorted(wanted)
    assert raw["C2"].shape == (2, 8, 16, 24)
    per_cell, classes = (9, 3) if name == "retinanet" else (3, 1)
    assert raw[f"{prefix}cls0"].shape[1] == per_cell * classes
    assert raw[f"{prefix}reg0"].shape[1] == per_cell * 4


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("backbone", ["resnet18", "lit_ti"])
def test_any_backbone_by_name(name: str, backbone: str) -> None:
    model = litevit.create_model(name, backbone=backbone, num_classes=5, channels=16, resize=False)
    image, target = scene(64, 64, 2)
    assert all(torch.isfinite(v) for v in model.train()([image], [target]).values())
    with torch.no_grad():
        assert len(model.eval()([image])) == 1


# -------------------------------------------------------------- wrong input


def changed(**values: object) -> tuple[list[Tensor], list[dict]]:
    images, targets = scenes()
    return images, [targets[0], {**targets[1], **values}]


BAD_TARGETS = {
    "negative size": (changed(boxes=torch.tensor([[5.0, 5, 9, 9]] * 4 + [[9.0, 5, 5, 9]])), r"targets\[1\].*box 4 is"),
    "no size": (changed(boxes=torch.tensor([[5.0, 5, 9, 9]] * 4 + [[9.0, 5, 9, 9]])), "x1 < x2"),
    "not finite": (changed(boxes=torch.full((5, 4), float("nan"))), "box 0 is"),
    "integer boxes": (changed(boxes=torch.tensor([[5, 5, 9, 9]] * 5)), "floats"),
    "boxes of another shape": (changed(boxes=torch.rand(5, 5)), r"\(5, 4\)"),
    "boxes without labels": (changed(labels=torch.tensor([0, 1])), r"\(2, 4\) like the 2 labels"),
    "label too large": (changed(labels=torch.tensor([0, 1, 2, 3, 0])), "0..2, got 0..3"),
    "label below 0": (changed(labels=torch.tensor([0, 1, 2, -1, 0])), "got -1..2"),
    "float labels": (changed(labels=torch.zeros(5)), "integers"),
    "missing labels": (changed(labels=None), "'labels'"),
    "a list": (changed(boxes=[[1, 2, 3, 4]]), "got list"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", BAD_TARGETS)
def test_bad_targets(name: str, case: str) -> None:
    (images, targets), message = BAD_TARGETS[case]
    with pytest.raises(ValueError, match=message):
        detector(name).train()(images, targets)


def test_bad_masks() -> None:
    model = detector("mask_rcnn").train()
    for masks in (torch.zeros(5, 9, 9, dtype=torch.bool), torch.zeros(5, 101, 64), None):
        with pytest.raises(ValueError, match=re.escape("targets[1]")):
            model(*changed(masks=masks))


@pytest.mark.parametrize("name", NAMES)
def test_bad_images(name: str) -> None:
    model = detector(name)
    image = torch.rand(3, 64, 64)
    for images, message in (
        ([], "non-empty list"),
        (image, "non-empty list"),
        ([image, image[0]], r"images\[1\]"),
        ([torch.rand(1, 64, 64)], r"\(3, H, W\)"),
        ([(image * 255).to(torch.uint8)], "divide it by 255"),
    ):
        with pytest.raises(ValueError, match=message):
            model.eval()(images)
    for targets in (None, [], {}, [scene(64, 64, 1)[1]] * 2):
        with pytest.raises(ValueError, match="targets"):
            model.train()([image], targets)
    with pytest.raises(ValueError, match="forward_raw"):
        model.forward_raw(image)


def test_bad_configurations() -> None:
    with pytest.raises(ValueError, match="selection"):
        detector("retinanet", selection="boxes")
    for name in NAMES:
        with pytest.raises(ValueError, match="num_classes"):
            detector(name, num_classes=0)
    with pytest.raises(ValueError, match="features"):
        RetinaNet(nn.Conv2d(3, 3, 1), RetinaNetConfig())


# --------------------------------------------------------------- precision


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16(name: str) -> None:
    """Under autocast for training, and whole for evaluation: boxes and losses stay float32."""
    model = detector(name).train()
    images, targets = scenes()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(images, targets)
    assert all(v.dtype == torch.float32 and torch.isfinite(v) for v in losses.values())
    sum(losses.values()).backward()
    with torch.no_grad():
        (result,) = excite(model).bfloat16()(images[:1])
    assert len(result["boxes"]) > 0
    assert result["boxes"].dtype == result["scores"].dtype == torch.float32
