"""Annotation files whose values have another type than COCO's, and ids that repeat."""

import json
from pathlib import Path

import pytest

import annotated_sets as sets
from litevit.data.coco import CocoInstances

pytest.importorskip("faster_coco_eval", reason="COCO masks need faster-coco-eval (the extra 'coco')")


def read(root: Path, change, **options) -> CocoInstances:
    numbers = range(4)
    sets.write_pictures(root / "images", numbers)
    content = sets.coco(numbers)
    change(content)
    return CocoInstances(root / "images", sets.write_json(root / "set.json", content), **options)


def objects(dataset: CocoInstances) -> list[int]:
    return [len(found) for found in dataset.objects]


@pytest.mark.parametrize("word", ["0", "false", "False", False, None, 0.0])
def test_iscrowd_as_text_is_no_crowd(word, tmp_path) -> None:
    """They were taken for crowds, and left training without a word."""

    def change(content):
        for annotation in content["annotations"]:
            annotation["iscrowd"] = word

    dataset = read(tmp_path, change, train=True)
    assert objects(dataset) == [1, 2, 1, 2]
    assert not dataset[1][1]["iscrowd"].any()


@pytest.mark.parametrize("word", ["1", "true", True])
def test_iscrowd_as_text_is_a_crowd(word, tmp_path) -> None:
    def change(content):
        content["annotations"][0]["iscrowd"] = word

    assert objects(read(tmp_path, change)) == [1, 2, 1, 2]
    assert len(read(tmp_path, change, train=True)) == 3


def test_iscrowd_that_is_no_flag_is_refused(tmp_path) -> None:
    def change(content):
        content["annotations"][0]["iscrowd"] = "maybe"

    with pytest.raises(ValueError, match="iscrowd must be 0 or 1, got 'maybe' in entry 1"):
        read(tmp_path, change)


def test_repeated_image_ids_are_refused(tmp_path) -> None:
    """Both images got both images' boxes."""

    def change(content):
        content["images"][1]["id"] = 0

    with pytest.raises(ValueError, match=r"the image id 0 is used by 0\.png and 1\.png"):
        read(tmp_path, change)


def test_an_image_listed_twice_is_read_once(tmp_path) -> None:
    def change(content):
        content["images"].append(dict(content["images"][0]))

    assert len(read(tmp_path, change)) == 4


def test_ids_with_a_point_or_as_text(tmp_path) -> None:
    def change(content):
        for image in content["images"]:
            image["id"] = float(image["id"])
            image["height"], image["width"] = str(image["height"]), float(image["width"])
        for annotation in content["annotations"]:
            annotation["image_id"] = str(annotation["image_id"])
            annotation["category_id"] = str(annotation["category_id"])
            annotation["bbox"] = [str(v) for v in annotation["bbox"]]
            annotation["area"] = str(annotation["area"])
        for category in content["categories"]:
            category["id"] = float(category["id"])

    dataset = read(tmp_path, change, train=True)
    plain = read(tmp_path, lambda content: None, train=True)
    assert objects(dataset) == objects(plain)
    assert dataset.category_ids == (1, 2)
    assert all(isinstance(i, int) for i in dataset.category_ids)
    for (_, ours), (_, theirs) in zip(dataset, plain):
        assert (ours["boxes"] == theirs["boxes"]).all()
        assert ours["image_id"] == theirs["image_id"]


def test_a_byte_order_mark(tmp_path) -> None:
    read(tmp_path, lambda content: None)
    file = tmp_path / "set.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(CocoInstances(tmp_path / "images", file)) == 4


def test_images_without_a_size_get_their_own(tmp_path) -> None:
    def change(content):
        for image in content["images"]:
            del image["height"]
            image["width"] = 0

    assert read(tmp_path, change).images[0] | {"id": 0} == {"id": 0, "file_name": "0.png", "height": 48, "width": 64}


def test_empty_and_outside_boxes_are_left_out_and_counted(tmp_path) -> None:
    def change(content):
        content["annotations"][0]["bbox"] = [4, 6, 0, 0]
        content["annotations"][1]["bbox"] = [400, 6, 9, 9]

    dataset = read(tmp_path, change, train=True)
    left = {reason: item.files for reason, item in dataset.part.left_out.items()}
    assert left == {
        "object with a box narrower than one pixel": 1,
        "object with a box outside the image": 1,
        "image without an object to learn": 1,
    }


def test_no_object_left_says_why(tmp_path) -> None:
    def change(content):
        for annotation in content["annotations"]:
            annotation["bbox"] = [4, 6, 0, 0]

    with pytest.raises(ValueError, match=r"none of its 4 images has an object .* 6 x object with a box narrower"):
        read(tmp_path, change, train=True)


def test_two_categories_of_one_id_are_refused(tmp_path) -> None:
    def change(content):
        content["categories"][1]["id"] = 1
        for annotation in content["annotations"]:
            annotation["category_id"] = 1

    with pytest.raises(ValueError, match="the category id 1 is used by 'ant' and 'bee'"):
        read(tmp_path, change)


def test_roboflows_group_is_no_class_unless_it_has_objects(tmp_path) -> None:
    def change(content):
        content["categories"].insert(0, {"id": 0, "name": "insects", "supercategory": "none"})
        for category in content["categories"][1:]:
            category["supercategory"] = "insects"

    assert read(tmp_path, change).classes == ("ant", "bee")

    def used(content):
        change(content)
        content["annotations"][0]["category_id"] = 0

    assert read(tmp_path, used).classes == ("insects", "ant", "bee")


def test_a_file_that_is_no_json(tmp_path) -> None:
    read(tmp_path, lambda content: None)
    (tmp_path / "set.json").write_text(json.dumps(sets.coco(range(2)))[:100])
    with pytest.raises(ValueError, match="is not JSON"):
        CocoInstances(tmp_path / "images", tmp_path / "set.json")
