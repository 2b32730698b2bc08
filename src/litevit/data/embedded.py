"""Real images that come with the package: handwritten digits of the UCI repository (`digits.LICENSE` says whose)."""

from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

DIGITS = Path(__file__).with_name("digits.npz")


def digits_split() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The images, the labels, and which of them are held out: a fixed split with the same share of every class.

    Returns:
        images: (1797, 8, 8) uint8, 0-255; labels: (1797,) int64; held_out: (1797,) bool with 360 set.
    """
    with np.load(DIGITS) as file:
        counts, labels, held_out = file["counts"], file["labels"], file["held_out"]
    # Each of the 8 x 8 values counts the inked pixels, 0..16, of a 4 x 4 block of a 32 x 32 bitmap.
    return np.round(counts * (255 / 16)).astype(np.uint8), labels.astype(np.int64), held_out


class Digits(Dataset):
    """8 x 8 digits, enlarged to square RGB images.

    Args:
        split: "train" (1,437 images) or "validation" (360).
        transform: from a PIL image to what a model takes.
    """

    classes = tuple(str(digit) for digit in range(10))

    def __init__(self, split: str, *, size: int = 32, transform=None):
        images, labels, held_out = digits_split()
        chosen = held_out if split == "validation" else ~held_out
        self.targets = labels[chosen]
        self.images = [
            Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC).convert("RGB")
            for image in images[chosen]
        ]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int):
        image = self.images[index]
        return (self.transform(image) if self.transform else image), int(self.targets[index])

    def name(self, index: int) -> str:
        return f"digit {index}"
