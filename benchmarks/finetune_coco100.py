"""A small set of people and animals from a folder in COCO's layout, to show what a start from weights gains.

    python benchmarks/finetune_coco100.py COCO OUT

OUT: the images of COCO's train2017 and val2017 that show a person or an animal (COCO's ten kinds of animals as one
class), every third one to evaluate on, all at a third of their sides so that a run takes minutes. The commands that
train on it stand beside the figures in benchmarks/results.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from litevit.data.coco_masks import decode_masks, encode_masks, segmentation_to_rle

CLASSES = {"person": 1, "animal": 2}  # COCO's supercategories
SHRINK = 3


def main(source: Path, out: Path) -> None:
    images: list[tuple[Path, dict[str, Any], list[dict[str, Any]]]] = []
    for split in ("train2017", "val2017"):
        content = json.loads((source / "annotations" / f"instances_{split}.json").read_text())
        label = {c["id"]: CLASSES[c["supercategory"]] for c in content["categories"] if c["supercategory"] in CLASSES}
        for image in content["images"]:
            objects = [
                {**entry, "category_id": label[entry["category_id"]]}
                for entry in content["annotations"]
                if entry["image_id"] == image["id"] and entry["category_id"] in label
            ]
            if objects:
                images.append((source / split / image["file_name"], image, objects))
    images.sort(key=lambda entry: entry[1]["id"])
    for split, chosen in (("val", images[::3]), ("train", [e for i, e in enumerate(images) if i % 3])):
        write(out, split, chosen)


def write(out: Path, split: str, chosen: list[tuple[Path, dict[str, Any], list[dict[str, Any]]]]) -> None:
    categories = [{"id": number, "name": name} for name, number in CLASSES.items()]
    content: dict[str, Any] = {"categories": categories, "images": [], "annotations": []}
    (out / f"{split}2017").mkdir(parents=True)
    for file, image, objects in chosen:
        width, height = round(image["width"] / SHRINK), round(image["height"] / SHRINK)
        with Image.open(file) as opened:
            small = opened.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
        small.save(out / f"{split}2017" / image["file_name"], quality=95)
        content["images"].append(image | {"width": width, "height": height})
        content["annotations"] += [shrink(entry, image, width, height) for entry in objects]
    (out / "annotations").mkdir(exist_ok=True)
    (out / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))
    for name, number in CLASSES.items():
        shown = {entry["image_id"] for entry in content["annotations"] if entry["category_id"] == number}
        count = sum(entry["category_id"] == number for entry in content["annotations"])
        print(f"{split}: {len(chosen)} images, {len(shown)} with {name} ({count} objects)")


def shrink(entry: dict[str, Any], image: dict[str, Any], width: int, height: int) -> dict[str, Any]:
    """An annotation of the smaller image: polygons and boxes by their numbers, run lengths (crowds) by their pixels."""
    x, y = width / image["width"], height / image["height"]
    new = entry | {"bbox": [v * scale for v, scale in zip(entry["bbox"], (x, y, x, y))], "area": entry["area"] * x * y}
    old = entry["segmentation"]
    if isinstance(old, list):
        return new | {"segmentation": [[v * (y if k % 2 else x) for k, v in enumerate(ring)] for ring in old]}
    mask = decode_masks([segmentation_to_rle(old, image["height"], image["width"])], image["height"], image["width"])
    rows, columns = np.arange(height) * image["height"] // height, np.arange(width) * image["width"] // width
    return new | {"segmentation": encode_masks(mask[:, rows][:, :, columns])[0]}


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
