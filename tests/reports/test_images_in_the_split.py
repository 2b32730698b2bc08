"""Images that lay directly in `train/` became a class called `train`."""

import pytest

from litevit.data.class_folders import find_split, splits_of
from litevit.data.classification import ClassificationData, create_dataset


def test_they_are_refused(photos, litevit, photo):
    for i in range(5):
        photo(photos / "train" / f"{i}.png", 60)
    code, _, said = litevit("train", "finetune", "--data", photos, "--model.weights", "None")
    assert code == 2
    assert f"5 images lie directly in {photos}/train (0.png, 1.png, 2.png, ...)" in said
    assert "It also has the folders bee, cow, dog." in said
    assert "Traceback" not in said


def test_a_split_without_any_folder(tmp_path, photo):
    photo(tmp_path / "train" / "1.png", 60)
    photo(tmp_path / "val" / "1.png", 60)
    with pytest.raises(ValueError, match=r"1 images lie directly in .*train \(1\.png\)"):
        create_dataset(ClassificationData(path=str(tmp_path), num_classes=2), "train")


def test_a_class_of_trains_is_a_class(tmp_path, photo):
    for name in ("train", "bus"):
        photo(tmp_path / name / "1.png", 60)
    assert splits_of(tmp_path) == {}
    assert find_split(tmp_path, "train") == tmp_path


@pytest.mark.parametrize("spelled", ["Train", "TRAIN", "training"])
def test_splits_in_other_spellings(photos, spelled):
    (photos / "train").rename(photos / spelled)
    (photos / "val").rename(photos / "Valid")
    data = ClassificationData(path=str(photos), num_classes=3, image_size=16)
    assert len(create_dataset(data, "train")) == 12
    assert len(create_dataset(data, "eval")) == 6
