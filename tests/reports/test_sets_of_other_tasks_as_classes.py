"""COCO's `train2017/` and `val2017/`, a Roboflow export, `images/` with `masks/`: trained as classes of those names."""

import json

import pytest

from litevit.data.classification import ClassificationData, create_dataset

COCO = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}


@pytest.mark.parametrize(
    ("images", "others", "words"),
    [
        (("train2017", "val2017"), {"annotations/instances_train2017.json": COCO}, "COCO 2017 .*for a detector"),
        (("train", "valid"), {"train/_annotations.coco.json": COCO, "valid/_annotations.coco.json": COCO}, "Roboflow"),
        (("images", "masks"), {}, "images/ and masks/ .*for a segmenter"),
    ],
)
def test_they_are_named_and_refused(tmp_path, photo, litevit, images, others, words):
    for folder in images:
        for i in range(4):
            photo(tmp_path / "set" / folder / f"{i}.png", 60 + i)
    for name, content in others.items():
        (tmp_path / "set" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "set" / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"set is {words}"):
        create_dataset(ClassificationData(path=str(tmp_path / "set"), num_classes=2, hold_out=0.25), "train")
    code, _, said = litevit("train", "finetune", "--data", tmp_path / "set", "--model.weights", "None")
    assert code == 2
    assert "classes in" not in said


def test_class_folders_with_a_note_beside_them_are_class_folders(photos):
    (photos / "classes.json").write_text(json.dumps(["bee", "cow", "dog"]))
    (photos / "annotations").mkdir()
    (photos / "annotations" / "list.json").write_text(json.dumps({"bee": 4}))
    assert len(create_dataset(ClassificationData(path=str(photos), num_classes=3, image_size=16), "train")) == 12
