"""Hostile panoptic annotations: the JSON, the PNGs of segment ids, and what panoptic quality reads of both."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hostile.arena import Kind
from hostile.kinds.images import png
from hostile.mutations import corrupt, json_bytes, names
from litevit.data.coco_masks import read_panoptic_png, write_panoptic_png
from litevit.data.coco_panoptic import CocoPanoptic
from litevit.data.doctor import examine
from litevit.data.doctor.fix import mend
from litevit.metrics import panoptic_quality

NUMBERS = (
    0,
    -1,
    1,
    2,
    255,
    256,
    257,
    2**24 - 1,
    2**24,
    2**31,
    2**63,
    10**30,
    10**400,
    1.5,
    float("nan"),
    float("inf"),
    "7",
    None,
    True,
    [1],
)


def prepare(seeds: Path) -> None:
    (seeds / "images").mkdir()
    for n in (1, 2):
        Image.linear_gradient("L").resize((48, 40)).convert("RGB").save(seeds / "images" / f"{n}.png")
    ids = np.zeros((40, 48), np.int64)
    ids[:20], ids[20:, :24], ids[30:, 30:] = 7, 300, 70_000
    write_panoptic_png(seeds / "map.png", ids)


def content() -> dict[str, Any]:
    segments = [
        {"id": 7, "category_id": 2, "area": 960, "bbox": [0, 0, 48, 20], "iscrowd": 0},
        {"id": 300, "category_id": 1, "area": 480, "bbox": [0, 20, 24, 20], "iscrowd": 0},
        {"id": 70_000, "category_id": 1, "area": 180, "bbox": [30, 30, 18, 10], "iscrowd": 1},
    ]
    return {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 48, "height": 40} for n in (1, 2)],
        "categories": [{"id": 1, "name": "cat", "isthing": 1}, {"id": 2, "name": "sky", "isthing": 0}],
        "annotations": [{"image_id": n, "file_name": f"{n}.png", "segments_info": segments} for n in (1, 2)],
    }


def map_bytes(draw: random.Random, seeds: Path) -> bytes:
    whole = (seeds / "map.png").read_bytes()
    deed = draw.randrange(8)
    if deed == 0:
        return png(draw)
    if deed == 1:
        return corrupt(draw, whole)
    if deed == 2:  # another mode, size or format
        file = seeds / "map.png"
        image = Image.open(file).convert(draw.choice(("L", "P", "RGBA", "1", "I", "CMYK", "LA", "F")))
        image = image.resize(draw.choice(((48, 40), (40, 48), (1, 1), (48, 41))), Image.Resampling.NEAREST)
        import io

        buffer = io.BytesIO()
        image.save(buffer, draw.choice(("PNG", "TIFF", "GIF")) if image.mode in ("L", "P", "1") else "TIFF")
        return buffer.getvalue()
    return whole


def build(draw: random.Random, folder: Path) -> bytes:
    told = json.loads(json.dumps(content()))
    for _ in range(draw.randrange(3)):
        annotation = draw.choice(told["annotations"])
        segment = draw.choice(annotation["segments_info"])
        deed = draw.randrange(5)
        if deed == 0:
            annotation["file_name"] = names(draw, folder)
        elif deed == 1:
            draw.choice(told["images"])[draw.choice(("file_name", "id", "width", "height"))] = draw.choice(
                (*NUMBERS, names(draw, folder))
            )
        elif deed == 2:
            segment["bbox"] = [draw.choice(NUMBERS) for _ in range(draw.choice((4, 4, 3)))]
        elif deed == 3:
            draw.choice(told["categories"])[draw.choice(("id", "isthing", "name"))] = draw.choice(NUMBERS)
        else:
            segment[draw.choice(("id", "category_id", "area", "iscrowd"))] = draw.choice(NUMBERS)
    return json_bytes(draw, told, folder) if draw.random() < 0.5 else json.dumps(told).encode()


def take(root: Path, file: Path, draw: random.Random, folder: Path) -> None:
    maps = file.with_suffix("")
    way = draw.randrange(7)
    if way == 0:
        examine(root)
    elif way == 1:
        mend(root, folder / "mended")
    elif way == 2:
        told = json.loads(json.dumps(content()))
        hostile = _loaded(file)
        panoptic_quality(*((hostile, maps, told, maps) if draw.random() < 0.5 else (told, maps, hostile, maps)))
    elif way == 3:
        read_panoptic_png(maps / "1.png", listed=[7, 300, 70_000])
    else:
        data = CocoPanoptic(root / "images", file, train=way == 4)
        _ = data.aspect_ratios
        for index in range(len(data)):
            data[index]


def _loaded(file: Path) -> Any:
    from litevit.data.coco_entries import read_json

    return read_json(file, needs=("annotations", "categories"))


def attack(draw: random.Random, seeds: Path, folder: Path) -> None:
    root = folder / "set"
    maps = root / "annotations" / "panoptic_train"
    maps.mkdir(parents=True)
    (root / "images").symlink_to(seeds / "images")
    for n in (1, 2):
        (maps / f"{n}.png").write_bytes(
            map_bytes(draw, seeds) if draw.random() < 0.3 else (seeds / "map.png").read_bytes()
        )
    file = root / "annotations" / "panoptic_train.json"
    file.write_bytes(build(draw, folder))
    take(root, file, draw, folder)


KIND = Kind("panoptic", attack, prepare, inputs=5000, share=100)
