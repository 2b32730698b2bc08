"""Small data sets of boxes and masks in every layout, all of the same pictures, for the tests of reported trouble."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

H, W = 48, 64
CLASSES = ("ant", "bee")
PALETTE = [(10, 20, 30), (200, 30, 30), (30, 200, 30)]


def boxes(number: int) -> list[tuple[int, tuple[int, int, int, int]]]:
    """(label, xywh) of the objects of picture `number`; the second object is there in every other picture."""
    first = (number % 2, (4 + number, 6, 20, 16))
    return [first, (1 - number % 2, (34, 20 + number, 18, 14))] if number % 2 else [first]


def picture(number: int) -> Image.Image:
    rng = np.random.default_rng(number)
    pixels = rng.integers(0, 60, (H, W, 3), dtype=np.uint8)
    for label, (x, y, w, h) in boxes(number):
        pixels[y : y + h, x : x + w] = PALETTE[1 + label]
    return Image.fromarray(pixels)


def mask(number: int) -> np.ndarray:
    """(H, W): 0 ground, 1 ant, 2 bee."""
    values = np.zeros((H, W), dtype=np.uint8)
    for label, (x, y, w, h) in boxes(number):
        values[y : y + h, x : x + w] = 1 + label
    return values


def polygon(x: int, y: int, w: int, h: int) -> list[list[int]]:
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def coco(numbers: range, *, masks: bool = True, prefix: str = "") -> dict[str, Any]:
    content: dict[str, Any] = {"categories": [{"id": 1 + k, "name": name} for k, name in enumerate(CLASSES)]}
    content["images"] = [{"id": n, "file_name": f"{prefix}{n}.png", "height": H, "width": W} for n in numbers]
    content["annotations"] = []
    for n in numbers:
        for label, box in boxes(n):
            entry = {"id": len(content["annotations"]) + 1, "image_id": n, "category_id": 1 + label, "bbox": list(box)}
            entry |= {"area": box[2] * box[3], "iscrowd": 0, "segmentation": polygon(*box) if masks else []}
            content["annotations"].append(entry)
    return content


def write_pictures(folder: Path, numbers: range) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for n in numbers:
        picture(n).save(folder / f"{n}.png")


def write_json(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


TRAIN, VAL = range(6), range(6, 8)


def official(root: Path, **options: Any) -> Path:
    for split, numbers in (("train", TRAIN), ("val", VAL)):
        write_pictures(root / f"{split}2017", numbers)
        write_json(root / "annotations" / f"instances_{split}2017.json", coco(numbers, **options))
    return root


def roboflow(root: Path, **options: Any) -> Path:
    """Roboflow counts every split from 0 and puts a group of all classes first."""
    for split, numbers in (("train", TRAIN), ("valid", VAL)):
        write_pictures(root / split, numbers)
        content = coco(numbers, **options)
        content["categories"] = [
            {"id": 0, "name": "insects", "supercategory": "none"},
            *(category | {"supercategory": "insects"} for category in content["categories"]),
        ]
        write_json(root / split / "_annotations.coco.json", content)
    (root / "README.dataset.txt").write_text("exported")
    return root


def cvat(root: Path, **options: Any) -> Path:
    for split, numbers in (("train", TRAIN), ("val", VAL)):
        write_pictures(root / "images" / split, numbers)
        write_json(root / "annotations" / f"instances_{split}.json", coco(numbers, **options))
    return root


def other_folder(root: Path, **options: Any) -> Path:
    for split, numbers in (("train", TRAIN), ("val", VAL)):
        write_pictures(root / "my photos" / "all", numbers)
        write_json(root / f"{split}.json", coco(numbers, **options))
    return root


def label_studio(root: Path, **options: Any) -> Path:
    """One JSON, with the paths of the machine it was made on."""
    write_pictures(root / "images", range(8))
    write_json(root / "result.json", coco(range(8), prefix="..\\..\\media\\upload\\1\\", **options))
    return root


def yolo(root: Path, *, polygons: bool = False, yaml: str | None = None) -> Path:
    for split, numbers in (("train", TRAIN), ("val", VAL)):
        write_pictures(root / "images" / split, numbers)
        write_labels(root / "labels" / split, numbers, polygons=polygons)
    (root / "data.yaml").write_text(
        yaml or "path: /home/somebody/set\ntrain: images/train\nval: images/val\nnames: [ant, bee]\n"
    )
    return root


def write_labels(folder: Path, numbers: range, *, polygons: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for n in numbers:
        lines = []
        for label, (x, y, w, h) in boxes(n):
            corners = [v / (W, H)[k % 2] for k, v in enumerate(polygon(x, y, w, h)[0])]
            values = corners if polygons else ((x + w / 2) / W, (y + h / 2) / H, w / W, h / H)
            lines.append(" ".join(map(str, (label, *values))))
        (folder / f"{n}.txt").write_text("\n".join(lines) + "\n")


def yolo_roboflow(root: Path) -> Path:
    for split, numbers in (("train", TRAIN), ("valid", VAL)):
        write_pictures(root / split / "images", numbers)
        write_labels(root / split / "labels", numbers)
    (root / "data.yaml").write_text("train: ../train/images\nval: ../valid/images\nnc: 2\nnames:\n  0: ant\n  1: bee\n")
    return root


def xml(number: int) -> str:
    """VOC counts from 1, and its boxes include their last pixel."""
    objects = "".join(
        f"<object><name>{CLASSES[label]}</name><difficult>0</difficult><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin>"
        f"<xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
        for label, (x, y, w, h) in boxes(number)
    )
    size = f"<size><width>{W}</width><height>{H}</height><depth>3</depth></size>"
    return f"<annotation><filename>{number}.jpg</filename>{size}{objects}</annotation>"


def voc(root: Path) -> Path:
    write_pictures(root / "JPEGImages", range(8))
    (root / "Annotations").mkdir()
    for n in range(8):
        (root / "Annotations" / f"{n}.xml").write_text(xml(n))
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for split, numbers in (("train", TRAIN), ("val", VAL), ("trainval", range(8))):
        (lists / f"{split}.txt").write_text("".join(f"{n}\n" for n in numbers))
    return root


def voc_beside(root: Path) -> Path:
    for split, numbers in (("train", TRAIN), ("valid", VAL)):
        write_pictures(root / split, numbers)
        for n in numbers:
            (root / split / f"{n}.xml").write_text(xml(n))
    return root


# --------------------------------------------------------------------- masks


def write_masks(folder: Path, numbers: range, *, ending: str = "", change: Any = lambda values: values) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for n in numbers:
        made = change(mask(n))
        (made if isinstance(made, Image.Image) else Image.fromarray(made)).save(folder / f"{n}{ending}.png")


def masks(root: Path, *, names: Any = ("ground", "ant", "bee"), folder: str = "masks", **options: Any) -> Path:
    for split, numbers in (("train", TRAIN), ("val", VAL)):
        write_pictures(root / "images" / split, numbers)
        write_masks(root / folder / split, numbers, **options)
    if names is not None:
        write_json(root / "classes.json", names)
    return root


def ade(root: Path, *, names: Any = ("ground", "ant", "bee"), **options: Any) -> Path:
    """Values 0..2 as they are: `change` makes them ADE20K's."""
    for split, numbers in (("training", TRAIN), ("validation", VAL)):
        write_pictures(root / "images" / split, numbers)
        write_masks(root / "annotations" / split, numbers, **options)
    write_json(root / "classes.json", names)
    return root


def masks_in_splits(root: Path) -> Path:
    for split, numbers in (("train", TRAIN), ("valid", VAL)):
        write_pictures(root / split / "images", numbers)
        write_masks(root / split / "masks", numbers)
    write_json(root / "classes.json", ["ground", "ant", "bee"])
    return root


def masks_beside(root: Path) -> Path:
    """Roboflow's masks."""
    for split, numbers in (("train", TRAIN), ("valid", VAL)):
        write_pictures(root / split, numbers)
        write_masks(root / split, numbers, ending="_mask")
        (root / split / "_classes.csv").write_text("Pixel Value, Class\n0, ground\n1, ant\n2, bee\n")
    return root


def paired_folders(root: Path, *, folder: str = "_masks", **options: Any) -> Path:
    """`train/1.png` and `train_masks/1.png`, or Carvana's `1_mask.png`."""
    for split, numbers in (("train", TRAIN), ("val", VAL)):
        write_pictures(root / split, numbers)
        write_masks(root / f"{split}{folder}", numbers, **options)
    write_json(root / "classes.json", ["ground", "ant", "bee"])
    return root


def flat_masks(root: Path) -> Path:
    write_pictures(root / "images", range(8))
    write_masks(root / "labels", range(8))
    write_json(root / "classes.json", ["ground", "ant", "bee"])
    return root


def in_colour(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.array(PALETTE, dtype=np.uint8)[values])


def with_palette(values: np.ndarray) -> Image.Image:
    image = Image.fromarray(values, mode="P")
    image.putpalette([v for colour in PALETTE for v in colour])
    return image


LABELMAP = "# label:color_rgb:parts:actions\nground:10,20,30::\nant:200,30,30::\nbee:30,200,30::\n"


def cvat_masks(root: Path) -> Path:
    write_pictures(root / "JPEGImages", range(8))
    write_masks(root / "SegmentationClass", range(8), change=in_colour)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("".join(f"{n}\n" for n in TRAIN))
    (lists / "val.txt").write_text("".join(f"{n}\n" for n in VAL))
    (root / "labelmap.txt").write_text(LABELMAP)
    return root


# ------------------------------------------------------------------ panoptic


def panoptic(root: Path, *, save: Any = None, isthing: Any = lambda thing: int(thing), ids: Any = lambda k: k) -> Path:
    """Ants and bees are things, ground is stuff; every object and the ground are a segment."""
    from litevit.data.coco_masks import write_panoptic_png

    for split, numbers in (("train", TRAIN), ("val", VAL)):
        write_pictures(root / f"{split}2017", numbers)
        content = coco(numbers)
        kinds = [(1, "ant", True), (2, "bee", True), (3, "ground", False)]
        content["categories"] = [{"id": i, "name": name, "isthing": isthing(thing)} for i, name, thing in kinds]
        for category in content["categories"]:
            if category["isthing"] is None:
                del category["isthing"]
        content["annotations"] = []
        folder = root / "annotations" / f"panoptic_{split}2017"
        folder.mkdir(parents=True, exist_ok=True)
        for n in numbers:
            segments = [{"id": ids(1), "category_id": 3, "bbox": [0, 0, W, H], "area": 0, "iscrowd": 0}]
            number_map = np.full((H, W), ids(1), dtype=np.int64)
            for k, (label, (x, y, w, h)) in enumerate(boxes(n), start=2):
                number_map[y : y + h, x : x + w] = ids(k)
                segment = {"id": ids(k), "category_id": 1 + label, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
                segments.append(segment)
            segments[0]["area"] = int((number_map == ids(1)).sum())
            (save or write_panoptic_png)(folder / f"{n}.png", number_map)
            content["annotations"].append({"image_id": n, "file_name": f"{n}.png", "segments_info": segments})
        write_json(root / "annotations" / f"panoptic_{split}2017.json", content)
    return root
