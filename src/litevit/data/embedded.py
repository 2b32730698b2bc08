"""Real images that come with the installation: scikit-learn's handwritten digits (UCI, Alpaydin and Kaynak)."""

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

HELD_OUT = 360  # of 1,797


def digits_split() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The images, the labels, and which of them are held out: a fixed split with the same share of every class.

    Returns:
        images: (1797, 8, 8) uint8, 0-255; labels: (1797,) int64; held_out: (1797,) bool with 360 set.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise ImportError("The handwritten digits come with scikit-learn: pip install 'litevit[train]'") from error
    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    _, held = train_test_split(np.arange(len(labels)), test_size=HELD_OUT, random_state=0, stratify=labels)
    held_out = np.zeros(len(labels), dtype=bool)
    held_out[held] = True
    return images, labels, held_out


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
