"""Which layout a data set is in: all layouts are asked, and where none answers, what was looked for is said."""

from pathlib import Path

from litevit.data.class_folders import unpack_first
from litevit.data.layouts.classes import class_folder_layout
from litevit.data.layouts.coco import coco_jsons, coco_layouts
from litevit.data.layouts.folders import listing
from litevit.data.layouts.layout import ALL, Layout, Part, Task
from litevit.data.layouts.masks import mask_layout
from litevit.data.layouts.voc import voc_layout
from litevit.data.layouts.yolo import yolo_layout

OBJECT_LAYOUTS = (
    "COCO 2017 (annotations/instances_{train,val}2017.json), Roboflow (train/_annotations.coco.json), any COCO JSON "
    "(annotations/*.json or *.json), YOLO (data.yaml), Pascal VOC (Annotations/*.xml)"
)
LOOKED_FOR: dict[Task, tuple[str, str]] = {
    "instances": ("annotated objects", OBJECT_LAYOUTS),
    "panoptic": (
        "panoptic annotations",
        "COCO panoptic (annotations/panoptic_*.json with segments_info, and folders of PNGs beside them)",
    ),
    "semantic": (
        "masks of classes",
        "ADE20K (images/{training,validation} and annotations/{training,validation}), images/ and masks/ or labels/ "
        "(with or without train/ and val/ inside or around them), train/ and train_masks/ with the same file names, "
        "x_mask.png beside x.jpg, VOC (JPEGImages/ and SegmentationClass/)",
    ),
    "classification": ("class folders", "class folders ({train,val}/<class>/*.jpg, or <class>/*.jpg)"),
}
TRAINED_BY: dict[Task, str] = {
    "instances": "a detector (mask_rcnn, or retinanet for boxes alone)",
    "panoptic": "a panoptic model",
    "semantic": "a segmenter",
    "classification": "a classifier",
}


def find_layout(path: str | Path, task: Task) -> Layout:
    """The layout of a data set for one task.

    Args:
        path: a folder, or one COCO JSON.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it is in no layout of the task; says what was looked for, and what it looks like instead.
    """
    path = Path(path)
    found = layouts_of(path)
    for layout in found:
        if layout.task == task:
            return layout
    what, known = LOOKED_FOR[task]
    said = f"{path} has no {what}. Looked for: {known}."
    if found:
        other = found[0]
        raise ValueError(f"{said} It is {other.name}, for {TRAINED_BY[other.task]}.")
    raise ValueError(f"{said} It has {listing(path)}.{unpack_first(path)}")


def layouts_of(path: str | Path) -> list[Layout]:
    """All layouts a data set can be read in: one per task; empty: none is known."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"data folder {path} does not exist")
    if path.suffix.lower() == ".tar" and path.is_file():
        return [Layout("folders", "a tar of class folders", "classification", path, {ALL: Part(path, path)})]
    if path.is_file():
        return coco_layouts(path, [path]) if path.suffix.lower() == ".json" else []
    found = coco_layouts(path, list(coco_jsons(path)))
    for look in (yolo_layout, voc_layout, mask_layout, class_folder_layout):
        if look is class_folder_layout and found:
            break
        if look is mask_layout and any(layout.task == "panoptic" for layout in found):  # its maps lie in annotations/
            continue
        layout = look(path)
        if layout is not None and all(layout.task != other.task for other in found):
            found.append(layout)
    return found
