"""COCO-format instance annotations: COCO 2017 as published, and any set written in its format.

A sample is `(image, target)`: image a uint8 `tv_tensors.Image` (3, H, W), target a dict with
    boxes     `tv_tensors.BoundingBoxes` (N, 4) float32, xyxy, pixels of the image
    labels    (N,) int64, contiguous from 0 in the order of the sorted category ids
    masks     `tv_tensors.Mask` (N, H, W) bool (only with `masks=True`)
    iscrowd   (N,) bool
    area      (N,) float64, the annotation's own area: COCO's small / medium / large are decided by it
    image_id  int
Every tensor is a plain or tv_tensor, so torchvision's v2 transforms move boxes and masks with the image. Images are
upright (EXIF), and annotations of the stored pixels are turned with them: see `litevit.data.images`.
"""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors

from litevit.data.coco_masks import decode_masks, segmentation_to_rle
from litevit.data.images import read_annotated, turn_target

MIN_TRAIN_SIDE = 32  # images with a shorter side are left out of training (mmdet 2.x and 3.x)

Fields = Mapping[str, type | tuple[type, ...]]
IMAGE: Fields = {"id": (int, str), "file_name": str, "height": int, "width": int}
CATEGORY: Fields = {"id": int, "name": str}
ANNOTATION: Fields = {"image_id": (int, str), "category_id": (int, str), "bbox": object}


def field_problem(entry: Any, fields: Fields) -> str | None:
    """What is wrong with an entry of an annotation file: a field that it lacks or that has another type; or None."""
    if not isinstance(entry, dict):
        return f"{entry!r} in place of an object"
    for name, kind in fields.items():
        if name not in entry:
            return f"no {name!r}"
        if not isinstance(entry[name], kind):
            return f"{entry[name]!r} for {name!r}"
    if not isinstance(entry.get("area"), int | float | None):
        return f"{entry['area']!r} for 'area'"
    return None


def check_entries(file: Path, entries: Sequence[Any], fields: Fields) -> None:
    for entry in entries:
        if problem := field_problem(entry, fields):
            raise ValueError(f"{file} is not in COCO's format: an entry has {problem}")


def object_area(entry: Mapping[str, Any]) -> float:
    """The entry's own area, else its box's."""
    area = entry.get("area")
    return entry["bbox"][2] * entry["bbox"][3] if area is None else area


def read_json(path: str | Path, *, needs: Sequence[str]) -> dict[str, Any]:
    """The annotation file as a dict that has the lists named in `needs`."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"annotation file {path} does not exist")
    try:
        content = json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict) or any(not isinstance(content.get(key), list) for key in needs):
        found = sorted(content) if isinstance(content, dict) else f"a {type(content).__name__}"
        raise ValueError(f"{path} is not in COCO's format: the lists {', '.join(needs)} are needed, found {found}")
    for key in needs:
        if not all(isinstance(entry, dict) for entry in content[key]):
            raise ValueError(f"{path} is not in COCO's format: every entry of {key!r} must be an object")
    return content


def box_problem(box: Any, height: int, width: int) -> str | None:
    """Why an xywh box cannot be learned from, or None. The published training skips the same boxes."""
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(isinstance(v, int | float) for v in box):
        return "not four numbers"
    x, y, w, h = box
    if not np.isfinite(box).all():
        return "not finite"
    if w < 0 or h < 0:
        return "negative size"
    if w < 1 or h < 1:
        return "narrower than one pixel"
    if min(x + w, width) - max(x, 0) <= 0 or min(y + h, height) - max(y, 0) <= 0:
        return "outside the image"
    return None


def image_order(image: dict[str, Any]) -> tuple[bool, Any]:
    """Images by ascending id, numbers before names."""
    return isinstance(image["id"], str), image["id"]


class CocoInstances(Dataset):
    """Images with instance annotations.

    Args:
        images: folder of the images.
        annotations: `instances_*.json`.
        train: leave out what the published training leaves out: crowds, boxes narrower than a pixel or outside the
            image, annotations without area, images shorter than 32 pixels on a side, and images left without objects.
            Evaluation keeps all of them, but boxes of negative size.
        keep_empty: keep images without objects in training.
        classes: names of the categories to read, in the order of their labels; the default is all, by ascending id.
        masks: read the instance masks.
        transforms: called as `transforms(image, target)`.
    """

    def __init__(
        self,
        images: str | Path,
        annotations: str | Path,
        *,
        train: bool = False,
        keep_empty: bool = False,
        classes: Sequence[str] | None = None,
        masks: bool = True,
        transforms: Callable[[Any, Any], tuple[Any, Any]] | None = None,
    ):
        self.folder, self.file = Path(images), Path(annotations)
        self.masks, self.transforms = masks, transforms
        content = read_json(self.file, needs=("images", "annotations", "categories"))
        if not content["images"]:
            raise ValueError(f"{self.file} lists no images")
        for key, fields in (("images", IMAGE), ("categories", CATEGORY), ("annotations", ANNOTATION)):
            check_entries(self.file, content[key], fields)
        self._read(content, train=train, keep_empty=keep_empty, classes=classes)
        if not self.images:
            raise ValueError(f"{self.file}: none of its {len(content['images'])} images has an object to train on")

    def _read(self, content: dict[str, Any], *, train: bool, keep_empty: bool, classes: Sequence[str] | None) -> None:
        by_id = {category["id"]: category["name"] for category in sorted(content["categories"], key=lambda c: c["id"])}
        if classes is not None:
            ids = {name: category_id for category_id, name in by_id.items()}
            if unknown := [name for name in classes if name not in ids]:
                raise ValueError(f"{self.file} has no category {unknown[0]!r}; it has {', '.join(ids)}")
            wanted = {ids[name]: name for name in classes}
        else:
            wanted = by_id
        self.classes: tuple[str, ...] = tuple(wanted.values())
        self.category_ids: tuple[int, ...] = tuple(wanted)
        label_of = {category_id: label for label, category_id in enumerate(wanted)}

        sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
        objects: dict[Any, list[dict[str, Any]]] = {image_id: [] for image_id in sizes}
        skipped: dict[str, int] = {}
        for annotation in content["annotations"]:
            image_id, category_id = annotation["image_id"], annotation["category_id"]
            if category_id not in by_id:
                raise ValueError(
                    f"{self.file}: annotation {annotation.get('id')} has category {category_id!r}, not listed"
                )
            if image_id not in sizes:
                raise ValueError(
                    f"{self.file}: annotation {annotation.get('id')} belongs to image {image_id!r}, not listed"
                )
            if category_id not in label_of or (train and annotation.get("iscrowd", 0)):
                continue
            problem = box_problem(annotation["bbox"], *sizes[image_id])
            if problem is None and train and object_area(annotation) <= 0:
                problem = "no area"
            # Evaluation counts thin and outside boxes as COCO's own evaluator does; no evaluator can use the others.
            if problem and (train or problem in ("negative size", "not four numbers", "not finite")):
                skipped[problem] = skipped.get(problem, 0) + 1
                continue
            objects[image_id].append(annotation | {"label": label_of[category_id]})
        if skipped:
            reasons = ", ".join(f"{count} with a box {problem}" for problem, count in skipped.items())
            warnings.warn(
                f"{self.file}: skipped {reasons.replace('a box no area', 'no area')} of {len(content['annotations'])} "
                "annotations; `litevit doctor` names them",
                stacklevel=4,
            )
        self.images: list[dict[str, Any]] = [
            image
            for image in sorted(content["images"], key=image_order)
            if not train
            or (min(image["height"], image["width"]) >= MIN_TRAIN_SIDE and (keep_empty or objects[image["id"]]))
        ]
        self.objects: list[list[dict[str, Any]]] = [objects[image["id"]] for image in self.images]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def aspect_ratios(self) -> list[float]:
        """Width / height of every image, read from the annotations alone."""
        return [image["width"] / image["height"] for image in self.images]

    def __getitem__(self, index: int) -> tuple[Any, dict[str, Any]]:
        record, objects = self.images[index], self.objects[index]
        height, width = record["height"], record["width"]
        image, turn = read_annotated(self.folder / record["file_name"], (height, width))
        boxes = torch.tensor([o["bbox"] for o in objects], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        target: dict[str, Any] = {
            "image_id": record["id"],
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width)),  # type: ignore[call-overload]
            "labels": torch.tensor([o["label"] for o in objects], dtype=torch.int64),
            "iscrowd": torch.tensor([bool(o.get("iscrowd", 0)) for o in objects], dtype=torch.bool),
            "area": torch.tensor([object_area(o) for o in objects], dtype=torch.float64),
        }
        if self.masks:
            masks = torch.zeros((len(objects), height, width), dtype=torch.bool)
            for mask, o in zip(masks, objects):
                try:
                    rle = segmentation_to_rle(o.get("segmentation") or [], height, width)
                    mask.copy_(decode_masks([rle], height, width)[0])
                except ValueError as error:
                    raise ValueError(f"{self.file}: annotation {o.get('id')}: {error}") from None
            target["masks"] = tv_tensors.Mask(masks)
        target = turn_target(target, turn)
        return (image, target) if self.transforms is None else self.transforms(image, target)


def coco2017(root: str | Path, split: str, **options: Any) -> CocoInstances:
    """COCO 2017 as it is published: `{train,val}2017/` beside `annotations/instances_{train,val}2017.json`."""
    if split not in ("train", "val"):
        raise ValueError(f"split must be 'train' or 'val', got {split!r}")
    root = Path(root)
    return CocoInstances(
        root / f"{split}2017",
        root / "annotations" / f"instances_{split}2017.json",
        **({"train": split == "train"} | options),
    )
