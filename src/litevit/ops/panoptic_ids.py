"""COCO's panoptic PNG: a segment id is stored as red + 256 * green + 256^2 * blue; id 0 is void."""

import numpy as np

MAX_ID = 256**3 - 1


def ids_to_rgb(ids: np.ndarray) -> np.ndarray:
    """Args: ids: (H, W) integers in [0, 256^3). Returns: (H, W, 3) uint8."""
    if ids.size and (ids.min() < 0 or ids.max() > MAX_ID):
        raise ValueError(f"Segment ids must be in [0, {MAX_ID}] to fit a PNG, got {ids.min()} to {ids.max()}")
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)


def rgb_to_ids(rgb: np.ndarray) -> np.ndarray:
    """Args: rgb: (H, W, 3) uint8. Returns: (H, W) int64."""
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ValueError(f"A panoptic PNG must be 8-bit RGB, (H, W, 3) uint8; got {rgb.shape} {rgb.dtype}")
    wide = rgb.astype(np.int64)
    return wide[..., 0] | wide[..., 1] << 8 | wide[..., 2] << 16
