"""COCO panoptic annotations: one JSON and one PNG of segment ids per image (id = R + 256 G + 256^2 B; 0 = void).

A sample is `(image, target)` as in `coco.py` (the things that are no crowd are the objects), and
    semantic       `tv_tensors.Mask` (H, W) int64: stuff 0..S-1, every thing S, void 255
    panoptic       `tv_tensors.Mask` (H, W) int64: segment ids (evaluation only)
    segments_info  their descriptions, `category_id` a label 0..T+S-1 (evaluation only)

Labels follow the published LVT convention for any category list: things 0..T-1 and stuff T..T+S-1, each by ascending
category id (COCO: 80 things, 53 stuff); the semantic head sees stuff as label - T and all things as one class S.
Crowds are no objects but stay things in the semantic map.
"""

from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from litevit.data.class_folders import Part
from litevit.data.class_names import COCO_STUFF, COCO_THINGS
from litevit.data.coco import MIN_TRAIN_SIDE
from litevit.data.coco_entries import (
    CATEGORY,
    Fields,
    as_flag,
    box_problem,
    check_entries,
    check_flags,
    image_order,
    mend_types,
    object_area,
    prepare,
    read_json,
    upright_meant,
)
from litevit.data.coco_masks import read_panoptic_png
from litevit.data.images import read_annotated, turn_target
from litevit.data.layouts import find_image

VOID = 255  # semantic label that no loss counts

PANOPTIC_ANNOTATION: Fields = {"image_id": (int, str), "file_name": str, "segments_info": list}
SEGMENT: Fields = {"id": int, "category_id": (int, str)}


def fill_isthing(content: dict[str, Any], things: Collection[str] | None = None) -> list[str]:
    """Gives categories that lack `isthing` one, and returns what they were taken for.

    COCO's classes are known by their names. Of others: a picture holds at most one segment of a stuff class, and no
    crowd, so a class with more is a thing.

    Args:
        things: names of the things, where they are known (of the training split, of a model).
    """
    lacking = [c for c in content["categories"] if c.get("isthing") is None]
    if not lacking:
        return []
    countable = set()
    for annotation in content["annotations"]:
        segments = annotation.get("segments_info")
        known = [s for s in segments or () if isinstance(s, dict) and isinstance(s.get("category_id"), int | str)]
        ids = [s["category_id"] for s in known]
        countable |= {i for i in ids if ids.count(i) > 1}
        countable |= {s["category_id"] for s in known if as_flag(s.get("iscrowd"))}
    coco_things, coco_stuff = set(COCO_THINGS.values()), set(COCO_STUFF.values())
    for category in lacking:
        if things is not None:
            thing = category.get("name") in things
        elif category.get("name") in coco_things or category.get("name") in coco_stuff:
            thing = category["name"] in coco_things
        else:
            thing = category.get("id") in countable
        category["isthing"] = int(thing)
    taken = {flag: ", ".join(str(c.get("name")) for c in lacking if c["isthing"] == flag) or "none" for flag in (1, 0)}
    return [
        f"{len(lacking)} categories have no 'isthing': taken for things {taken[1]}; for stuff {taken[0]}. "
        "Write isthing 0 or 1 into the file where that is wrong"
    ]


class CocoPanoptic(Dataset):
    """Images with panoptic annotations.

    Args:
        images: folder of the images.
        annotations: `panoptic_*.json`.
        maps: folder of the PNGs; the default is the JSON's name without its suffix, as COCO does it.
        train: leave out segments narrower than a pixel, images without a thing (crowds do not count) and images
            shorter than 32 pixels on a side.
        keep_empty: keep images without things in training.
        things: names of the things, for categories that do not say whether they are.
        only: keep the images of which it says so, by their file names.
        transforms: called as `transforms(image, target)`.
    """

    def __init__(
        self,
        images: str | Path,
        annotations: str | Path,
        maps: str | Path | None = None,
        *,
        train: bool = False,
        keep_empty: bool = False,
        things: Collection[str] | None = None,
        only: Callable[[str], bool] | None = None,
        transforms: Callable[[Any, Any], tuple[Any, Any]] | None = None,
    ):
        self.folder, self.file = Path(images), Path(annotations)
        self.maps = Path(maps) if maps is not None else self.file.with_suffix("")
        self.train, self.transforms = train, transforms
        content = read_json(self.file, needs=("images", "annotations", "categories"))
        if not content["images"]:
            raise ValueError(f"{self.file} lists no images")
        self.part = Part("training" if train else "validation", str(self.folder), 0)
        prepare(self.file, self.folder, content, PANOPTIC_ANNOTATION)
        check_entries(self.file, content["categories"], CATEGORY)
        check_flags(self.file, content["categories"], "isthing")
        self._listed = content["all_images"]
        self.notes = fill_isthing(content, things)
        if only is not None:
            content["images"] = [image for image in content["images"] if only(image["file_name"])]
        self._read(content, keep_empty=keep_empty)
        if not self.images:
            raise ValueError(
                f"{self.file}: none of its {len(content['all_images'])} images has a thing to train on; classes with "
                f"isthing 1: {', '.join(self.classes[: self.num_things]) or 'none'}"
                + "".join(f". {note}" for note in self.notes)
            )

    def _read(self, content: dict[str, Any], *, keep_empty: bool) -> None:
        categories = sorted(content["categories"], key=lambda c: (not c["isthing"], c["id"]))
        self.classes: tuple[str, ...] = tuple(c["name"] for c in categories)
        self.category_ids: tuple[int, ...] = tuple(c["id"] for c in categories)
        self.num_things = sum(bool(c["isthing"]) for c in categories)
        self.num_stuff = len(categories) - self.num_things
        if self.num_stuff >= VOID:
            raise ValueError(
                f"{self.file} has {self.num_stuff} stuff classes; {VOID} is the void label, {VOID - 1} is the most"
            )
        self.label_of: dict[int, int] = {category_id: label for label, category_id in enumerate(self.category_ids)}

        by_image = {annotation["image_id"]: annotation for annotation in content["annotations"]}
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        for image in sorted(content["images"], key=image_order):
            annotation = by_image.get(image["id"])
            if annotation is None:
                raise ValueError(f"{self.file}: image {image['id']} ({image['file_name']}) has no annotation")
            for segment in annotation["segments_info"]:
                mend_types(segment)
            check_entries(self.file, annotation["segments_info"], SEGMENT)
            check_flags(self.file, annotation["segments_info"], "iscrowd")
            for segment in annotation["segments_info"]:
                where = f"{self.file}: segment {segment['id']} of image {image['id']}"
                if segment["category_id"] not in self.label_of:
                    raise ValueError(f"{where} has category {segment['category_id']!r:.60}, not listed")
                boxed = self.train or self._is_thing(segment)
                if boxed and box_problem(segment.get("bbox"), 1, 1) in ("not four numbers", "not finite"):
                    raise ValueError(f"{where} needs a bbox of four numbers, got {segment.get('bbox')!r:.60}")
            if self.train:
                has_things = any(self._is_object(segment, image) for segment in annotation["segments_info"])
                if min(image["height"], image["width"]) < MIN_TRAIN_SIDE:
                    self.part.leave_out(f"image with a side below {MIN_TRAIN_SIDE} pixels", image["file_name"])
                    continue
                if not (keep_empty or has_things):
                    self.part.leave_out("image without a thing to learn", image["file_name"])
                    continue
            self.images.append(image)
            self.annotations.append(annotation)
        self.part.images = len(self.images)
        counts = dict.fromkeys(self.category_ids, 0)
        for annotation in self.annotations:
            for segment in annotation["segments_info"]:
                counts[segment["category_id"]] += 1
        self.part.classes = dict(zip(self.classes, counts.values()))

    def _is_thing(self, segment: dict[str, Any]) -> bool:
        return self.label_of[segment["category_id"]] < self.num_things

    def _is_object(self, segment: dict[str, Any], image: dict[str, Any]) -> bool:
        if not self._is_thing(segment) or as_flag(segment.get("iscrowd")):
            return False
        if not self.train:
            return True
        return not self._is_speck(segment) and box_problem(segment["bbox"], image["height"], image["width"]) is None

    @staticmethod
    def _is_speck(segment: dict[str, Any]) -> bool:
        """Narrower than a pixel: the published training does not see it, stuff or thing."""
        return object_area(segment) <= 0 or min(segment["bbox"][2:]) < 1

    def __len__(self) -> int:
        return len(self.images)

    @property
    def aspect_ratios(self) -> list[float]:
        """Width / height of every image, read from the annotations alone."""
        return [image["width"] / image["height"] for image in self.images]

    def require_files(self) -> None:
        """Raises unless every image and map is there."""
        wanted = [find_image(self.folder, image["file_name"]) for image in self.images]
        wanted += [self.maps / annotation["file_name"] for annotation in self.annotations]
        if missing := [path for path in wanted if not path.is_file()]:
            raise FileNotFoundError(
                f"{len(missing):,} of {len(wanted):,} images and maps of {self.file} are missing, "
                f"the first is {missing[0]}"
            )

    def segment_ids(self, index: int) -> Tensor:
        """Returns: (H, W) int64, the PNG's segment ids, checked against the JSON."""
        record, annotation = self.images[index], self.annotations[index]
        path = self.maps / annotation["file_name"]
        listed = {segment["id"] for segment in annotation["segments_info"]}
        ids = read_panoptic_png(path, listed=listed)
        if ids.shape != (record["height"], record["width"]):
            raise ValueError(
                f"panoptic map {path} is {ids.shape[1]} x {ids.shape[0]} (width x height), "
                f"its image {record['width']} x {record['height']}"
            )
        painted = set(np.unique(ids).tolist()) - {0}
        if painted - listed:
            raise ValueError(
                f"panoptic map {path} has segment id {min(painted - listed)}, which {self.file} does not list"
            )
        if listed - painted:
            raise ValueError(
                f"{self.file} lists segment id {min(listed - painted)}, which the panoptic map {path} does not have"
            )
        return torch.from_numpy(ids)

    @cached_property
    def _squares_upright(self) -> bool:
        return upright_meant(self.folder, self._listed)

    def __getitem__(self, index: int) -> tuple[Any, dict[str, Any]]:
        record, segments = self.images[index], self.annotations[index]["segments_info"]
        height, width = record["height"], record["width"]
        path = find_image(self.folder, record["file_name"])
        image, turn = read_annotated(path, (height, width), upright=lambda: self._squares_upright)
        ids = self.segment_ids(index)

        semantic = torch.full((height, width), VOID, dtype=torch.int64)
        for segment in segments:
            if self.train and self._is_speck(segment):
                continue
            label = self.label_of[segment["category_id"]]
            semantic[ids == segment["id"]] = self.num_stuff if label < self.num_things else label - self.num_things

        objects = [segment for segment in segments if self._is_object(segment, record)]
        boxes = torch.tensor([o["bbox"] for o in objects], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        object_ids = torch.tensor([o["id"] for o in objects], dtype=torch.int64)
        target: dict[str, Any] = {
            "image_id": record["id"],
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width)),  # type: ignore[call-overload]
            "labels": torch.tensor([self.label_of[o["category_id"]] for o in objects], dtype=torch.int64),
            "iscrowd": torch.zeros(len(objects), dtype=torch.bool),
            "area": torch.tensor([object_area(o) for o in objects], dtype=torch.float64),
            "masks": tv_tensors.Mask(ids == object_ids[:, None, None]),
            "semantic": tv_tensors.Mask(semantic),
        }
        if not self.train:
            target["panoptic"] = tv_tensors.Mask(ids)
            target["segments_info"] = [
                segment | {"category_id": label, "isthing": label < self.num_things}
                for segment in segments
                for label in (self.label_of[segment["category_id"]],)
            ]
        target = turn_target(target, turn)
        return (image, target) if self.transforms is None else self.transforms(image, target)


def coco2017_panoptic(root: str | Path, split: str, **options: Any) -> CocoPanoptic:
    """COCO 2017 panoptic as it is published: `annotations/panoptic_{train,val}2017.json` beside folders of PNGs."""
    if split not in ("train", "val"):
        raise ValueError(f"split must be 'train' or 'val', got {split!r}")
    root = Path(root)
    return CocoPanoptic(
        root / f"{split}2017",
        root / "annotations" / f"panoptic_{split}2017.json",
        **({"train": split == "train"} | options),
    )
