"""Tiny data sets, written by hand, with everything COCO's format allows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


def write_image(path: Path, height: int, width: int, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng((seed, height, width))
    Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed counts, by a plain loop over columns."""
    counts, current, run = [], 0, 0
    for value in mask.astype(int).ravel(order="F").tolist():
        if value == current:
            run += 1
        else:
            counts.append(run)
            current, run = value, 1
    return [*counts, run]


@pytest.fixture
def coco_content() -> dict[str, Any]:
    """Three images: two objects and a crowd; nothing; one object given as compressed run lengths."""
    from faster_coco_eval import mask as codec

    crowd = np.zeros((40, 60), dtype=bool)
    crowd[20:30, 40:60] = True
    small = np.zeros((50, 34), dtype=bool)
    small[5:9, 10:13] = True
    compressed = codec.encode(np.asfortranarray(small.astype(np.uint8)))
    counts = compressed["counts"]
    return {
        "images": [
            {"id": 70, "file_name": "c.png", "height": 50, "width": 34},
            {"id": 5, "file_name": "a.png", "height": 40, "width": 60},
            {"id": 12, "file_name": "b.png", "height": 40, "width": 60},
        ],
        "categories": [{"id": 90, "name": "zebra"}, {"id": 2, "name": "ant"}, {"id": 17, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 90, "bbox": [10, 5, 20, 10], "area": 200, "iscrowd": 0,
             "segmentation": [[10, 5, 30, 5, 30, 15, 10, 15]]},
            {"id": 2, "image_id": 5, "category_id": 2, "bbox": [0.5, 20, 8, 12], "area": 48, "iscrowd": 0,
             "segmentation": [[0.5, 20, 8.5, 20, 8.5, 32], [2, 22, 3, 23]]},  # the second has two points
            {"id": 3, "image_id": 5, "category_id": 2, "bbox": [40, 20, 20, 10], "area": 200, "iscrowd": 1,
             "segmentation": {"size": [40, 60], "counts": run_lengths(crowd)}},
            {"id": 4, "image_id": 70, "category_id": 17, "bbox": [10, 5, 3, 4], "area": 12, "iscrowd": 0,
             "segmentation": {"size": [50, 34], "counts": counts.decode() if isinstance(counts, bytes) else counts}},
        ],
    }  # fmt: skip


@pytest.fixture
def write_coco_set(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    def write(content: Any, *, split: str = "train") -> tuple[Path, Path]:
        """Returns: folder of images, annotation file. A str is written as it is."""
        images, file = tmp_path / f"{split}2017", tmp_path / "annotations" / f"instances_{split}2017.json"
        file.parent.mkdir(exist_ok=True)
        images.mkdir(exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        if isinstance(content, dict):
            for number, image in enumerate(content.get("images", [])):
                write_image(images / image["file_name"], image["height"], image["width"], seed=number)
        return images, file

    return write


@pytest.fixture
def panoptic_content() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """One image with a thing, a crowd of things, two kinds of stuff and void; ids above 65535 are used."""
    ids = np.zeros((40, 60), dtype=np.int64)
    ids[:20] = 70_000
    ids[20:38] = 7
    ids[5:15, 10:30] = 300
    ids[25:30, 40:60] = 9
    segments = [
        {"id": 70_000, "category_id": 100, "bbox": [0, 0, 60, 20], "area": int((ids == 70_000).sum()), "iscrowd": 0},
        {"id": 7, "category_id": 92, "bbox": [0, 20, 60, 18], "area": int((ids == 7).sum()), "iscrowd": 0},
        {"id": 300, "category_id": 44, "bbox": [10, 5, 20, 10], "area": 200, "iscrowd": 0},
        {"id": 9, "category_id": 3, "bbox": [40, 25, 20, 5], "area": 100, "iscrowd": 1},
    ]
    content = {
        "images": [{"id": 5, "file_name": "a.png", "height": 40, "width": 60}],
        "annotations": [{"image_id": 5, "file_name": "a.png", "segments_info": segments}],
        "categories": [
            {"id": 100, "name": "sky", "isthing": 0},
            {"id": 44, "name": "cup", "isthing": 1},
            {"id": 3, "name": "car", "isthing": 1},
            {"id": 92, "name": "grass", "isthing": 0},
            {"id": 95, "name": "sea", "isthing": 0},
        ],
    }
    return content, {"a.png": ids}


@pytest.fixture
def write_panoptic_set(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    def write(content: dict[str, Any], maps: dict[str, np.ndarray]) -> tuple[Path, Path]:
        images, file = tmp_path / "train2017", tmp_path / "annotations" / "panoptic_train2017.json"
        folder = file.with_suffix("")
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
        for image in content["images"]:
            write_image(images / image["file_name"], image["height"], image["width"])
        for name, ids in maps.items():
            rgb = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)
            Image.fromarray(rgb).save(folder / name)
        return images, file

    return write


@pytest.fixture
def ade_root(tmp_path: Path) -> Path:
    """ADE20K's layout: three classes, values 0 (ignore) to 3."""
    for split, names in (("training", ("x", "y")), ("validation", ("z",))):
        for number, name in enumerate(names):
            write_image(tmp_path / "images" / split / f"{name}.jpg", 24 + 8 * number, 40, seed=ord(name))
            mask = np.zeros((24 + 8 * number, 40), dtype=np.uint8)
            mask[4:10], mask[10:18], mask[18:] = 1, 2, 3
            folder = tmp_path / "annotations" / split
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(folder / f"{name}.png")
    (tmp_path / "classes.json").write_text('{"1": "wall", "2": "floor", "3": "tree"}')
    return tmp_path
