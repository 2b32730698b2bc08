"""Hostile COCO JSON: types, numbers and nesting that nobody meant, run lengths that claim more than the mask, names that climb out."""

import json
import random
from pathlib import Path
from typing import Any

from PIL import Image

from hostile.arena import Kind
from hostile.mutations import json_bytes, names
from litevit.data.class_names import read_class_list
from litevit.data.coco import CocoInstances
from litevit.data.doctor import examine
from litevit.data.doctor.fix import mend
from litevit.data.layouts import layouts_of

SIZES = {"a.png": (48, 40), "b.jpg": (40, 40), "deep/c.png": (33, 64)}  # width, height


def prepare(seeds: Path) -> None:
    for name, size in SIZES.items():
        (seeds / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.linear_gradient("L").resize(size).convert("RGB").save(seeds / "images" / name)
    turned = Image.new("RGB", (64, 33))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(seeds / "images" / "deep" / "c.png", exif=exif)


def content() -> dict[str, Any]:
    images = [
        {"id": n, "file_name": name, "width": w, "height": h} for n, (name, (w, h)) in enumerate(SIZES.items(), 1)
    ]
    box = {"bbox": [2, 3, 20, 25], "area": 500, "iscrowd": 0}
    polygon = [[2, 3, 22, 3, 22, 28, 2, 28]]
    return {
        "info": {"year": 2020},
        "images": images,
        "categories": [{"id": 1, "name": "cat", "supercategory": "animal"}, {"id": 7, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, **box, "segmentation": polygon},
            {"id": 2, "image_id": 1, "category_id": 7, **box, "segmentation": {"size": [40, 48], "counts": [100, 50, 1770]}},
            {"id": 3, "image_id": 2, "category_id": 7, **box, "segmentation": {"size": [40, 40], "counts": [100, 50, 1450]}, "iscrowd": 1},
            {"id": 4, "image_id": 3, "category_id": 1, **box, "segmentation": polygon},
        ],
    }  # fmt: skip


NUMBERS = (
    0,
    -1,
    1,
    39,
    40,
    48,
    10**6,
    10**9,
    2**31,
    2**63,
    10**30,
    10**400,
    0.5,
    1e300,
    1e-300,
    float("nan"),
    float("inf"),
    "5",
    "nan",
    True,
    None,
)


def masks(draw: random.Random) -> Any:
    """Segmentations that lie."""
    deed = draw.randrange(6)
    if deed == 0:  # claims more than there is
        size = [draw.choice((40, 0, -1, 48, 10**6, 2**31, 2**40)) for _ in range(draw.choice((2, 2, 1, 3)))]
        return {
            "size": draw.choice((size, [40, 48], [40, 40])),
            "counts": [
                draw.choice((0, 1, 1920, 1600, -5, 2**31, 2**32, 2**63, 10**30, 1.5)) for _ in range(draw.randrange(5))
            ],
        }
    if deed == 1:
        text = "".join(
            chr(draw.choice((48, 49, 79, 80, 95, 111, 120, 32, 127, 200, 255, 0x4E00)))
            for _ in range(draw.randrange(40))
        )
        return {"size": draw.choice(([40, 48], [40, 40], [64, 33])), "counts": text}
    if deed == 2:
        return [
            [draw.choice(NUMBERS) for _ in range(draw.choice((5, 6, 8, 4, 0, 1)))] for _ in range(draw.randrange(3))
        ]
    if deed == 3:
        return [[draw.choice((-1e6, 1e6, 0, 20.5)) for _ in range(draw.choice((6, 8, 20)))]]
    if deed == 4:
        return {
            "size": [40, 48],
            "counts": draw.choice(("", "0", "o" * 5000, "P" * 100, [1920], [0] * 5000 + [1920], [])),
        }
    return draw.choice(
        (None, [], {}, "", 7, [None], [[]], [{}], [[[1, 2], [3, 4], [5, 6]]], {"counts": "0"}, {"size": [40, 48]})
    )


def build(draw: random.Random, folder: Path) -> bytes:
    told = content()
    for _ in range(draw.randrange(3)):
        entry = draw.choice(told["annotations"])
        deed = draw.randrange(6)
        if deed <= 1:
            entry["segmentation"] = masks(draw)
        elif deed == 2:
            entry["bbox"] = [draw.choice(NUMBERS) for _ in range(draw.choice((4, 4, 4, 3, 5)))]
        elif deed == 3:
            draw.choice(told["images"])["file_name"] = names(draw, folder)
        elif deed == 4:
            draw.choice(told["images"])[draw.choice(("width", "height", "id"))] = draw.choice(NUMBERS)
        else:
            entry[draw.choice(("area", "iscrowd", "category_id", "image_id", "id"))] = draw.choice(NUMBERS)
    if draw.random() < 0.6:
        return json_bytes(draw, told, folder)
    return json.dumps(told).encode()


def take(root: Path, file: Path, draw: random.Random, folder: Path) -> None:
    way = draw.randrange(8)
    if way == 0:
        examine(root)
    elif way == 1:
        mend(root, folder / "mended")
    elif way == 2:
        read_class_list(file)
    elif way == 3:
        for layout in layouts_of(root):
            repr(layout)
    else:
        data = CocoInstances(root / "images", file, train=way < 6, keep_empty=way == 4, masks=way != 7)
        _ = data.without_masks, data.aspect_ratios
        for index in range(len(data)):
            data[index]


def attack(draw: random.Random, seeds: Path, folder: Path) -> None:
    root = folder / "set"
    (root / "annotations").mkdir(parents=True)
    (root / "images").symlink_to(seeds / "images")
    file = root / "annotations" / "instances_train.json"
    file.write_bytes(build(draw, folder))
    take(root, file, draw, folder)


KIND = Kind("coco", attack, prepare, inputs=6000, share=100)
