"""Which images a file takes: batch and sides that are free within bounds, or fixed."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

TRACED = (107, 133)  # height and width of the images a free file is traced on: odd, not square, in no verification
LARGEST = 4096  # side, and
MOST = 4096  # images, of a free axis


@dataclass(frozen=True, kw_only=True)
class InputShape:
    """None: free."""

    batch: int | None = None
    size: tuple[int, int] | None = None  # height, width
    smallest: int = 64  # side, where free
    uint8: bool = False  # RGB bytes instead of normalised floats

    @property
    def fixed(self) -> bool:
        return self.batch is not None and self.size is not None

    def example(self) -> Tensor:
        """A batch to trace with: of two images where the batch is free, because one would be taken for a constant."""
        H, W = self.size or (max(TRACED[0], self.smallest + 11), max(TRACED[1], self.smallest + 37))
        shape = (self.batch or 2, 3, H, W)
        if self.uint8:
            return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        return torch.randn(shape, generator=torch.Generator().manual_seed(0))

    def dynamic(self) -> dict[int, torch.export.Dim] | None:
        """As `torch.export` takes it, of the one input."""
        axes = {}
        if self.batch is None:
            axes[0] = torch.export.Dim("batch", min=1, max=MOST)
        if self.size is None:
            axes[2] = torch.export.Dim("height", min=self.smallest, max=LARGEST)
            axes[3] = torch.export.Dim("width", min=self.smallest, max=LARGEST)
        return axes or None

    def check(self, images: Tensor, name: str) -> None:
        """Raises ValueError unless a file of this shape takes these images."""
        ok = images.ndim == 4 and images.shape[1] == 3
        ok = ok and images.dtype == (torch.uint8 if self.uint8 else torch.float32)
        ok = ok and self.batch in (None, images.shape[0])
        ok = ok and (min(images.shape[2:]) >= self.smallest if self.size is None else images.shape[2:] == self.size)
        if not ok:
            raise ValueError(
                f"{name} takes {self.describe()}, got {images.dtype} {tuple(images.shape)}".replace("torch.", "")
            )

    def describe(self) -> str:
        kind = "uint8 RGB" if self.uint8 else "normalised float32"
        batch = "any number of" if self.batch is None else f"exactly {self.batch}"
        sides = (
            f"sides of at least {self.smallest} pixels"
            if self.size is None
            else f"{self.size[0]} x {self.size[1]} pixels"
        )
        return f"{kind} images (B, 3, H, W), {batch} {'image' if self.batch == 1 else 'images'} with {sides}"


def smallest_side(model: nn.Module) -> int:
    """Least side of a free file: below, a map is one cell or window wide, which the exporter takes for a constant."""
    backbone = getattr(model, "backbone", model)
    features: Any = getattr(backbone, "features", ())
    config = getattr(backbone, "config", None)
    if len(features) != 4:
        return 64
    sides = [2 * features[-1].stride]
    for feature, window in zip(features, getattr(config, "window_sizes", ())):
        if window > 1:
            sides.append(feature.stride * (window + 1))
    strides = getattr(getattr(model, "rpn", model), "strides", ())  # of a detector's pyramid
    return max([*sides, *(stride + 1 for stride in strides)])
