"""Dense transforms: the published sizes, and truth that stays on its pixels through every step."""

import colorsys

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from litevit.data.dense_transforms import (
    Normalize,
    Pad,
    PhotometricDistortion,
    RandomCrop,
    RandomScale,
    ResizeKeepRatio,
    ResizeUpToMultiple,
    ToFloat,
    detection_batch,
    detection_train,
    hsv_to_rgb,
    keep_ratio_size,
    rgb_to_hsv,
    segmentation_test,
    segmentation_train,
)


def sample(height: int = 90, width: int = 140) -> tuple[Tensor, dict]:
    """Two rectangles of pure colours (red: object 0, class 1; green: object 1, class 2) on blue ground (class 0)."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[2] = 255
    masks = torch.zeros(2, height, width, dtype=torch.bool)
    masks[0, 10:40, 20:60] = True
    masks[1, 30:80, 70:130] = True
    image[:, masks[0]] = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None]
    image[:, masks[1]] = torch.tensor([0, 255, 0], dtype=torch.uint8)[:, None]
    semantic = masks[0].long() + 2 * masks[1].long()
    boxes = torch.tensor([[20.0, 10, 60, 40], [70, 30, 130, 80]])
    target = {
        "image_id": 3,
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width)),
        "labels": torch.tensor([1, 2]),
        "iscrowd": torch.zeros(2, dtype=torch.bool),
        "area": torch.tensor([1200.0, 3000.0], dtype=torch.float64),
        "masks": tv_tensors.Mask(masks),
        "semantic": tv_tensors.Mask(semantic),
        "panoptic": tv_tensors.Mask(semantic + 70_000),
    }
    return tv_tensors.Image(image), target


def assert_truth_is_on_its_pixels(image: Tensor, target: dict) -> None:
    """Colours, masks, semantic and panoptic map say the same (but at edges), and boxes hold their masks."""
    colour = image.as_subclass(Tensor).float()
    for label, channel in ((1, 0), (2, 1)):
        painted = colour[channel] > 0.75 * max(float(colour.max()), 1)
        inside = target["semantic"].as_subclass(Tensor) == label
        edge = (painted != inside).float().mean()
        assert edge < 0.03, f"class {label}: {edge:.1%} of the pixels disagree"
    known = target["semantic"] != 255
    assert torch.equal((target["panoptic"] - 70_000)[known], target["semantic"][known])
    for box, label, mask in zip(target["boxes"], target["labels"], target["masks"], strict=True):
        assert torch.equal(mask.as_subclass(Tensor), (target["semantic"] == int(label)).as_subclass(Tensor))
        ys, xs = mask.nonzero().unbind(1)
        tight = torch.stack([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]).float()
        assert (tight - box).abs().max() <= 1.0


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(640, 480, (1067, 800)), (640, 427, (1199, 800)), (1000, 400, (1333, 533)), (612, 612, (800, 800))],
)
def test_published_sizes(width: int, height: int, expected: tuple[int, int]) -> None:
    assert keep_ratio_size(height, width, 1333, 800) == expected[::-1]
    # An image that is resized already keeps its size, so the model's own resize leaves it alone.
    assert keep_ratio_size(*expected[::-1], 1333, 800) == expected[::-1]


@pytest.mark.parametrize(
    "step",
    [
        ResizeKeepRatio(211, 120),
        ResizeKeepRatio(70, 50),
        ResizeUpToMultiple(32),
        RandomScale(300, 100, (0.5, 2.0)),
        v2.RandomHorizontalFlip(1.0),
        RandomCrop((60, 90), category_cap=1.0),
        RandomCrop(64, category_cap=0.75),
        Pad(160, divisor=32),
        v2.Compose([RandomScale(300, 100), RandomCrop(64), v2.RandomHorizontalFlip(), Pad(64)]),
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_truth_stays_on_its_pixels(step, seed: int) -> None:
    torch.manual_seed(seed)
    image, target = step(*sample())
    assert target["masks"].dtype == torch.bool
    assert target["semantic"].dtype == torch.int64
    assert_truth_is_on_its_pixels(image, target)


def test_every_entry_has_the_same_objects_after_a_crop() -> None:
    torch.manual_seed(0)
    lengths = set()
    for _ in range(20):
        _, target = RandomCrop(40, category_cap=1.0)(*sample())
        counts = {len(target[key]) for key in ("boxes", "labels", "iscrowd", "area", "masks")}
        assert len(counts) == 1
        lengths |= counts
    assert lengths == {0, 1, 2}, "crops with no, one and both objects were seen"


def test_boxes_scale_by_each_axis() -> None:
    image, target = ResizeKeepRatio(1333, 800)(*sample(400, 1000))
    assert image.shape == (3, 533, 1333)
    torch.testing.assert_close(
        target["boxes"].as_subclass(Tensor)[0],
        torch.tensor([20 * 1.333, 10 * 533 / 400, 60 * 1.333, 40 * 533 / 400]),
    )
    assert float(target["area"][0]) == pytest.approx(1200 * 1.333 * 533 / 400)


def test_bilinear_without_antialiasing_rounded_to_integers() -> None:
    image = torch.arange(0, 256, 8, dtype=torch.uint8).expand(3, 4, 32).clone()
    resized, _ = ResizeKeepRatio(8, 1)(image, {})
    assert resized.shape == (3, 1, 8)
    # Output centre k lies at 4 k + 1.5, between two pixels 8 apart in value; antialiasing would average eight of them.
    assert resized[0, 0].tolist() == [8 * (4 * k + 1) + 4 for k in range(8)]


def test_multi_scale_draws_every_integer_including_the_ends() -> None:
    torch.manual_seed(0)
    step = ResizeKeepRatio(1000, (40, 44))
    sides = {step(torch.zeros(3, 30, 30, dtype=torch.uint8), {})[0].shape[-1] for _ in range(60)}
    assert sides == {40, 41, 42, 43, 44}


def test_random_scale_range() -> None:
    torch.manual_seed(0)
    heights = [RandomScale()(torch.zeros(3, 64, 64, dtype=torch.uint8), {})[0].shape[-1] for _ in range(60)]
    assert 256 <= min(heights) < 330
    assert 900 < max(heights) <= 1024


def test_same_seed_same_sample_and_another_seed_another() -> None:
    pipeline = segmentation_train(300, 100, 64)

    def draw(seed: int) -> tuple[Tensor, Tensor]:
        torch.manual_seed(seed)
        image, target = pipeline(*sample())
        return image.as_subclass(Tensor), target["semantic"].as_subclass(Tensor)

    first, again, other = draw(1), draw(1), draw(2)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_crop_keeps_the_largest_class_below_the_cap() -> None:
    """One corner holds the second class: without the cap most crops see one class only."""
    semantic = torch.zeros(100, 100, dtype=torch.int64)
    semantic[:45, :45] = 1
    image = torch.zeros(3, 100, 100, dtype=torch.uint8)
    torch.manual_seed(0)

    def shares(step: RandomCrop) -> list[float]:
        out = []
        for _ in range(100):
            _, target = step(image, {"semantic": tv_tensors.Mask(semantic)})
            counts = torch.bincount(target["semantic"].flatten(), minlength=2)
            out.append(float(counts.max() / counts.sum()))
        return out

    capped, free = shares(RandomCrop(50, 0.75)), shares(RandomCrop(50, 1.0))
    assert sum(share < 0.75 for share in free) < 50
    assert sum(share < 0.75 for share in capped) > 90


def test_crop_gives_up_after_ten_tries_and_ignores_255_in_the_shares() -> None:
    calls = []

    class Counting(RandomCrop):
        def _draw(self, height: int, width: int) -> tuple[int, int, int, int]:
            calls.append(1)
            return super()._draw(height, width)

    one_class = {"semantic": tv_tensors.Mask(torch.full((40, 40), 255))}
    one_class["semantic"][:, :20] = 3
    Counting(16)(torch.zeros(3, 40, 40, dtype=torch.uint8), one_class)
    assert len(calls) == 11, "the first crop and ten more"
    assert RandomCrop(16)._balanced(torch.tensor([1, 2] + [255] * 50))
    assert not RandomCrop(16)._balanced(torch.tensor([1, 1, 1, 2] + [255] * 50)), (
        "3 of 4 labelled pixels is not below 0.75"
    )


def test_image_smaller_than_the_crop_is_padded() -> None:
    image, target = segmentation_train(100, 40, 96, (1.0, 1.0))(*sample())
    assert image.shape == (3, 96, 96)
    assert target["semantic"].shape == (96, 96)
    assert (target["semantic"][40:] == 255).all()
    assert (image[:, 40:] == 0).all(), "zeros after normalisation"
    assert (target["semantic"][:40, :62] != 255).all()


def test_all_ignore_mask_passes_and_its_loss_is_zero() -> None:
    from litevit.tasks.segmentation import segmentation_loss

    mask = {"semantic": tv_tensors.Mask(torch.full((50, 60), 255))}
    _image, target = segmentation_train(100, 50, 32)(sample(50, 140)[0][:, :, :60], mask)
    assert (target["semantic"] == 255).all()
    loss = segmentation_loss(torch.randn(1, 4, 8, 8, requires_grad=True), target["semantic"][None].as_subclass(Tensor))
    assert loss.item() == 0


def test_normalise_and_to_float() -> None:
    image = torch.tensor([124, 116, 104], dtype=torch.uint8).view(3, 1, 1)
    normalised, _ = Normalize()(image, {})
    expected = [(124 - 123.675) / 58.395, (116 - 116.28) / 57.12, (104 - 103.53) / 57.375]
    torch.testing.assert_close(normalised.flatten(), torch.tensor(expected))
    assert ToFloat()(image, {})[0].flatten().tolist() == pytest.approx([124 / 255, 116 / 255, 104 / 255])


def test_published_pipelines() -> None:
    image, target = detection_batch()(*sample(400, 1000))
    assert image.shape == (3, 544, 1344), "533 x 1333 padded to multiples of 32"
    assert (image[:, 533:] == 0).all()
    assert target["masks"].shape == (2, 544, 1344)
    image, target = detection_train(flip=1.0)(*sample(400, 1000))
    assert image.shape == (3, 533, 1333)
    assert 0 <= image.min() < image.max() <= 1
    assert target["boxes"][0, 2] == pytest.approx(1333 - 20 * 1.333, abs=1e-3)
    assert detection_train(resize=False)(*sample())[0].shape == (3, 90, 140)


def test_segmentation_test_leaves_the_truth_at_its_size() -> None:
    image, target = segmentation_test(stretch_to=32)(*sample(90, 141))
    assert image.shape == (3, 512, 832), "512 x 802, then up to a multiple of 32"
    assert target["semantic"].shape == (90, 141)
    assert segmentation_test()(*sample(90, 141))[0].shape == (3, 512, 802)


# Photometric distortion


def test_hsv_is_opencvs_eight_bit_one() -> None:
    generator = torch.Generator().manual_seed(0)
    rgb = torch.randint(0, 256, (3, 40, 40), generator=generator).float()
    h, s, v = rgb_to_hsv(rgb)
    for y in range(0, 40, 7):
        for x in range(40):
            hue, saturation, value = colorsys.rgb_to_hsv(*(rgb[:, y, x] / 255).tolist())
            assert abs((float(h[y, x]) - hue * 180 + 90) % 180 - 90) <= 0.51
            assert float(s[y, x]) == pytest.approx(saturation * 255, abs=0.51)
            assert float(v[y, x]) == pytest.approx(value * 255)
    grey = torch.full((3, 2, 2), 9.0)
    assert [t.unique().tolist() for t in rgb_to_hsv(grey)] == [[0], [0], [9]]
    # Hue has 180 steps of 2 degrees: the way back is exact to that.
    assert (hsv_to_rgb(h, s, v) - rgb).abs().max() <= 6


class _Scripted:
    """Replaces the coins and draws of PhotometricDistortion."""

    def __init__(self, monkeypatch, coins: list[bool], uniform: float):
        from litevit.data import dense_transforms

        self.coins, self.ranges = iter(coins), []
        monkeypatch.setattr(dense_transforms, "_coin", lambda: next(self.coins))
        monkeypatch.setattr(dense_transforms, "_uniform", lambda low, high: self.ranges.append((low, high)) or uniform)


def test_brightness_adds_and_clips(monkeypatch) -> None:
    script = _Scripted(monkeypatch, [True, False, False, False, False], 20.7)
    image = torch.tensor([0, 100, 250], dtype=torch.uint8).view(1, 1, 3).expand(3, 1, 3)
    out, _ = PhotometricDistortion()(image, {})
    assert script.ranges == [(-32, 32)]
    assert out[0, 0].tolist() == [20, 120, 255], "clipped, then cut to integers"


def test_contrast_before_or_after_saturation(monkeypatch) -> None:
    image = torch.tensor([200, 100, 60], dtype=torch.uint8).view(3, 1, 1)
    script = _Scripted(monkeypatch, [False, True, True, False, False], 1.5)  # contrast first, no saturation, no hue
    out, _ = PhotometricDistortion()(image, {})
    assert script.ranges == [(0.5, 1.5)]
    assert out.flatten().tolist() == [255, 150, 90]
    script = _Scripted(monkeypatch, [False, False, True, False, True], 0.5)  # saturation, then contrast
    out, _ = PhotometricDistortion()(image, {})
    assert script.ranges == [(0.5, 1.5), (0.5, 1.5)]
    assert next(script.coins, None) is None
    # Saturation 179/255 halved to 89: the smallest channel rises from 60 to 130; then all are halved.
    assert out.flatten().tolist() == [100, 75, 65]


def test_hue_turns_within_18_of_180(monkeypatch) -> None:
    image = torch.tensor([255, 0, 0], dtype=torch.uint8).view(3, 1, 1)
    seen = set()
    for seed in range(200):
        _Scripted(monkeypatch, [False, False, False, True, False], 1.0)
        torch.manual_seed(seed)
        out, _ = PhotometricDistortion()(image, {})
        hue = int(rgb_to_hsv(out.as_subclass(Tensor).float())[0])
        seen.add(hue if hue < 90 else hue - 180)
    assert min(seen) == -18
    assert max(seen) == 18


def test_each_distortion_has_probability_one_half() -> None:
    torch.manual_seed(0)
    image = torch.full((3, 1, 1), 128, dtype=torch.uint8)  # grey: saturation and hue change nothing
    same = np.mean([int(PhotometricDistortion()(image, {})[0][0, 0, 0]) == 128 for _ in range(600)])
    assert 0.2 < same < 0.31, "neither brightness nor contrast: 1/4"
