"""Photos stored sideways with boxes and masks: training saw them lying down, `predict` upright."""

import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from litevit import cli
from litevit.data.ade20k import ade20k
from litevit.data.coco import CocoInstances
from litevit.data.coco_masks import write_panoptic_png
from litevit.data.coco_panoptic import CocoPanoptic
from litevit.data.dense import DetectionData, DetectionSets
from litevit.data.doctor import examine
from litevit.data.images import read_image

H, W = 40, 56  # stored
BOX = (slice(6, 14), slice(20, 50))  # rows and columns of a bright object


@pytest.fixture(params=["stored", "upright"])
def photos(request, tmp_path):
    """A photo turned by EXIF 6 with an object; what the annotations mean, and the arrays as they would state them."""
    stored = np.zeros((H, W), dtype=np.uint8)
    stored[BOX] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    for folder in ("images", "images/validation"):
        (tmp_path / folder).mkdir(exist_ok=True)
        Image.fromarray(stored).save(tmp_path / folder / "a.png", exif=exif)
    return tmp_path, stored if request.param == "stored" else np.rot90(stored, -1)


def annotation(mask: np.ndarray) -> tuple[list[int], list[list[int]]]:
    """Box (xywh) and polygon of the object."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y, w, h = (int(v) for v in (columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1))
    return [x, y, w, h], [[x, y, x + w, y, x + w, y + h, x, y + h]]


def check(root, image, boxes, mask):
    seen = torch.from_numpy(np.array(read_image(root / "images" / "a.png"))).permute(2, 0, 1)  # what predict sees
    assert torch.equal(image.as_subclass(torch.Tensor), seen)
    assert seen.shape == (3, W, H)
    bright = seen[0] == 255
    assert torch.equal(mask.as_subclass(torch.Tensor), bright)
    if boxes is not None:
        rows, columns = torch.nonzero(bright, as_tuple=True)
        assert boxes.tolist() == [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]


def test_coco(photos):
    root, stated = photos
    box, polygon = annotation(stated)
    height, width = stated.shape
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": height, "width": width}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0,
             "segmentation": polygon}
        ],
        "categories": [{"id": 1, "name": "a"}],
    }  # fmt: skip
    (root / "instances.json").write_text(json.dumps(content))
    image, target = CocoInstances(root / "images", root / "instances.json")[0]
    check(root, image, target["boxes"], target["masks"][0])


def test_panoptic(photos):
    root, stated = photos
    box, _ = annotation(stated)
    height, width = stated.shape
    (root / "panoptic").mkdir()
    write_panoptic_png(root / "panoptic" / "a.png", np.where(stated > 0, 5, 0).astype(np.int64))
    segment = {"id": 5, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": height, "width": width}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": [segment]}],
        "categories": [{"id": 1, "name": "a", "isthing": 1}, {"id": 2, "name": "b", "isthing": 0}],
    }
    (root / "panoptic.json").write_text(json.dumps(content))
    image, target = CocoPanoptic(root / "images", root / "panoptic.json")[0]
    check(root, image, target["boxes"], target["masks"][0])
    check(root, image, None, target["panoptic"] == 5)


def test_masks(photos):
    root, stated = photos
    (root / "annotations" / "validation").mkdir(parents=True)
    Image.fromarray((stated > 0).astype(np.uint8) + 1).save(root / "annotations" / "validation" / "a.png")
    image, target = ade20k(root, "validation", classes=("ground", "thing"))[0]
    check(root, image, None, target["semantic"] == 1)


@pytest.mark.parametrize("meant", ["stored", "upright"])
@pytest.mark.parametrize(("orientation", "shape"), [(3, (H, W)), (6, (H, H))], ids=["half turn", "square"])
def test_sizes_that_tell_nothing_mean_what_others_of_the_set_mean(orientation, shape, meant, tmp_path):
    """A labelling tool shows photos upright: boxes of those held the wrong way round were turned once more."""
    root = tmp_path / "set"
    (root / "images").mkdir(parents=True)
    images, annotations = [], []
    for number, (turn, (height, width)) in enumerate([(orientation, shape), (6, (H, W))], start=1):
        stored = np.zeros((height, width), dtype=np.uint8)
        stored[4:12, 6:20] = 255
        exif = Image.Exif()
        exif[0x0112] = turn
        name = "ab"[number - 1] + ".png"
        Image.fromarray(stored).save(root / "images" / name, exif=exif)
        seen = np.array(read_image(root / "images" / name))[..., 0] if meant == "upright" else stored
        box, polygon = annotation(seen)
        images.append({"id": number, "file_name": name, "height": seen.shape[0], "width": seen.shape[1]})
        annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": box, "area": 112, "iscrowd": 0,
                            "segmentation": polygon})  # fmt: skip
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "x"}]}
    (root / "annotations").mkdir()
    (root / "annotations" / "train.json").write_text(json.dumps(content))

    def found(root, *part):
        source = pickle.loads(pickle.dumps(CocoInstances(root.joinpath(*part), next(root.glob("annotations/*.json")))))
        assert len(source) == 2
        for image, target in source:
            rows, columns = torch.nonzero(image[0] == 255, as_tuple=True)
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert target["boxes"].tolist() == [box]
            assert torch.equal(target["masks"][0], image[0] == 255)

    found(root, "images")
    report = examine(root)
    said = [e for f in report.findings if "EXIF" in f.problem for e in f.examples]
    assert len(said) == 2
    assert all(("upright picture" in text) == (meant == "upright") for text in map(str, said))
    assert cli.main(["doctor", str(root), "--fix", str(tmp_path / "mended")]) == 0
    found(tmp_path / "mended", "images", "train")


@pytest.mark.parametrize(("orientation", "shape"), [(3, (H, W)), (6, (H, H)), (6, (H, W))])
def test_shares_of_yolo_are_of_the_upright_picture(orientation, shape, tmp_path):
    stored = np.zeros(shape, dtype=np.uint8)
    stored[4:12, 6:20] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    for split in ("train", "val"):
        (tmp_path / "images" / split).mkdir(parents=True)
        (tmp_path / "labels" / split).mkdir(parents=True)
        Image.fromarray(stored).save(tmp_path / "images" / split / "a.png", exif=exif)
        seen = np.array(read_image(tmp_path / "images" / split / "a.png"))[..., 0]
        (x, y, w, h), (height, width) = annotation(seen)[0], seen.shape
        line = f"0 {(x + w / 2) / width} {(y + h / 2) / height} {w / width} {h / height}\n"
        (tmp_path / "labels" / split / "a.txt").write_text(line)
    (tmp_path / "classes.txt").write_text("x\n")
    data = DetectionData(path=str(tmp_path), resize=False, flip=0, masks=False)
    image, target = DetectionSets(data, cache=tmp_path).train.dataset[0]
    rows, columns = torch.nonzero(image[0] == image.max(), as_tuple=True)
    expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert torch.allclose(target["boxes"].as_subclass(torch.Tensor), torch.tensor([expected]).float(), atol=0.01)
