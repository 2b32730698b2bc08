"""Objects as people have them: every layout is read as the same boxes, is named, or says what was looked for."""

from pathlib import Path

import pytest
import torch
from PIL import Image

import annotated_sets as sets
from litevit.data.dense import DetectionData, DetectionSets, SegmentationData, SegmentationSets
from litevit.data.layouts import find_layout, layouts_of

pytest.importorskip("faster_coco_eval", reason="COCO masks need faster-coco-eval (the extra 'coco')")


def opened(root: Path, **options) -> DetectionSets:
    return DetectionSets(DetectionData(path=str(root), resize=False, flip=0, **options), cache=root)


def contents(dataset) -> list:
    """Per image, in the order of their names: class and box of every object, rounded."""
    source = dataset.dataset
    found = {}
    for index in dataset.indices:
        target = source[index][1]
        stem = Path(source.images[index]["file_name"].replace("\\", "/")).stem
        rows = zip(target["labels"].tolist(), target["boxes"].as_subclass(torch.Tensor).round().tolist())
        found[stem] = sorted((source.classes[label], tuple(box)) for label, box in rows)
    return sorted(found.items())


def expected(numbers) -> list:
    return sorted(
        (str(n), sorted((sets.CLASSES[k], (x, y, x + w, y + h)) for k, (x, y, w, h) in sets.boxes(n))) for n in numbers
    )


@pytest.mark.parametrize(
    ("write", "name", "masks"),
    [
        (sets.official, "COCO 2017", True),
        (sets.roboflow, "Roboflow's COCO export", True),
        (sets.cvat, "COCO JSON", True),
        (sets.other_folder, "COCO JSON", True),
        (sets.yolo, "YOLO", False),
        (sets.yolo_roboflow, "YOLO", False),
        (sets.voc, "Pascal VOC", False),
        (sets.voc_beside, "Pascal VOC", False),
    ],
)
def test_every_layout_gives_the_same_boxes(write, name, masks, tmp_path) -> None:
    found = opened(write(tmp_path), masks=masks)
    assert found.layout.name == name
    assert found.classes == sets.CLASSES
    assert contents(found.train) == expected(sets.TRAIN)
    assert contents(found.eval()) == expected(sets.VAL)
    assert [part.images for part in found.parts] == [6, 2]
    assert all(name in part.where for part in found.parts)


def test_yolo_polygons_are_masks(tmp_path) -> None:
    found = opened(sets.yolo(tmp_path, polygons=True))
    assert contents(found.train) == expected(sets.TRAIN)
    mask = found.train[1][1]["masks"].as_subclass(torch.Tensor).any(0)
    assert torch.equal(mask, torch.from_numpy(sets.mask(1) > 0))


def test_one_json_is_divided_by_share(tmp_path) -> None:
    """Label Studio's single JSON with the paths of another machine; the same images are held out in every run."""
    found = opened(sets.label_studio(tmp_path), hold_out=0.25)
    train, val = contents(found.train), contents(found.eval())
    assert (len(train), len(val)) == (6, 2)
    assert sorted(train + val) == expected(range(8))
    assert contents(opened(tmp_path, hold_out=0.25).eval()) == val
    assert contents(opened(tmp_path / "result.json", hold_out=0.25).eval()) == val
    assert "25% held out" in found.parts[0].where
    with pytest.raises(ValueError, match=r"give --data\.hold_out 0\.1"):
        opened(tmp_path, hold_out=0)


def test_a_training_split_alone_is_divided(tmp_path) -> None:
    sets.roboflow(tmp_path)
    for path in (tmp_path / "valid").iterdir():
        path.unlink()
    (tmp_path / "valid").rmdir()
    found = opened(tmp_path)
    assert (len(found.train), len(found.eval())) == (5, 1)


def test_a_validation_file_with_other_ids_and_fewer_classes(tmp_path) -> None:
    import json

    sets.cvat(tmp_path)
    file = tmp_path / "annotations" / "instances_val.json"
    content = json.loads(file.read_text())
    content["categories"] = [{"id": 7, "name": "bee"}]
    content["annotations"] = [a | {"category_id": 7} for a in content["annotations"] if a["category_id"] == 2]
    file.write_text(json.dumps(content))
    found = opened(tmp_path)
    seen = {name for _, rows in contents(found.eval()) for name, _ in rows}
    assert seen == {"bee"}
    content["categories"][0]["name"] = "wasp"
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"has other categories than .*: wasp"):
        found.eval()


def test_nothing_that_is_known_says_what_was_looked_for(tmp_path) -> None:
    (tmp_path / "notes").mkdir()
    with pytest.raises(ValueError, match=r"no annotated objects\. Looked for: COCO 2017 .* YOLO .* It has notes/\."):
        find_layout(tmp_path, "instances")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        find_layout(tmp_path / "nowhere", "instances")


def test_a_layout_of_another_task_is_named(tmp_path) -> None:
    for name in ("cat", "dog"):
        sets.write_pictures(tmp_path / "folders" / "train" / name, range(2))
    with pytest.raises(ValueError, match="It is class folders, for a classifier"):
        opened(tmp_path / "folders")
    sets.masks(tmp_path / "masks")
    with pytest.raises(ValueError, match="It is images/ and masks/, for a segmenter"):
        opened(tmp_path / "masks")
    sets.official(tmp_path / "boxes")
    with pytest.raises(ValueError, match="It is COCO 2017, for a detector"):
        SegmentationSets(SegmentationData(path=str(tmp_path / "boxes")), cache=tmp_path)


def test_roboflow_and_image_and_mask_folders_are_no_class_folders(tmp_path) -> None:
    assert [x.task for x in layouts_of(sets.roboflow(tmp_path / "a"))] == ["instances"]
    assert [x.task for x in layouts_of(sets.masks(tmp_path / "b"))] == ["semantic"]
    assert [x.task for x in layouts_of(sets.flat_masks(tmp_path / "c"))] == ["semantic"]


def test_two_files_for_one_split_are_refused(tmp_path) -> None:
    sets.label_studio(tmp_path)
    sets.write_json(tmp_path / "second.json", sets.coco(range(2)))
    with pytest.raises(ValueError, match=r"has 2 annotation files: result\.json, second\.json"):
        opened(tmp_path)


def test_missing_images_are_counted_before_training(tmp_path) -> None:
    sets.official(tmp_path)
    (tmp_path / "train2017" / "3.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 6 images of .* the first is .*3\.png"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 30 20", r"labels.train.0\.txt, line 1: coordinates are shares of the picture in 0\.\.1"),
        ("2 0.5 0.5 0.1 0.1", r"the class must be a number in 0\.\.1, got 2"),
        ("ant 0.5 0.5 0.1 0.1", "numbers are needed, got 'ant"),
        ("0 0.5 0.5 0.1", r"4 numbers \(a box\) or 6, 8, \.\.\. \(a polygon\) are needed, got 3 numbers"),
    ],
)
def test_yolo_lines_that_are_no_objects(line, message, tmp_path) -> None:
    sets.yolo(tmp_path)
    (tmp_path / "labels" / "train" / "0.txt").write_text(line)
    with pytest.raises(ValueError, match=message):
        opened(tmp_path, masks=False)


def test_voc_that_counts_from_0_and_difficult_objects(tmp_path) -> None:
    sets.voc(tmp_path)
    file = tmp_path / "Annotations" / "0.xml"
    file.write_text(file.read_text().replace("<xmin>5<", "<xmin>0<"))
    found = opened(tmp_path, masks=False)
    assert contents(found.train)[0][1][0][1][:2] == (0, 7), "a coordinate is 0, so the set counts from 0"
    other = tmp_path / "Annotations" / "7.xml"
    other.write_text(other.read_text().replace("<difficult>0", "<difficult>1", 1))
    target = opened(tmp_path, masks=False).eval()[1][1]
    assert sorted(target["iscrowd"].tolist()) == [False, True]


def test_yolo_boxes_belong_to_the_upright_picture(tmp_path) -> None:
    sets.yolo(tmp_path)
    picture = sets.picture(0).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned to the left: shown as it was
    (tmp_path / "images" / "train" / "0.png").unlink()
    picture.save(tmp_path / "images" / "train" / "0.jpg", exif=exif, quality=95)
    found = opened(tmp_path, masks=False)
    assert contents(found.train) == expected(sets.TRAIN)
    image, target = found.train[0]
    x1, y1, x2, y2 = (int(v) for v in target["boxes"][0])
    inside = image[:, y1 + 2 : y2 - 2, x1 + 2 : x2 - 2].mean((1, 2)) * 255
    assert (inside - torch.tensor(sets.PALETTE[1 + sets.boxes(0)[0][0]])).abs().max() < 12
