"""How COCO stores masks: polygons and run lengths of objects, PNGs of segment ids (id = R + 256 G + 256^2 B; 0 = void).

Polygons and run lengths are rasterised by faster-coco-eval's mask code, bit for bit pycocotools'.
"""

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from litevit.data.images import open_stored
from litevit.files import whole_file
from litevit.ops.panoptic_ids import ids_to_rgb, rgb_to_ids

MAX_PIXELS = 2**28  # more than Pillow opens
MAX_COORDINATE = 1_000_000  # of polygons: the codec walks along their edges pixel by pixel


def mask_codec() -> Any:
    """faster-coco-eval's mask functions (encode, decode, merge, area, segmToRle)."""
    try:
        from faster_coco_eval import mask
    except ImportError as error:
        raise ImportError("COCO masks need faster-coco-eval: pip install 'litevit[coco]'") from error
    return mask


def segmentation_to_rle(segmentation: Any, height: int, width: int) -> dict[str, Any] | None:
    """Polygons, uncompressed or compressed run lengths -> one compressed run length.

    Polygons of fewer than three points have no inside and are left out; None when nothing is left.
    """
    codec = mask_codec()
    if not (0 < height <= MAX_COORDINATE and 0 < width <= MAX_COORDINATE and height * width <= MAX_PIXELS):
        raise ValueError(f"a mask has 1 to {MAX_PIXELS:,} pixels, got {height} x {width}")
    if isinstance(segmentation, list):
        for polygon in segmentation:
            _check_polygon(polygon)
        # Six numbers at least: the codec would read four as a box.
        polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
        return codec.merge(codec.frPyObjects(polygons, height, width)) if polygons else None
    if isinstance(segmentation, dict) and {"size", "counts"} <= segmentation.keys():
        size, counts = segmentation["size"], segmentation["counts"]
        if size not in ([height, width], (height, width)):
            raise ValueError(f"a run-length mask is {size!r:.60} (height, width), its image {[height, width]}")
        if isinstance(counts, str | bytes):
            return segmentation
        if not isinstance(counts, list) or not all(isinstance(n, int) for n in counts):
            raise ValueError(f"run lengths are a list of whole numbers, or compressed a string, got {counts!r:.60}")
        if sum(counts) != height * width or min(counts, default=0) < 0:
            raise ValueError(
                f"the run lengths of a mask add up to {sum(counts)}, "
                f"its image has {height} x {width} = {height * width} pixels"
            )
        return codec.frPyObjects(segmentation, height, width)
    raise ValueError(
        f"a segmentation is a list of polygons or a run length with size and counts, got {segmentation!r:.60}"
    )


def _check_polygon(polygon: Any) -> None:
    if not isinstance(polygon, list) or not all(isinstance(v, int | float) for v in polygon):
        raise ValueError(f"a polygon is a list of numbers x1, y1, x2, y2, ..., got {polygon!r:.60}")
    if len(polygon) % 2:
        raise ValueError("a polygon has an odd number of coordinates; x1, y1, x2, y2, ... are needed")
    if not all(abs(v) <= MAX_COORDINATE for v in polygon):  # nan is not
        raise ValueError(
            f"the coordinates of a polygon must be finite and at most {MAX_COORDINATE:,}, got {polygon!r:.60}"
        )


def decode_masks(rles: Sequence[dict[str, Any] | None], height: int, width: int) -> Tensor:
    """Returns: (N, H, W) bool; an entry None is an empty mask."""
    masks = torch.zeros((len(rles), height, width), dtype=torch.bool)
    for mask, rle in zip(masks, rles):
        if rle is None:
            continue
        try:
            decoded = mask_codec().decode(rle)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"a compressed run-length mask cannot be decoded: {error}") from None
        mask.copy_(torch.from_numpy(decoded))
    return masks


def encode_masks(masks: Tensor) -> list[dict[str, Any]]:
    """(N, H, W) bool -> compressed run lengths with `counts` as str, ready for JSON."""
    codec = mask_codec()
    if len(masks) == 0:
        return []
    fortran = np.asfortranarray(masks.to("cpu", torch.uint8).permute(1, 2, 0).numpy())
    return [
        {
            "size": list(rle["size"]),
            "counts": rle["counts"].decode() if isinstance(rle["counts"], bytes) else rle["counts"],
        }
        for rle in codec.encode(fortran)
    ]


def read_panoptic_png(path: str | os.PathLike, *, listed: Collection[int] | None = None) -> np.ndarray:
    """Returns: (H, W) int64 segment ids, 0 = void.

    Tools that make PNGs small turn RGB into grey or a palette, and others write the ids themselves as grey values or
    palette indices. Which it is, is decided by the ids that must be there.

    Args:
        listed: the ids that the JSON lists; None: grey values and palette indices are ids.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"panoptic map {path} does not exist")
    with open_stored(path, "panoptic map") as file:
        mode, pixels = file.mode, np.array(file)
        rgb = np.array(file.convert("RGB")) if mode in ("RGB", "RGBA", "L", "P") else None
    if mode in ("RGB", "RGBA"):
        assert rgb is not None
        return rgb_to_ids(rgb)
    if mode not in ("L", "P", "I", "I;16", "1"):
        raise ValueError(f"panoptic map {path} has mode {mode}; an RGB, grey or palette PNG of segment ids is needed")
    values = pixels.astype(np.int64)
    if listed is None or rgb is None or set(np.unique(values).tolist()) <= {0, *listed}:
        return values
    colours = rgb_to_ids(rgb)
    return colours if set(np.unique(colours).tolist()) <= {0, *listed} else values


def write_panoptic_png(path: str | os.PathLike, ids: np.ndarray) -> None:
    """(H, W) segment ids below 2^24 -> RGB PNG."""
    with whole_file(path) as temporary:
        Image.fromarray(ids_to_rgb(ids)).save(temporary, format="PNG")
