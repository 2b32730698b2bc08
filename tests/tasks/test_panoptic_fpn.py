"""Panoptic FPN: fusion by hand, training with and without objects, sizes, the id convention, wrong input."""

import math

import pytest
import torch
from torch import Tensor

import litevit
from litevit.metrics import PanopticQuality
from litevit.tasks.panoptic_fpn import PanopticFPN, fuse, semantic_target

T, S = 3, 2
CATEGORIES = [{"id": c, "isthing": c < T} for c in range(T + S)]


def small(**options) -> PanopticFPN:
    torch.manual_seed(0)
    backbone = litevit.create_backbone("lvt", embed_dims=(16, 16, 32, 32), num_heads=(1, 1, 1, 1), depths=(1, 1, 1, 1))
    options = {
        "num_things": T, "num_stuff": S, "channels": 32, "box_hidden": 32, "semantic_channels": 24,
        "semantic_groups": 4, "resize": False, "min_stuff_area": 1, "roi_samples": 64,
    } | options  # fmt: skip
    return litevit.create_model("panoptic_fpn", backbone=backbone, **options)


def scene(height: int = 64, width: int = 96, *, things: int = 2) -> tuple[Tensor, dict[str, Tensor]]:
    """Two halves of stuff and bright squares of things."""
    image = torch.full((3, height, width), 0.2)
    image[2, :, width // 2 :] = 0.8
    semantic = (torch.arange(width) >= width // 2).long().expand(height, width).clone()
    boxes, masks = [], []
    for k in range(things):
        x, y = 8 + 40 * k, 12 + 8 * k
        image[k, y : y + 24, x : x + 24] = 1
        mask = torch.zeros(height, width, dtype=torch.bool)
        mask[y : y + 24, x : x + 24] = True
        semantic[mask] = S
        boxes.append([x, y, x + 24, y + 24])
        masks.append(mask)
    semantic[:2] = 255
    return image, {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.arange(things),
        "masks": torch.stack(masks) if masks else torch.zeros(0, height, width, dtype=torch.bool),
        "semantic": semantic,
    }


# ------------------------------------------------------------ fusion


def rectangle(top: int, left: int, bottom: int, right: int) -> Tensor:
    mask = torch.zeros(10, 10, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def fused(scores, labels, masks, semantic, **options):
    stacked = torch.stack(masks) if masks else torch.zeros(0, 10, 10, dtype=torch.bool)
    classes = {"num_things": T, "num_stuff": S, "min_stuff_area": 1}
    return fuse(torch.tensor(scores), torch.tensor(labels).long(), stacked, semantic, **classes | options)


def test_better_instances_come_first():
    semantic = torch.zeros(10, 10, dtype=torch.int64)
    panoptic, segments = fused([0.7, 0.9], [1, 2], [rectangle(0, 0, 6, 10), rectangle(4, 0, 10, 10)], semantic)
    assert (panoptic[4:] == 1002).all()  # class 2, first instance
    assert (panoptic[:4] == 2001).all()  # class 1, second
    assert [(s["id"], s["category_id"], s["isthing"]) for s in segments] == [(1002, 2, True), (2001, 1, True)]
    assert segments[0]["score"] == pytest.approx(0.9)


@pytest.mark.parametrize(("covered", "kept"), [(5, True), (6, False)])
def test_an_instance_covered_by_more_than_half_is_left_out(covered, kept):
    semantic = torch.full((10, 10), S)
    panoptic, segments = fused([0.9, 0.8], [0, 0], [rectangle(0, 0, 10, covered), rectangle(0, 0, 10, 10)], semantic)
    assert len(segments) == 1 + kept
    assert set(panoptic.unique().tolist()) == ({1000, 2000} if kept else {0, 1000})


def test_stuff_void_and_small_stuff():
    semantic = torch.zeros(10, 10, dtype=torch.int64)
    semantic[:, 6:] = 1
    semantic[:, 9:] = S  # "any thing"
    panoptic, segments = fused([0.9], [2], [rectangle(0, 0, 10, 5)], semantic, min_stuff_area=11)
    assert panoptic[0].tolist() == [1002] * 5 + [0] + [T + 1] * 3 + [0]  # stuff 0 has 10 pixels left
    assert [s["id"] for s in segments] == [1002, T + 1]
    assert segments[1] == {"id": T + 1, "category_id": T + 1, "isthing": False, "score": 1.0}


def test_empty_masks_and_no_instances():
    semantic = torch.full((10, 10), S)
    panoptic, segments = fused([0.9], [1], [rectangle(0, 0, 0, 0)], semantic)
    assert (panoptic == 0).all()
    assert segments == []
    panoptic, segments = fused([], [], [], torch.ones(10, 10, dtype=torch.int64))
    assert (panoptic == T + 1).all()
    assert len(segments) == 1


def test_semantic_target():
    classes = torch.tensor([0, 2, 3, 4, 5, 255, -1])
    assert semantic_target(classes, num_things=3, num_stuff=2).tolist() == [2, 2, 0, 1, 255, 255, 255]


# ------------------------------------------------------------ training


def test_losses_fall_and_every_parameter_learns():
    model = small().train()
    images, targets = zip(scene(), scene(70, 90, things=1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    totals = []
    for _ in range(8):
        losses = model(list(images), list(targets))
        assert set(losses) == {"loss_rpn_cls", "loss_rpn_box", "loss_cls", "loss_box", "loss_mask", "loss_seg"}
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert all(map(math.isfinite, totals))
    assert totals[-1] < totals[0]
    assert not [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_images_without_things_and_without_labels():
    model = small().train()
    image, target = scene(things=0)
    target["semantic"][:] = 255
    losses = model([image], [target])
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert float(losses["loss_seg"].detach()) == 0
    sum(losses.values()).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_semantic_targets_are_every_fourth_pixel_of_the_resized_map():
    model = small(resize=True, min_size=64, max_size=200).train()
    from litevit.tasks.detection import prepare_images

    image = torch.rand(3, 32, 50)
    labels = torch.randint(0, S + 1, (32, 50))
    batch = prepare_images([image, torch.rand(3, 64, 120)], min_size=64, max_size=200)
    other = {"semantic": torch.zeros(64, 120, dtype=torch.int64)}
    out = model._semantic_targets([{"semantic": labels}, other], batch)
    assert out.shape == (2, 16, 32)
    assert torch.equal(out[0, :, :25], labels[::2, ::2])  # twice as large, then every fourth
    assert (out[0, :, 25:] == 255).all()
    assert (out[1, :, :30] == 0).all()
    assert (out[1, :, 30:] == 255).all()


def test_loss_of_the_semantic_branch_has_its_weight():
    image, target = scene()
    losses = []
    for weight in (0.5, 1.0):
        model = small(semantic_loss_weight=weight).train()
        losses.append(float(model([image], [target])["loss_seg"].detach()))
    assert losses[1] == pytest.approx(2 * losses[0], rel=1e-5)


def test_training_keeps_scales_that_the_augmentation_drew():
    model = small(resize=True, min_size=128, max_size=256, train_min_sizes=(64, 128)).train()
    seen = []
    model.backbone.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape[-2:])))
    image, target = scene(64, 96)
    model([image], [target])
    model.eval()([image])
    assert seen == [(64, 96), (128, 192)]


# ------------------------------------------------------------ evaluation


@torch.no_grad()
def test_output_is_consistent_at_any_size():
    model = small(score_threshold=0.26).eval()  # random class scores are near 1/4
    images = [torch.rand(3, 75, 101), torch.rand(3, 40, 64), torch.rand(3, 33, 31)]
    results = model(images)
    assert sum(len(r["boxes"]) for r in results) > 0
    for image, result in zip(images, results):
        size = tuple(image.shape[1:])
        assert result["panoptic"].shape == result["semantic"].shape == size
        assert result["panoptic"].dtype == torch.int64
        assert result["masks"].shape == (len(result["boxes"]), *size)
        assert result["semantic_logits"].shape == (S + 1, 24, 32)
        ids = [s["id"] for s in result["segments_info"]]
        assert set(result["panoptic"].unique().tolist()) - {0} == set(ids)
        for s in result["segments_info"]:
            assert s["isthing"] == (s["category_id"] < T)
            assert s["id"] % 1000 == s["category_id"]
            assert 0 < s["score"] <= 1
        metric = PanopticQuality(CATEGORIES)
        metric.update(result["panoptic"], result["segments_info"], result["panoptic"], result["segments_info"])
        assert metric.compute()["All"]["pq"] in (0, 1)


@torch.no_grad()
@torch.no_grad()
def test_not_a_number_is_void():
    model = small(min_stuff_area=0).eval()
    for parameter in model.backbone.parameters():
        parameter.fill_(math.nan)
    (result,) = model([torch.rand(3, 70, 90)])
    assert result["segments_info"] == []
    assert not result["panoptic"].any()


def test_an_image_alone_and_in_a_batch_of_its_size_agree():
    model = small(score_threshold=0.26).eval()
    images = [torch.rand(3, 64, 96), torch.rand(3, 64, 96)]
    together, alone = model(images)[1], model(images[1:])[0]
    assert torch.allclose(together["semantic_logits"], alone["semantic_logits"], atol=1e-4)
    assert (together["panoptic"] != alone["panoptic"]).float().mean() < 0.01


@torch.no_grad()
def test_forward_raw_pads_to_multiples_of_32():
    model = small().eval()
    raw = model.forward_raw(torch.randn(1, 3, 75, 101))
    assert raw["seg"].shape == (1, S + 1, 24, 32)
    assert [tuple(raw[f"F{i}"].shape[2:]) for i in range(5)] == [(24, 32), (12, 16), (6, 8), (3, 4), (2, 2)]
    assert raw["rpn_cls0"].shape == (1, 3, 24, 32)
    assert raw["rpn_reg4"].shape == (1, 12, 2, 2)
    assert {"C2", "C3", "C4", "C5"} <= set(raw)


@pytest.mark.parametrize("backbone", ["lit_ti", "litv2_s", "resnet18"])
@torch.no_grad()
def test_any_backbone(backbone):
    model = litevit.create_model("panoptic_fpn", backbone=backbone, num_things=2, num_stuff=1, min_size=64).eval()
    assert model([torch.rand(3, 50, 70)])[0]["panoptic"].shape == (50, 70)


# ------------------------------------------------------------ wrong input


def target_with(**changes) -> dict[str, Tensor]:
    return scene()[1] | changes


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (target_with(semantic=torch.zeros(64, 95, dtype=torch.int64)), r"targets\[0\]\['semantic'\].*\(64, 96\)"),
        (target_with(semantic=torch.zeros(64, 96)), "integers"),
        (target_with(semantic=None), "NoneType"),
        (target_with(semantic=torch.full((64, 96), S + 1)), r"0\.\.1 \(stuff\), 2 \(any thing\) or 255"),
        (target_with(semantic=torch.full((64, 96), -1)), "got -1"),
        (target_with(labels=torch.tensor([0, T])), "labels"),
        (target_with(masks=torch.zeros(2, 63, 96, dtype=torch.bool)), "masks"),
    ],
)
def test_wrong_targets(target, message):
    with pytest.raises(ValueError, match=message):
        small().train()([scene()[0]], [target])


def test_training_without_targets():
    with pytest.raises(ValueError, match="targets"):
        small().train()([scene()[0]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_things": 0}, "at least 1"),
        ({"num_things": 990, "num_stuff": 20}, "1000"),
        ({"num_stuff": 255}, "below 255"),
    ],
)
def test_wrong_class_counts(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)
