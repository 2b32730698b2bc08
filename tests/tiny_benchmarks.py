"""Tiny ImageNet, ADE20K and COCO in their published layouts, and published files with weights made from key names.

The truth is made from what the models answer, so that figures are neither 0 nor 100.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import ImageNetInfo

import golden
import litevit
from litevit.checkpoints.published import WEIGHTS
from litevit.data.class_names import COCO_STUFF, COCO_THINGS
from litevit.data.coco_masks import write_panoptic_png

# Model -> manifest of its official file, and how the file wraps it.
OFFICIAL = {
    "lvt": ("lvt/lvt_cls", "state_dict"),
    "lit_ti": ("lit/lit_ti", "model"),
    "segformer_lvt": ("lvt/segformer_lvt", "state_dict"),
    "retinanet_lit_ti": ("dense/retinanet_lit_ti_fpn_1x_coco", "state_dict"),
    "mask_rcnn_lit_ti": ("dense/mask_rcnn_lit_ti_fpn_1x_coco", "state_dict"),
    "panoptic_fpn_lvt": ("lvt/panoptic_fpn_lvt", "state_dict"),
}


def write_weights(model: str, folder: Path) -> Path:
    """The published file of a model, under its name."""
    manifest, wrapping = OFFICIAL[model]
    path = folder / WEIGHTS[model].filename
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({wrapping: golden.official_state(manifest)}, path)
    return path


def picture(number: int, height: int, width: int) -> Image.Image:
    """Soft blobs: it survives JPEG and resizing."""
    small = np.random.default_rng(number).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def imagenet(root: Path, weights: Path, model: str = "lvt") -> float:
    """Eight validation images, each of a class of its own: six of the one that the model sees, two of the next.

    Returns: top-1 in %.
    """
    labels = ImageNetInfo("imagenet-1k").label_names()
    how, network = litevit.preprocessing(model), litevit.create_model(model, weights=weights).eval()
    taken: set[int] = set()
    for image in (picture(number, 60, 80) for number in range(99)):
        with torch.no_grad():
            seen = int(network(how(image)[None]).argmax())
        label = seen if len(taken) < 6 else seen + 1
        if label in taken:
            continue
        taken.add(label)
        path = root / "val" / labels[label] / f"ILSVRC2012_val_{len(taken):08d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        if len(taken) == 8:
            return 75.0
    raise AssertionError("too few classes")


def ade(root: Path, weights: Path, images: int = 3) -> float:
    """Validation images whose masks are what SegFormer-LVT sees, moved a little. Returns: mIoU in %."""
    network = litevit.create_model("segformer_lvt", weights=weights).eval()
    hits, union = np.zeros(150), np.zeros(150)
    for number in range(images):
        image = picture(number, 40, 56)
        with torch.no_grad():
            seen = network.segment(torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255).numpy()
        truth = np.roll(seen, 6, axis=1)
        for label in np.union1d(seen, truth):
            hits[label] += ((seen == label) & (truth == label)).sum()
            union[label] += ((seen == label) | (truth == label)).sum()
        name = f"ADE_val_{number + 1:08d}.png"
        for folder, content in (("images", image), ("annotations", Image.fromarray((truth + 1).astype(np.uint8)))):
            path = root / folder / "validation" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            content.save(path)
    return 100 * float((hits[union > 0] / union[union > 0]).mean())


def coco(root: Path, mask_rcnn: Path | None, panoptic: Path | None) -> None:
    """Two images of val2017. Objects and segments are some of what the models see; without weights there are boxes."""
    pictures = {number: picture(number, 48, 160) for number in (139, 285)}
    (root / "val2017").mkdir(parents=True)
    for number, image in pictures.items():
        image.save(root / "val2017" / f"{number:012d}.png")
    images = [
        {"id": n, "file_name": f"{n:012d}.png", "height": image.height, "width": image.width}
        for n, image in pictures.items()
    ]
    things = [{"id": i, "name": name, "isthing": 1} for i, name in COCO_THINGS.items()]
    stuff = [{"id": i, "name": name, "isthing": 0} for i, name in COCO_STUFF.items()]
    annotations: list[dict[str, Any]] = []
    for n, image in pictures.items():
        for label, (x, y, w, h) in _objects(mask_rcnn, image):
            box = [round(float(v), 2) for v in (x, y, w, h)]
            corners = [
                box[0],
                box[1],
                box[0] + box[2],
                box[1],
                box[0] + box[2],
                box[1] + box[3],
                box[0],
                box[1] + box[3],
            ]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": n, "category_id": things[label]["id"], "bbox": box,
                 "area": box[2] * box[3], "iscrowd": 0, "segmentation": [corners]}
            )  # fmt: skip
    write = {"images": images, "annotations": annotations, "categories": things}
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(write))
    if panoptic is not None:
        write |= {"categories": things + stuff, "annotations": _panoptic(root, panoptic, pictures, things + stuff)}
        (root / "annotations" / "panoptic_val2017.json").write_text(json.dumps(write))


def _objects(weights: Path | None, image: Image.Image) -> list[tuple[int, tuple[float, ...]]]:
    if weights is None:
        return [(0, (8.0, 8.0, 40.0, 30.0)), (5, (60.0, 10.0, 50.0, 30.0))]
    network = litevit.create_model("mask_rcnn_lit_ti", weights=weights).eval()
    with torch.no_grad():
        (seen,) = network([torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255])
    x, y, right, bottom = seen["boxes"].unbind(1)
    largest = ((right - x) * (bottom - y)).topk(3).indices.tolist()
    boxes = [(float(x[i]), float(y[i]), float(right[i] - x[i]), float(bottom[i] - y[i])) for i in largest]
    return [(int(seen["labels"][i]), box) for i, box in zip(largest, boxes)]


def _panoptic(root: Path, weights: Path, pictures: dict[int, Image.Image], categories: list[dict]) -> list[dict]:
    network = litevit.create_model("panoptic_fpn_lvt", weights=weights).eval()
    folder, annotations = root / "annotations" / "panoptic_val2017", []
    folder.mkdir()
    for n, image in pictures.items():
        with torch.no_grad():
            (seen,) = network([torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255])
        ids, segments = seen["panoptic"].numpy(), []
        for segment in seen["segments_info"]:
            inside = ids == segment["id"]
            if not inside.any():
                continue
            rows, columns = np.where(inside)
            box = [int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]
            segments.append(
                {"id": int(segment["id"]), "category_id": categories[segment["category_id"]]["id"], "bbox": box,
                 "area": int(inside.sum()), "iscrowd": 0}
            )  # fmt: skip
        write_panoptic_png(folder / f"{n:012d}.png", ids)
        annotations.append({"image_id": n, "file_name": f"{n:012d}.png", "segments_info": segments})
    return annotations
