"""The doctor: each kind of damage is found, counted and named, and a healthy set passes."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from litevit.data.doctor import Report, examine

pytest.importorskip("faster_coco_eval", reason="COCO masks need faster-coco-eval (the extra 'coco')")


def found(report: Report) -> dict[str, int]:
    return {finding.problem: finding.count for finding in report.findings}


@pytest.fixture
def healthy(coco_content, write_coco_set, tmp_path):
    """A COCO folder with two splits; returns its root, and functions to damage the training split."""
    val = json.loads(json.dumps(coco_content))
    for image in val["images"]:
        image["id"] += 1000
    for annotation in val["annotations"]:
        annotation["image_id"] += 1000
    del coco_content["annotations"][1]["segmentation"][1]  # the polygon of two points
    del val["annotations"][1]["segmentation"][1]
    write_coco_set(coco_content)
    images, _ = write_coco_set(val, split="val")
    for file in images.iterdir():  # other pictures than the training's
        Image.fromarray(255 - np.array(Image.open(file))).save(file)
    return tmp_path


def test_a_healthy_set_passes(healthy) -> None:
    report = examine(healthy)
    assert report.exit_code == 0
    assert found(report) == {}
    assert report.counts == {"images": 6, "annotations": 8, "crowds": 2, "images without objects": 2}
    assert report.render().endswith("0 kinds of errors, 0 kinds of warnings")


def test_one_file_alone(healthy) -> None:
    assert examine(healthy / "annotations" / "instances_val2017.json").counts["images"] == 3


def test_damaged_pictures_and_splits(healthy) -> None:
    train, val = healthy / "train2017", healthy / "val2017"
    (val / "c.png").write_bytes((train / "c.png").read_bytes())
    (train / "b.png").write_bytes((train / "a.png").read_bytes()[:200])
    (train / "a.png").unlink()
    Image.new("RGB", (61, 40)).save(val / "a.png")
    report = examine(healthy)
    assert report.exit_code == 1
    assert found(report) == {
        "missing images": 1,
        "broken images": 1,
        "images of another size than the annotations say": 1,
        "the same image in two splits": 1,
    }
    text = report.render()
    assert "a.png is 61 x 40, instances_val2017.json says 60 x 40" in text
    assert "error: missing images: 1" in text


def test_the_same_image_twice_in_a_split_is_a_warning(healthy) -> None:
    (healthy / "train2017" / "b.png").write_bytes((healthy / "train2017" / "a.png").read_bytes())
    report = examine(healthy)
    assert found(report) == {"the same image twice in a split": 1}
    assert report.exit_code == 0


def test_damaged_annotations(healthy, coco_content, write_coco_set) -> None:
    first = coco_content["annotations"][0]
    square = [[1, 1, 9, 1, 9, 9, 1, 9]]
    coco_content["annotations"] += [
        dict(first, id=11, bbox=[5, 5, -3, 9]),
        dict(first, id=12, bbox=[500, 5, 9, 9], segmentation=square),
        dict(first, id=13, bbox=[5, 5, 0.2, 9], segmentation=square),
        dict(first, id=14, bbox=[50, 5, 30, 9], segmentation=square),
        dict(first, id=15, bbox=[1, 1, 9, float("1e400")], segmentation=square),
        dict(first, id=16, bbox=[1, 2, 3]),
        dict(first, id=17, category_id=77, bbox=[2, 2, 9, 9]),
        dict(first, id=18, image_id=77),
        dict(first, id=19),
        dict(first, id=20, bbox=[3, 3, 9, 9], segmentation=[[1, 1, 5, 5]]),
        dict(first, id=21, bbox=[4, 4, 9, 9], segmentation={"size": [40, 60], "counts": [7]}),
        dict(first, id=22, bbox=[5, 4, 9, 9], segmentation=[]),
        dict(first, id=22, bbox=[6, 4, 9, 9], area=0),
        {"id": 23, "image_id": 5},
    ]
    write_coco_set(coco_content)
    report = examine(healthy / "annotations" / "instances_train2017.json", examples=1)
    assert report.exit_code == 1
    assert found(report) == {
        "annotation ids used twice": 1,
        "boxes: negative size": 1,
        "boxes: outside the image (left out of training)": 1,
        "boxes: narrower than one pixel (left out of training)": 1,
        "boxes: partly outside the image (clipped)": 1,
        "boxes: not finite": 1,
        "boxes: not four numbers": 1,
        "annotations of a category that is not listed": 1,
        "annotations of an image that is not listed": 1,
        "objects annotated twice": 1,
        "polygons of fewer than three points (left out)": 1,
        "annotations whose polygons enclose nothing": 1,
        "masks that cannot be read": 1,
        "annotations without a mask": 1,
        "annotations without area (left out of training)": 1,
        "annotations without image_id, category_id or bbox": 1,
    }


@pytest.mark.parametrize(
    ("key", "change", "problem"),
    [
        ("images", {"height": "forty"}, "images without id, file_name, height or width"),
        ("images", {"id": [5]}, "images without id, file_name, height or width"),
        ("categories", {"id": "zebra"}, "categories without id, name"),
        ("annotations", {"category_id": [90]}, "annotations without image_id, category_id or bbox"),
        ("annotations", {"segmentation": [[float("nan"), 5, 30, 5, 30, 15]]}, "masks that cannot be read"),
        ("annotations", {"segmentation": [[None] * 6]}, "masks that cannot be read"),
        ("annotations", {"segmentation": {"size": [40, 60], "counts": "garbage!!"}}, "masks that cannot be read"),
    ],
)
def test_values_of_another_type(key, change, problem, healthy, coco_content) -> None:
    coco_content[key][0] |= change
    file = healthy / "annotations" / "instances_train2017.json"
    file.write_text(json.dumps(coco_content))
    report = examine(file)
    assert report.exit_code == 1
    assert found(report)[problem] == 1


def test_ids_that_are_names_are_one_finding(healthy, coco_content) -> None:
    """Every annotation was of an unlisted category besides, and the file without categories."""
    names = {category["id"]: category["name"] for category in coco_content["categories"]}
    for category in coco_content["categories"]:
        category["id"] = category["name"]
    for annotation in coco_content["annotations"]:
        annotation["category_id"] = names[annotation["category_id"]]
    file = healthy / "annotations" / "instances_train2017.json"
    file.write_text(json.dumps(coco_content))
    report = examine(file)
    errors = {finding.problem: finding.count for finding in report.findings if finding.severity == "error"}
    assert errors == {"categories without id, name": len(names)}
    assert "for 'id', which must be a whole number" in report.render()


def test_a_json_without_categories_is_coco_with_something_missing(healthy, coco_content) -> None:
    """A folder of images with such a file was read as one class."""
    root = healthy / "other"
    shutil.copytree(healthy / "train2017", root / "images")
    del coco_content["categories"]
    (root / "labels.json").write_text(json.dumps(coco_content))
    report = examine(root)
    assert found(report)["unreadable annotation files"] == 1
    assert "the lists images, annotations, categories are needed" in report.render()


def test_null_area_is_no_problem(healthy, coco_content, write_coco_set) -> None:
    coco_content["annotations"][0]["area"] = None
    write_coco_set(coco_content)
    assert found(examine(healthy)) == {}


def test_categories_that_differ_and_ids_that_repeat(healthy, coco_content, write_coco_set) -> None:
    coco_content["categories"] += [{"id": 91, "name": "zebra"}, {"id": 2, "name": "ant"}]
    coco_content["images"].append(dict(coco_content["images"][0]))
    write_coco_set(coco_content)
    problems = found(examine(healthy))
    assert problems["categories have other ids, or some are missing, in a split (matched by name)"] == 1
    assert problems["category ids used twice"] == 1
    assert problems["category names used twice"] == 2
    assert problems["image entries repeated (read once)"] == 1
    coco_content["categories"].append({"id": 99, "name": "yak"})
    write_coco_set(coco_content, split="val")
    assert found(examine(healthy))["categories differ between the splits"] == 1
    assert problems["categories without an object in a split"] == 1


def test_splits_that_list_the_same_images(healthy, coco_content, write_coco_set) -> None:
    write_coco_set(coco_content, split="val")
    report = examine(healthy)
    assert found(report)["the same image in two splits"] == 3


def test_unreadable_files_do_not_hide_the_others(healthy) -> None:
    (healthy / "annotations" / "instances_train2017.json").write_text("{")
    report = examine(healthy)
    assert found(report) == {"unreadable annotation files": 1}
    assert report.counts["images"] == 3
    assert report.exit_code == 1


def test_annotations_of_one_split_only(healthy) -> None:
    (healthy / "annotations" / "instances_train2017.json").unlink()
    report = examine(healthy)
    assert found(report) == {"missing annotation files": 1}
    assert "instances_train2017.json" in report.render()
    assert report.exit_code == 1


def test_panoptic_damage(panoptic_content, write_panoptic_set, tmp_path) -> None:
    content, maps = panoptic_content
    write_panoptic_set(content, maps)
    clean = examine(tmp_path)
    assert clean.exit_code == 0
    hold_out = "no split to evaluate on (--data.hold_out holds a share of the images out)"
    assert found(clean) == {"categories without an object in a split": 1, hold_out: 1}
    maps["a.png"][maps["a.png"] == 9] = 8
    maps["a.png"][0, 0] = 7
    content["annotations"][0]["segments_info"][0]["category_id"] = 6
    content["images"].append({"id": 6, "file_name": "b.png", "height": 40, "width": 60})
    content["annotations"].append({"image_id": 6, "file_name": "b.png", "segments_info": []})
    content["images"].append({"id": 7, "file_name": "c.png", "height": 41, "width": 60})
    write_panoptic_set(content, maps)
    problems = found(examine(tmp_path))
    assert problems["PNG ids that the JSON does not list"] == 1
    assert problems["JSON segments that the PNG does not have"] == 1
    assert problems["segments with another area than the PNG's"] == 2
    assert problems["segments of a category that is not listed"] == 1
    assert problems["missing panoptic maps"] == 1
    assert problems["images without a panoptic annotation"] == 1
    assert examine(tmp_path).exit_code == 1
    content["annotations"][0]["segments_info"] = [3, {"category_id": 3}]
    content["annotations"][1]["segments_info"] = None
    write_panoptic_set(content, maps)
    problems = found(examine(tmp_path))
    assert problems["segments without id or category_id"] == 2
    assert problems["annotations without image_id, file_name or segments_info"] == 1
    content["annotations"] = []
    write_panoptic_set(content, maps)
    assert found(examine(tmp_path))["images without a panoptic annotation"] == 3


def test_segmentation_layout(ade_root) -> None:
    clean = examine(ade_root)
    assert clean.exit_code == 0
    assert found(clean) == {}
    assert clean.counts["images"] == 3
    assert clean.counts["ignored pixels"] == 3 * 4 * 40

    train = ade_root / "annotations" / "training"
    values = np.array(Image.open(train / "x.png"))
    values[0, :3] = (4, 9, 255)
    Image.fromarray(values).save(train / "x.png")
    Image.open(train / "y.png").crop((0, 0, 20, 32)).convert("P").save(train / "y.png")
    Image.new("L", (5, 5)).save(train / "lonely.png")
    Image.new("L", (40, 24)).save(ade_root / "annotations" / "validation" / "z.png")
    report = examine(ade_root)
    assert found(report) == {
        "mask values outside the 3 classes": 1,
        "masks of another size than their image": 1,
        "palette masks (their indices are read, not their colours)": 1,
        "masks without an image": 1,
        "masks that are all ignore": 1,
        "classes without a pixel in a split": 3,
        "masks that cannot mean what the setting says": 1,
    }
    assert report.exit_code == 1
    assert "[4, 9]" in report.render()


def test_segmentation_without_classes_or_masks(ade_root) -> None:
    (ade_root / "classes.json").unlink()
    (ade_root / "annotations" / "validation" / "z.png").unlink()
    Image.new("RGB", (40, 24), "red").save(ade_root / "annotations" / "training" / "x.png")
    assert found(examine(ade_root)) == {"class list": 1, "broken masks": 1, "missing masks": 1}


@pytest.mark.parametrize("names", [[], ["x"] * 256])
def test_segmentation_with_too_few_or_too_many_classes(names, ade_root) -> None:
    (ade_root / "classes.json").write_text(json.dumps(names))
    report = examine(ade_root)
    assert report.exit_code == 1
    assert f"{len(names)} names, 1 to 255 are possible" in report.render()


def test_one_split_alone_is_a_warning(ade_root) -> None:
    shutil.rmtree(ade_root / "images" / "validation")
    report = examine(ade_root)
    assert report.exit_code == 0
    assert found(report)["missing splits"] == 1


def test_class_folders(tmp_path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for k in range(2):
                Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(
                    tmp_path / split / name / f"{k}.png"
                )
    assert examine(tmp_path).exit_code == 0
    assert examine(tmp_path).counts["images"] == 8
    (tmp_path / "train" / "dog" / "0.png").write_bytes(b"no picture")
    (tmp_path / "val" / "cat" / "1.png").write_bytes((tmp_path / "train" / "cat" / "1.png").read_bytes())
    (tmp_path / "val" / "eel").mkdir()
    assert found(examine(tmp_path)) == {
        "broken images": 1,
        "classes without an image": 1,
        "the same image in two splits": 1,
    }


def test_paths_that_are_no_data_set(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        examine(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"in no known layout. Looked for annotated objects: COCO 2017"):
        examine(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match="give a folder, a COCO-format"):
        examine(tmp_path / "notes.txt")


def test_examples_are_limited_and_the_rest_is_counted(healthy) -> None:
    for name in ("a.png", "b.png", "c.png"):
        (healthy / "train2017" / name).unlink()
    text = examine(healthy, examples=1).render()
    assert "error: missing images: 3" in text
    assert "and 2 more" in text
