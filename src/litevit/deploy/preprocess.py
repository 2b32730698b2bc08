"""Preprocessing inside a file: uint8 RGB of any size in, Pillow's resize, crop and normalisation in the graph.

Pillow resizes with two products: each row of the result is a weighted mean of rows of the image, the weights from a
filter that is as wide as the image is reduced (antialiasing). The weights of the rows that the centre crop keeps make
a matrix of a fixed height, whatever the image's size: S x H for the rows, S x W for the columns. Like Pillow's, the
result is rounded to whole levels after the columns and again after the rows.
"""

import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import to_pil_image

from litevit.checkpoints.preprocessing import Preprocessing
from litevit.deploy.graph import Graph
from litevit.jobs.preprocessing import of_classifier

FLIPPED = 0.002  # share of pixels that rounding moves by a level


def bicubic(x: Tensor) -> Tensor:
    """Pillow's: a = -0.5. Args: x: distances >= 0."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def bilinear(x: Tensor) -> Tensor:
    return (1 - x).clamp(min=0)


FILTERS = {"bilinear": bilinear, "bicubic": bicubic}


class ClassifierPreprocessing(nn.Module):
    """(B, 3, H, W) uint8 -> (B, 3, S, S) normalised, within one level of 255 of Pillow's."""

    def __init__(self, how: Preprocessing):
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        known = how.interpolation in FILTERS and how.crop_mode in ("center", "squash")
        if not known or not isinstance(how.size, int) or how.crop_pct is None:
            raise ValueError(f"preprocessing of this kind cannot be put into a file: {how}")
        self.how = how
        self.size = how.size
        self.resized = int(how.size / how.crop_pct)  # of the shorter side
        self.register_buffer("mean", torch.tensor(how.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(how.std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        h, w = _length(images, 2), _length(images, 3)
        short = torch.minimum(h, w)
        squash = self.how.crop_mode == "squash"
        new_h, new_w = (torch.full_like(side, self.size) if squash else self.resized * side // short for side in (h, w))
        x = images.to(self.mean.dtype)
        x = _whole(x @ self.weights(images.shape[3], w, new_w).T)
        x = _whole(self.weights(images.shape[2], h, new_h) @ x)
        return (x / 255 - self.mean) / self.std

    def weights(self, length: int, side: Tensor, new: Tensor) -> Tensor:
        """(S, length): of the pixels of a side in those of the crop of the resized side.

        Args:
            length: of the side; `side` is the same as a tensor.
            new: length of the resized side.
        """
        S, dtype = self.size, self.mean.dtype
        first = torch.round((new - S) / 2).long()
        # The centre of pixel j of the result lies at (j + 1/2) * side / new; in integers, because float32 has too few
        # digits for large images.
        numerator = (2 * (torch.arange(S, device=side.device) + first) + 1) * side
        whole = numerator // (2 * new)
        part = (numerator - whole * 2 * new).to(dtype) / (2 * new).to(dtype)
        distance = (torch.arange(length, device=side.device) - whole[:, None]).to(dtype) + 0.5 - part[:, None]
        reduced = (side.to(dtype) / new.to(dtype)).clamp(min=1)
        weight = FILTERS[self.how.interpolation]((distance / reduced).abs())
        return weight / weight.sum(1, keepdim=True)


class PreprocessedGraph(Graph):
    """A classifier with its preprocessing in front: (B, 3, H, W) uint8 RGB, any H x W."""

    def __init__(self, inner: Graph, how: Preprocessing):
        super().__init__(inner.model, inner.task, inner.names)
        self.prepare = ClassifierPreprocessing(how)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return super().forward(self.prepare(images))

    @torch.no_grad()
    def reference(self, images: Tensor) -> dict[str, Tensor]:
        """In float64, from which the tolerance comes, with a few pixels one level off: an engine's sum may fall on the
        other side of a half, and so may Pillow's."""
        x = self.prepare(images)
        if x.dtype == torch.float64:
            random = torch.Generator().manual_seed(0)
            moved = torch.rand(x.shape, generator=random) < FLIPPED
            level = torch.randint(0, 2, x.shape, generator=random) * 2 - 1
            x = x + moved * level / (255 * self.prepare.std)
        return dict(zip(self.names, super().forward(x), strict=True))

    @torch.no_grad()
    def levels_from_pillow(self, images: Tensor) -> float:
        """Largest distance from what Pillow makes of these images, in levels of 255. Args: images: uint8."""
        pillow = of_classifier(self.prepare.how)
        ours = self.prepare(images)
        theirs = torch.stack([pillow(to_pil_image(image)) for image in images])
        return float(((ours - theirs).abs() * self.prepare.std * 255).max())


def _length(x: Tensor, axis: int) -> Tensor:
    """The length of an axis as a tensor, which every format can hold where it is free."""
    return torch.arange(x.shape[axis], device=x.device)[-1] + 1


def _whole(x: Tensor) -> Tensor:
    """Levels 0..255, rounded half up as Pillow's integers."""
    return (x + 0.5).floor().clamp(0, 255)
