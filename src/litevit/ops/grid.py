"""Sizes of images and grids: what is legal, and padding and cropping at any size.

While a model is compiled, exported or traced for all sizes, padding is written down whether a size needs it or not, and
nothing asks for the size: a branch would make a graph per case. Shapes: B batch, H x W grid, C channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def in_one_graph() -> bool:
    """Whether one graph for all sizes is being made: by torch.compile, torch.export or torch.jit.trace."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def recorded_once() -> bool:
    """Whether it is a program, which nobody makes anew for another size: torch.export's or torch.jit.trace's."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()


def check_images(name: str, images: Tensor, *, in_chans: int, least: int) -> None:
    """Raises ValueError for anything but (B, in_chans, H, W) with B at least 1, H and W at least `least` pixels."""
    if in_one_graph():
        return
    if images.ndim != 4 or images.shape[1] != in_chans or min(images.shape[2:]) < least:
        raise ValueError(
            f"{name}: images must be (B, {in_chans}, H, W) with H and W at least {least}, got {tuple(images.shape)}"
        )
    if images.shape[0] == 0:
        raise ValueError(f"{name}: a batch needs at least one image, got {tuple(images.shape)}")


def check_grid(name: str, x: Tensor, *, least: int) -> None:
    """Raises ValueError unless a (B, H, W, C) grid has at least `least` rows and columns."""
    if not in_one_graph() and min(x.shape[1:3]) < least:
        raise ValueError(
            f"{name}: the grid must be at least sr_ratio={least} on both sides, got {x.shape[1]} x {x.shape[2]}"
        )


def pad_images(images: Tensor, multiple: int) -> Tensor:
    """Zeros at the right and bottom, up to a multiple. Args: images: (B, C, H, W). Returns: as images."""
    H, W = images.shape[-2:]
    if in_one_graph() or H % multiple or W % multiple:
        return F.pad(images, (0, _up(W, multiple) - W, 0, _up(H, multiple) - H))
    return images


def pad_grid(x: Tensor, multiple: int) -> Tensor:
    """Zeros at the right and bottom, up to a multiple. Args: x: (B, H, W, C). Returns: as x."""
    _, H, W, _ = x.shape
    if in_one_graph() or H % multiple or W % multiple:
        return F.pad(x, (0, 0, 0, _up(W, multiple) - W, 0, _up(H, multiple) - H))
    return x


def crop_grid(x: Tensor, H: int, W: int) -> Tensor:
    """The inverse of `pad_grid`. Args: x: (B, h, w, C), h >= H and w >= W. Returns: (B, H, W, C)."""
    if in_one_graph():  # a slice would tie the graph to grids that need it, or do not
        return F.pad(x, (0, 0, 0, W - x.shape[2], 0, H - x.shape[1]))
    return x[:, :H, :W]


def _up(side: int, multiple: int) -> int:
    return (side + multiple - 1) // multiple * multiple  # a compiler sees that it is a multiple
