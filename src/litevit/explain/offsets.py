"""Looking inside models.

Deformable token merging (LIT, arXiv:2105.14217, fig. 4): which pixels a token of the last stage was made from.
"""

import numpy as np
import torch
from torch import Tensor, nn

from litevit.layers.deformable_merging import DeformableTokenMerging


@torch.no_grad()
def merging_offsets(backbone: nn.Module, images: Tensor) -> list[Tensor]:
    """Offsets that the three deformable mergings of a backbone predict.

    Args:
        backbone: LIT, LITv2 or another model with `DeformableTokenMerging` layers, in eval mode.
        images: (B, 3, H, W), normalised.

    Returns:
        One (B, h, w, 8) per merging, first to last: dy, dx of the four taps, in cells of the map that is read.

    Raises:
        ValueError: a model without such layers.
    """
    found: list[Tensor] = []
    merges = [m for m in backbone.modules() if isinstance(m, DeformableTokenMerging)]
    if not merges:
        raise ValueError("The model has no deformable token merging, so there are no offsets to look at")
    hooks = [
        m.register_forward_pre_hook(lambda module, args: found.append(module.predict_offset(args[0]))) for m in merges
    ]
    try:
        backbone(images)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def sampling_chain(offsets: list[Tensor], *, row: int, column: int) -> np.ndarray:
    """The cells of the first map that one cell of the last map was merged from.

    Each merging reads four points per cell; a point is rounded to the nearest cell (half to even) before it is followed
    into the map below, and left out when it falls outside, where merging reads zeros.

    Args:
        offsets: (h, w, 8) or (1, h, w, 8) per merging, first to last, as `merging_offsets` gives them.
        row, column: the cell of the last map.

    Returns:
        (n, 2), n <= 4 ** len(offsets): row and column in the first map, fractional and possibly outside it.
    """
    points = np.array([[row, column]], dtype=np.float64)
    for level in reversed(offsets):
        grid = level.detach().cpu().double().numpy().reshape(*level.shape[-3:-1], 4, 2)
        cells = np.rint(points).astype(int)
        cells = cells[(cells >= 0).all(1) & (cells < grid.shape[:2]).all(1)]
        corner = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
        points = (2 * cells[:, None] + corner + grid[cells[:, 0], cells[:, 1]]).reshape(-1, 2)
    return points


def chain_pixels(points: np.ndarray, *, image_size: tuple[int, int], patch_size: int = 4) -> np.ndarray:
    """Pixels to mark for points of the first map: centres of its patches, inside the image and off its border.

    Args:
        points: (n, 2) of `sampling_chain`.
        image_size: (H, W).
        patch_size: pixels per cell of the first map.

    Returns:
        (m, 2) int64, m <= n: x and y.
    """
    pixels = np.rint(patch_size * points + patch_size / 2).astype(np.int64)
    size = np.array(image_size)
    pixels = pixels[((pixels >= 0) & (pixels < size)).all(1)]
    return np.clip(pixels, 1, size - 2)[:, ::-1].copy()
