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

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors

from litevit.data.class_folders import Part
from litevit.data.coco_entries import (
    ANNOTATION,
    CATEGORY,
    as_flag,
    box_problem,
    check_entries,
    check_flags,
    group_headers,
    has_mask,
    image_order,
    object_area,
    prepare,
    read_json,
    upright_meant,
)
from litevit.data.coco_masks import decode_masks, segmentation_to_rle
from litevit.data.images import read_annotated, turn_target
from litevit.data.layouts import find_image

MIN_TRAIN_SIDE = 32  # images with a shorter side are left out of training (mmdet 2.x and 3.x)


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
        partial: the file may lack some of `classes`, as a small validation split does.
        masks: read the instance masks.
        content: what `annotations` holds, where it is in another format (YOLO, VOC).
        only: keep the images of which it says so, by their file names.
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
        partial: bool = False,
        masks: bool = True,
        content: dict[str, Any] | None = None,
        only: Callable[[str], bool] | None = None,
        transforms: Callable[[Any, Any], tuple[Any, Any]] | None = None,
    ):
        self.folder, self.file = Path(images), Path(annotations)
        self.masks, self.transforms = masks, transforms
        self.part = Part("training" if train else "validation", str(self.folder), 0)
        if content is None:
            content = read_json(self.file, needs=("images", "annotations", "categories"))
        if not content["images"]:
            raise ValueError(f"{self.file} lists no images")
        prepare(self.file, self.folder, content, ANNOTATION)
        check_entries(self.file, content["categories"], CATEGORY)
        check_flags(self.file, content["annotations"], "iscrowd")
        total = len(content["images"])
        self._listed, self._upright = content["all_images"], content.get("upright") is True
        if only is not None:
            content["images"] = [image for image in content["images"] if only(image["file_name"])]
        self._read(content, train=train, keep_empty=keep_empty, classes=classes, partial=partial)
        if not self.images:
            left = "".join(f" Left out: {item.files} x {reason}." for reason, item in self.part.left_out.items())
            raise ValueError(f"{self.file}: none of its {total} images has an object to train on.{left}")

    def _read(
        self, content: dict[str, Any], *, train: bool, keep_empty: bool, classes: Sequence[str] | None, partial: bool
    ) -> None:
        categories = sorted(content["categories"], key=lambda c: c["id"])
        used = {annotation["category_id"] for annotation in content["annotations"]}
        headers = group_headers(categories, used)
        by_id: dict[Any, str] = {}
        for category in categories:
            if by_id.setdefault(category["id"], category["name"]) != category["name"]:
                raise ValueError(
                    f"{self.file}: the category id {category['id']} is used by {by_id[category['id']]!r} and "
                    f"{category['name']!r}; every category needs an id of its own"
                )
        by_id = {category_id: name for category_id, name in by_id.items() if category_id not in headers}
        if not by_id:
            raise ValueError(f"{self.file} lists no categories")
        label_of: dict[Any, int]
        if classes is not None:
            ids: dict[str, Any] = {}
            for category_id, name in by_id.items():
                ids.setdefault(name, category_id)
            unknown = [name for name in classes if name not in ids]
            if unknown and not partial:
                raise ValueError(f"{self.file} has no category {unknown[0]!r}; it has {', '.join(ids)}")
            self.classes: tuple[str, ...] = tuple(classes)
            # A class that the file lacks has no object here; its id is only there to be different.
            self.category_ids: tuple[int, ...] = tuple(ids.get(name, -1 - k) for k, name in enumerate(classes))
        else:
            self.classes, self.category_ids = tuple(by_id.values()), tuple(by_id)
        label_of = {category_id: label for label, category_id in enumerate(self.category_ids)}

        listed = {image["id"] for image in content["all_images"]}
        sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
        objects: dict[Any, list[dict[str, Any]]] = {image_id: [] for image_id in sizes}
        for annotation in content["annotations"]:
            image_id, category_id = annotation["image_id"], annotation["category_id"]
            where = f"annotation {annotation.get('id')}"
            if category_id not in by_id:
                raise ValueError(f"{self.file}: {where} has category {category_id!r:.60}, not listed")
            if image_id not in listed:
                raise ValueError(f"{self.file}: {where} belongs to image {image_id!r:.60}, not listed")
            if image_id not in sizes or category_id not in label_of or (train and as_flag(annotation.get("iscrowd"))):
                continue
            problem = box_problem(annotation["bbox"], *sizes[image_id])
            if problem is None and train and object_area(annotation) <= 0:
                problem = "no area"
            # Evaluation counts thin and outside boxes as COCO's own evaluator does; no evaluator can use the others.
            if problem and (train or problem in ("negative size", "not four numbers", "not finite")):
                reason = "object without area" if problem == "no area" else f"object with a box {problem}"
                self.part.leave_out(reason, where)
                continue
            objects[image_id].append(annotation | {"label": label_of[category_id]})
        self.images: list[dict[str, Any]] = []
        for image in sorted(content["images"], key=image_order):
            if train and min(image["height"], image["width"]) < MIN_TRAIN_SIDE:
                self.part.leave_out(f"image with a side below {MIN_TRAIN_SIDE} pixels", image["file_name"])
            elif train and not keep_empty and not objects[image["id"]]:
                self.part.leave_out("image without an object to learn", image["file_name"])
            else:
                self.images.append(image)
        self.objects: list[list[dict[str, Any]]] = [objects[image["id"]] for image in self.images]
        self.part.images = len(self.images)
        counts = [0] * len(self.classes)
        for found in self.objects:
            for annotation in found:
                counts[annotation["label"]] += 1
        self.part.classes = dict(zip(self.classes, counts))

    @property
    def without_masks(self) -> list[dict[str, Any]]:
        """Objects, crowds left out, that have a box and nothing to draw a mask from."""
        found = (o for objects in self.objects for o in objects)
        return [o for o in found if not as_flag(o.get("iscrowd")) and not has_mask(o)]

    def require_masks(self) -> None:
        """Raises where a model would be taught that objects have empty masks."""
        missing = self.without_masks
        if missing:
            total = sum(map(len, self.objects))
            raise ValueError(
                f"{self.file}: {len(missing):,} of {total:,} objects have a box and no mask (the first is annotation "
                f"{missing[0].get('id')}), and this model learns masks: it would learn empty ones. Train boxes alone "
                "with --model.name retinanet --data.masks False, or add masks (`litevit doctor` names the objects)."
            )

    def require_files(self) -> None:
        """Raises unless every image is there."""
        missing = [path for image in self.images if not (path := find_image(self.folder, image["file_name"])).is_file()]
        if missing:
            raise FileNotFoundError(
                f"{len(missing):,} of {len(self.images):,} images of {self.file} are not in {self.folder}, "
                f"the first is {missing[0]}"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def aspect_ratios(self) -> list[float]:
        """Width / height of every image, read from the annotations alone."""
        return [image["width"] / image["height"] for image in self.images]

    @cached_property
    def _squares_upright(self) -> bool:
        return upright_meant(self.folder, self._listed, by_definition=self._upright)

    def __getitem__(self, index: int) -> tuple[Any, dict[str, Any]]:
        record, objects = self.images[index], self.objects[index]
        height, width = record["height"], record["width"]
        path = find_image(self.folder, record["file_name"])
        image, turn = read_annotated(path, (height, width), upright=lambda: self._squares_upright)
        boxes = torch.tensor([o["bbox"] for o in objects], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        target: dict[str, Any] = {
            "image_id": record["id"],
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width)),  # type: ignore[call-overload]
            "labels": torch.tensor([o["label"] for o in objects], dtype=torch.int64),
            "iscrowd": torch.tensor([as_flag(o.get("iscrowd")) for o in objects], dtype=torch.bool),
            "area": torch.tensor([object_area(o) for o in objects], dtype=torch.float64),
        }
        if self.masks:
            masks = torch.zeros((len(objects), height, width), dtype=torch.bool)
            for mask, o in zip(masks, objects):
                try:
                    rle = segmentation_to_rle(o.get("segmentation") or [], height, width)
                    mask.copy_(decode_masks([rle], height, width)[0])
                except ValueError as error:
                    raise ValueError(f"{self.file}: annotation {o.get('id')!r:.60}: {error}") from None
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
