"""The doctor passed what training refused, and took the unknown for class folders: one function recognises all."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import annotated_sets as sets
from litevit.data.dense import DetectionData, DetectionSets, SegmentationData, SegmentationSets
from litevit.data.doctor import examine
from litevit.data.layouts import find_layout

pytest.importorskip("faster_coco_eval", reason="COCO masks need faster-coco-eval (the extra 'coco')")

OBJECTS = [sets.official, sets.roboflow, sets.cvat, sets.other_folder, sets.label_studio, sets.yolo, sets.yolo_roboflow,
           sets.voc, sets.voc_beside]  # fmt: skip
MASKS = [sets.masks, sets.masks_in_splits, sets.masks_beside, sets.flat_masks, sets.cvat_masks]


def problems(report) -> dict[str, int]:
    return {finding.problem: finding.count for finding in report.findings}


@pytest.mark.parametrize("write", OBJECTS)
def test_layouts_of_objects(write, tmp_path) -> None:
    report = examine(write(tmp_path))
    assert report.exit_code == 0, report.render()
    opened = DetectionSets(DetectionData(path=str(tmp_path), masks=False), cache=tmp_path)
    opened.eval()
    assert find_layout(tmp_path, "instances").name in report.layout
    assert report.counts["images"] == 8
    totals = {name: sum(part.classes[name] for part in opened.parts) for name in sets.CLASSES}
    seen = {name: sum(counts[name] for counts in report.classes.values()) for name in sets.CLASSES}
    assert seen == totals


@pytest.mark.parametrize("write", MASKS)
def test_layouts_of_masks(write, tmp_path) -> None:
    report = examine(write(tmp_path))
    assert report.exit_code == 0, report.render()
    SegmentationSets(SegmentationData(path=str(tmp_path)), cache=tmp_path).eval()
    assert report.counts["images"] == 8


def test_a_panoptic_set_is_no_set_of_masks(tmp_path) -> None:
    sets.panoptic(tmp_path)
    (tmp_path / "images").mkdir()
    shutil.copy(tmp_path / "train2017" / "0.png", tmp_path / "images")
    assert examine(tmp_path).layout.startswith("COCO 2017 panoptic")


def change_json(root, change) -> None:
    file = root / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def set_all(key, **values):
    def change(content):
        for entry in content[key]:
            entry |= values

    return change


def first(key, number=0, **values):
    def change(content):
        content[key][number] |= values

    return change


REFUSED = [
    (first("images", 1, id=0), "image ids used twice"),
    (first("annotations", iscrowd="maybe"), "iscrowd that is neither 0 nor 1"),
    (first("annotations", category_id=9), "annotations of a category that is not listed"),
    (first("annotations", image_id=99), "annotations of an image that is not listed"),
    (first("annotations", segmentation=[]), "annotations without a mask"),
    (first("images", file_name="gone.png"), "missing images"),
    (set_all("annotations", bbox=[3, 3, 0, 0]), "splits without an object to learn"),
]


@pytest.mark.parametrize(("change", "problem"), REFUSED)
def test_what_training_refuses_is_an_error(change, problem, tmp_path) -> None:
    change_json(sets.official(tmp_path), change)
    report = examine(tmp_path)
    assert problem in problems(report)
    assert report.exit_code == 1
    with pytest.raises((ValueError, OSError)):
        DetectionSets(DetectionData(path=str(tmp_path)), cache=tmp_path)


READ = [
    (set_all("annotations", iscrowd="0"), "values of another type (read as what they mean)"),
    (set_all("images", height="48"), "values of another type (read as what they mean)"),
    (set_all("annotations", segmentation=[]), "boxes without any mask (no set for Mask R-CNN)"),
    (first("annotations", bbox=[3, 3, 0, 0]), "boxes: narrower than one pixel (left out of training)"),
    (first("annotations", bbox=[300, 3, 9, 9]), "boxes: outside the image (left out of training)"),
]


@pytest.mark.parametrize(("change", "problem"), READ)
def test_what_training_reads_is_a_warning(change, problem, tmp_path) -> None:
    change_json(sets.official(tmp_path), change)
    report = examine(tmp_path)
    assert problem in problems(report)
    assert report.exit_code == 0
    DetectionSets(DetectionData(path=str(tmp_path), masks=False), cache=tmp_path)


def test_many_objects_in_an_image(tmp_path) -> None:
    def crowd(content):
        one = content["annotations"][0]
        content["annotations"] += [one | {"id": 100 + k, "bbox": [k % 50, k % 30, 9, 9]} for k in range(300)]

    change_json(sets.official(tmp_path), crowd)
    name = "images with more than 100 objects (--model.overrides.max_detections; COCO's AP counts 100)"
    assert problems(examine(tmp_path))[name] == 1


def test_values_that_cannot_mean_what_the_setting_says(tmp_path, litevit) -> None:
    sets.ade(tmp_path / "a")
    report = examine(tmp_path / "a")
    assert problems(report)["masks that cannot mean what the setting says"] == 1, "training's decide"
    assert examine(tmp_path / "a", reduce_zero_label=False).exit_code == 0
    assert litevit("doctor", tmp_path / "a")[0] == 1
    assert litevit("doctor", tmp_path / "a", "--reduce-zero-label", "False")[0] == 0
    white = lambda values: np.where(values > 0, 255, 0).astype(np.uint8)  # noqa: E731
    sets.masks(tmp_path / "b", names=["ground", "insect"], change=white)
    assert examine(tmp_path / "b").exit_code == 1


def test_pictures_that_are_stored_unusually(tmp_path) -> None:
    sets.official(tmp_path)
    folder = tmp_path / "train2017"
    picture = Image.open(folder / "0.png").convert("RGB")
    picture.convert("RGBA").save(folder / "0.png")
    exif = Image.Exif()
    exif[0x0112] = 3
    picture.save(folder / "1.png", exif=exif)
    Image.fromarray(np.full((sets.H, sets.W), 30_000, dtype=np.uint16)).save(folder / "2.png")
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:300])
    found = problems(examine(tmp_path))
    assert found["pictures with alpha (read on white)"] == 1
    assert found["annotated pictures that EXIF turns"] == 1
    assert found["16-bit pictures (read as 8-bit)"] == 1
    assert found["broken images"] == 1


def test_class_folders_as_training_reads_them(tmp_path) -> None:
    for split in ("train", "val"):
        for k, name in enumerate(("ant", "bee")):
            for n in range(2):
                path = tmp_path / split / name / "inside" / f"{n}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                sets.picture(n + 2 * k + 4 * (split == "val")).save(path)
    (tmp_path / "train" / ".cache").mkdir()
    report = examine(tmp_path)
    assert report.exit_code == 0
    assert report.classes == {"train": {"ant": 2, "bee": 2}, "val": {"ant": 2, "bee": 2}}
    assert problems(report) == {"left out: hidden": 1}
    sets.picture(40).save(tmp_path / "train" / "loose.png")
    assert problems(examine(tmp_path))["splits that cannot be read"] == 1


def test_unsorted_pictures_are_no_data_set(tmp_path, litevit) -> None:
    sets.write_pictures(tmp_path / "set", range(3))
    code, _, said = litevit("doctor", tmp_path / "set")
    assert code == 2
    assert "3 images lie directly in it, and nothing says what they show" in said
    assert litevit("doctor", tmp_path / "nowhere")[0] == 2


def test_boxes_on_the_page_lie_in_the_upright_picture(tmp_path) -> None:
    sets.official(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    sets.picture(0).save(tmp_path / "train2017" / "0.png", exif=exif)
    shown = {path.name: boxes for path, boxes in examine(tmp_path).shown}
    (_, (x, y, w, h)) = sets.boxes(0)[0]
    assert shown["0.png"] == [("ant", (sets.H - y - h, x, h, w))]
    (_, box) = sets.boxes(2)[0]
    assert shown["2.png"] == [("ant", box)]


def test_findings_as_json(tmp_path, litevit) -> None:
    change_json(sets.official(tmp_path), first("annotations", iscrowd="maybe"))
    code, out, _ = litevit("doctor", tmp_path, "--json")
    content = json.loads(out)
    assert code == content["exit_code"] == 1
    assert content["findings"][0]["problem"] == "iscrowd that is neither 0 nor 1"
    assert content["classes"]["train"] == {"ant": 6, "bee": 3}


def test_a_page_with_pictures(tmp_path, litevit) -> None:
    change_json(sets.official(tmp_path / "set"), first("annotations", bbox=[50, 30, 60, 60]))
    code, _, said = litevit("doctor", tmp_path / "set", "--report", tmp_path / "page.html")
    assert code == 0, said
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 1 + 6 + 2, "the finding, and some pictures of each split"
    assert "boxes: partly outside the image (clipped)" in page
    for word in ("ant", "bee", "Sizes of the objects", "64 x 48"):
        assert word in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", ""), "nothing is fetched"
    assert litevit("doctor", tmp_path / "set", "--report", tmp_path)[0] == 2


def test_nothing_that_can_be_read_is_one_line_from_both(tmp_path, litevit) -> None:
    """No class in YOLO's file, no name in VOC's, half a JSON."""
    yolo, voc, half = tmp_path / "yolo", tmp_path / "voc", tmp_path / "half"
    sets.write_pictures(yolo / "images" / "train", range(2))
    (yolo / "data.yaml").write_text("train: images/train\nval: images/val\nnames: []\n")
    sets.write_pictures(voc / "JPEGImages", range(1))
    (voc / "Annotations").mkdir()
    (voc / "Annotations" / "0.xml").write_text("<annotation></annotation>")
    (half / "annotations").mkdir(parents=True)
    (half / "annotations" / "instances_train.json").write_text('{"images": [')
    for root, words in (
        (yolo, "names no classes"),
        (voc, "no object in its XML files has a name"),
        (half, "is not JSON"),
    ):
        code, out, said = litevit("doctor", root)
        assert code == 1, said
        assert words in out
        code, _, said = litevit("train", "quickstart-detection", "--data", root)
        assert code == 2
        assert words in said
        assert "Traceback" not in said
