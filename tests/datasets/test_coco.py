"""COCO instances: labels, masks of every kind, what training leaves out, and clear words about wrong files."""

import json
import math
import re

import numpy as np
import pytest
import torch

from litevit.data.coco import CocoInstances, coco2017
from litevit.data.coco_masks import decode_masks, encode_masks, segmentation_to_rle

pytest.importorskip("faster_coco_eval", reason="COCO masks need faster-coco-eval (the extra 'coco')")


def test_evaluation_reads_everything(coco_content, write_coco_set) -> None:
    dataset = CocoInstances(*write_coco_set(coco_content))
    assert dataset.classes == ("ant", "cat", "zebra")
    assert dataset.category_ids == (2, 17, 90)
    assert [image["id"] for image in dataset.images] == [5, 12, 70]
    image, target = dataset[0]
    assert image.shape == (3, 40, 60)
    assert image.dtype == torch.uint8
    assert target["image_id"] == 5
    assert target["labels"].tolist() == [2, 0, 0]
    assert target["boxes"].tolist() == [[10, 5, 30, 15], [0.5, 20, 8.5, 32], [40, 20, 60, 30]]
    assert target["iscrowd"].tolist() == [False, False, True]
    assert target["area"].tolist() == [200, 48, 200]
    masks = target["masks"]
    assert masks.dtype == torch.bool
    assert masks[0].sum() == 200, "the polygon is the box"
    assert masks[0, 5:15, 10:30].all()
    assert masks[2].nonzero().amin(0).tolist() == [20, 40], "uncompressed run lengths"
    assert masks[2].sum() == 200
    assert dataset[2][1]["masks"][0].nonzero().tolist() == [[y, x] for y in range(5, 9) for x in range(10, 13)]


def test_image_without_objects_has_empty_tensors_of_the_right_shape(coco_content, write_coco_set) -> None:
    _, target = CocoInstances(*write_coco_set(coco_content))[1]
    shapes = {key: tuple(value.shape) for key, value in target.items() if isinstance(value, torch.Tensor)}
    assert shapes == {"boxes": (0, 4), "labels": (0,), "iscrowd": (0,), "area": (0,), "masks": (0, 40, 60)}


def test_training_leaves_out_crowds_thin_boxes_and_empty_images(coco_content, write_coco_set) -> None:
    for box, area in (([3, 3, 0.5, 9], 4), ([80, 5, 9, 9], 81), ([3, 3, -4, 9], 36), ([1, 1, 9, 9], 0)):
        extra = dict(coco_content["annotations"][0], id=len(coco_content["annotations"]) + 1, bbox=box, area=area)
        coco_content["annotations"].append(extra)
    paths = write_coco_set(coco_content)
    dataset = CocoInstances(*paths, train=True)
    objects = {reason: left.files for reason, left in dataset.part.left_out.items() if reason.startswith("object")}
    assert objects == {
        "object with a box narrower than one pixel": 1,
        "object with a box outside the image": 1,
        "object with a box negative size": 1,
        "object without area": 1,
    }
    assert dataset.part.left_out["image without an object to learn"] == (1, "b.png")
    assert [image["id"] for image in dataset.images] == [5, 70]
    assert dataset[0][1]["labels"].tolist() == [2, 0]
    assert len(CocoInstances(*paths, train=True, keep_empty=True)) == 3
    assert len(CocoInstances(*paths)[0][1]["labels"]) == 6, "evaluation leaves out the negative box alone"


def test_images_shorter_than_32_pixels_are_not_trained_on(coco_content, write_coco_set) -> None:
    coco_content["images"][0] |= {"height": 31, "width": 34}
    coco_content["annotations"][3]["segmentation"] = [[10, 5, 13, 5, 13, 9, 10, 9]]
    paths = write_coco_set(coco_content)
    assert [image["id"] for image in CocoInstances(*paths, train=True).images] == [5]
    assert len(CocoInstances(*paths)) == 3


def test_a_choice_of_classes_in_its_own_order(coco_content, write_coco_set) -> None:
    dataset = CocoInstances(*write_coco_set(coco_content), classes=("zebra", "ant"))
    assert dataset.category_ids == (90, 2)
    assert dataset[0][1]["labels"].tolist() == [0, 1, 1]
    assert len(dataset[2][1]["labels"]) == 0, "the cat is not asked for"
    with pytest.raises(ValueError, match="no category 'dog'; it has ant, cat, zebra"):
        CocoInstances(*write_coco_set(coco_content), classes=("dog",))


def test_five_hundred_objects(coco_content, write_coco_set) -> None:
    first = coco_content["annotations"][0]
    coco_content["annotations"] = [
        dict(first, id=k, bbox=[k % 25 * 2, k // 25 * 2, 2, 2], area=4,
             segmentation=[[k % 25 * 2, k // 25 * 2, k % 25 * 2 + 2, k // 25 * 2, k % 25 * 2 + 2, k // 25 * 2 + 2]])
        for k in range(500)
    ]  # fmt: skip
    _, target = CocoInstances(*write_coco_set(coco_content), train=True)[0]
    assert target["masks"].shape == (500, 40, 60)
    assert target["boxes"].shape == (500, 4)


def test_coco2017_layout(coco_content, write_coco_set, tmp_path) -> None:
    write_coco_set(coco_content, split="train")
    write_coco_set(coco_content, split="val")
    assert (len(coco2017(tmp_path, "train")), len(coco2017(tmp_path, "val"))) == (2, 3)
    with pytest.raises(ValueError, match="'train' or 'val'"):
        coco2017(tmp_path, "test")


def test_every_kind_of_segmentation_against_pycocotools() -> None:
    codec = pytest.importorskip("pycocotools.mask", reason="pycocotools is the reference here (the extra 'dev')")
    rng = np.random.default_rng(0)
    for _ in range(20):
        polygons = [(rng.uniform(-5, 70, size=2 * int(n))).round(2).tolist() for n in rng.integers(3, 9, size=2)]
        theirs = codec.decode(codec.merge(codec.frPyObjects(polygons, 48, 64)))
        ours = decode_masks([segmentation_to_rle(polygons, 48, 64)], 48, 64)[0]
        assert np.array_equal(ours.numpy(), theirs.astype(bool))
        compressed = encode_masks(ours[None])[0]
        assert compressed["counts"] == codec.encode(np.asfortranarray(theirs))["counts"].decode()
        assert torch.equal(decode_masks([segmentation_to_rle(compressed, 48, 64)], 48, 64)[0], ours)


def test_polygons_without_an_inside_are_an_empty_mask() -> None:
    assert segmentation_to_rle([[1, 1, 5, 5]], 20, 20) is None
    assert decode_masks([None], 20, 20).sum() == 0


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 1, 5, 5, 5, 1, 3]], "odd number"),
        ({"size": [20, 21], "counts": [420]}, r"\[20, 21\] \(height, width\), its image \[20, 20\]"),
        ({"size": [20, 20], "counts": [300]}, "add up to 300"),
        ("polygon", "list of polygons or a run length"),
        ([1, 1, 5, 5, 5, 1], "a polygon is a list of numbers x1, y1, x2, y2, ..., got 1"),
        ([["1", "1", "5", "5", "5", "1"]], "a polygon is a list of numbers"),
        ([[math.nan, 1, 5, 5, 5, 1]], "must be finite"),  # the codec would run for ever
        ([[1e9, 1, 5, 5, 5, 1]], "at most 1,000,000"),
        ({"size": None, "counts": [400]}, "a run-length mask is None"),
        ({"size": [20, 20], "counts": None}, "run lengths are a list of whole numbers, or compressed a string"),
        ({"size": [20, 20], "counts": [0.5, 399.5]}, "list of whole numbers"),
    ],
)
def test_wrong_segmentations(segmentation, message) -> None:
    with pytest.raises(ValueError, match=message):
        segmentation_to_rle(segmentation, 20, 20)


def test_a_wrong_mask_names_its_annotation(coco_content, write_coco_set) -> None:
    coco_content["annotations"][2]["segmentation"]["counts"] = [5]
    dataset = CocoInstances(*write_coco_set(coco_content))
    with pytest.raises(ValueError, match=r"instances_train2017.json: annotation 3: the run lengths"):
        dataset[0]


@pytest.mark.parametrize("counts", ["garbage!!", "52"])
def test_compressed_run_lengths_that_do_not_decode(counts, coco_content, write_coco_set) -> None:
    coco_content["annotations"][0]["segmentation"] = {"size": [40, 60], "counts": counts}
    with pytest.raises(ValueError, match=r"annotation 1: a compressed run-length mask cannot be decoded"):
        CocoInstances(*write_coco_set(coco_content))[0]


def test_null_is_as_good_as_nothing(coco_content, write_coco_set) -> None:
    coco_content["annotations"][0] |= {"area": None, "segmentation": None, "iscrowd": None}
    target = CocoInstances(*write_coco_set(coco_content), train=True)[0][1]
    assert target["area"][0] == 20 * 10, "the box's"
    assert not target["masks"][0].any()


@pytest.mark.parametrize(
    ("key", "field", "value"),
    [
        ("images", "height", "forty"),
        ("images", "id", [5]),
        ("images", "file_name", 5),
        ("annotations", "category_id", None),
        ("annotations", "area", "large"),
        ("categories", "id", "zebra"),
    ],
)
def test_fields_of_another_type(key, field, value, coco_content, write_coco_set) -> None:
    images, file = write_coco_set(coco_content)
    coco_content[key][0][field] = value
    file.write_text(json.dumps(coco_content))
    with pytest.raises(ValueError, match=rf"not in COCO's format: an entry has {re.escape(repr(value))} for '{field}'"):
        CocoInstances(images, file)


def test_missing_annotation_file(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no\.json does not exist"):
        CocoInstances(tmp_path, tmp_path / "no.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{not json", "is not JSON"),
        ("[1, 2]", "not in COCO's format.*found a list"),
        ('{"images": []}', "lists images, annotations, categories are needed"),
        ('{"images": [3], "annotations": [], "categories": []}', "every entry of 'images' must be an object"),
        ('{"images": [], "annotations": [], "categories": []}', "lists no images"),
        (
            '{"images": [{"id": 1, "file_name": "a"}], "annotations": [], "categories": [{"id": 1, "name": "x"}]}',
            "an entry has no 'height'",
        ),
    ],
)
def test_files_that_are_not_coco(text, message, write_coco_set) -> None:
    with pytest.raises(ValueError, match=message):
        CocoInstances(*write_coco_set(text))


def test_label_without_category_and_annotation_without_image(coco_content, write_coco_set) -> None:
    wrong = json.loads(json.dumps(coco_content))
    wrong["annotations"][1]["category_id"] = 4
    with pytest.raises(ValueError, match="annotation 2 has category 4, not listed"):
        CocoInstances(*write_coco_set(wrong))
    coco_content["annotations"][1]["image_id"] = 6
    with pytest.raises(ValueError, match="annotation 2 belongs to image 6, not listed"):
        CocoInstances(*write_coco_set(coco_content))


def test_nothing_to_train_on(coco_content, write_coco_set) -> None:
    coco_content["annotations"] = []
    with pytest.raises(ValueError, match="none of its 3 images has an object"):
        CocoInstances(*write_coco_set(coco_content), train=True)


def test_missing_broken_and_resized_images(coco_content, write_coco_set) -> None:
    images, file = write_coco_set(coco_content)
    dataset = CocoInstances(images, file)
    (images / "a.png").write_bytes((images / "a.png").read_bytes()[:300])
    with pytest.raises(ValueError, match=r"a\.png is damaged or truncated"):
        dataset[0]
    (images / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.png: No such file"):
        dataset[0]
    (images / "b.png").write_bytes((images / "c.png").read_bytes())
    with pytest.raises(ValueError, match=r"b\.png is 34 x 50 .*annotation says 60 x 40"):
        dataset[1]
