"""Posterising to 0 bits: what published augmentations ask for at full strength."""

import numpy as np
import pytest
import torch
from PIL import Image

from litevit.data.classification_transforms import train_transform
from litevit.data.config import Augment, ClassificationData
from litevit.data.posterize import posterize, with_posterize_to_black
from litevit.data.token_labels import TokenLabelTransform

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))


def test_bits_that_stay() -> None:
    pixels = np.asarray(IMAGE)
    for bits in range(9):
        expected = pixels & (0xFF00 >> bits & 0xFF)
        assert (np.asarray(posterize(IMAGE, bits)) == expected).all(), bits
    assert posterize(IMAGE.convert("L"), 0).getextrema() == (0, 0)


@pytest.mark.parametrize(
    ("crop", "policy"),
    [
        ("resized", "rand-m10-n6-inc1"),
        ("resized", "original"),
        ("resized", "augmix-m10"),
        ("padded", "rand-m10-n6-inc1"),
    ],
)
def test_automatic_augmentation_at_full_strength(crop: str, policy: str) -> None:
    data = ClassificationData(image_size=32, augment=Augment(auto_augment=policy, crop=crop))
    transform = train_transform(data)
    for _ in range(150):
        assert transform(IMAGE).shape == (3, 32, 32)


def test_label_maps_too() -> None:
    data = ClassificationData(image_size=32, augment=Augment(auto_augment="rand-m10-n6-inc1"))
    transform = TokenLabelTransform(data)
    for _ in range(150):
        image, _ = transform(IMAGE, torch.zeros(2, 5, 8, 8), 1)
        assert image.shape == (3, 32, 32)


def test_a_transform_without_operations_is_left_alone() -> None:
    assert with_posterize_to_black(len) is len
