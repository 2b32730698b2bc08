"""One class trained at loss 0; a held-out share of nothing ended in a traceback."""

import pytest

from litevit.data.classification import ClassificationData, create_dataset


def test_one_class_is_refused(tmp_path, photo, litevit):
    for i in range(6):
        photo(tmp_path / "photos" / "cat" / f"{i}.png", 60)
    code, _, said = litevit("train", "finetune", "--data", tmp_path / "photos", "--model.weights", "None")
    assert code == 2
    assert "has one class, so there is nothing to tell apart" in said
    assert not (tmp_path / "runs").exists()


def test_a_share_of_nothing(tmp_path, photo):
    for name in ("cat", "dog"):
        photo(tmp_path / name / "1.png", 60)
    data = ClassificationData(path=str(tmp_path), num_classes=2, hold_out=0.1)
    with pytest.raises(ValueError, match=r"hold_out 0\.1 leaves nothing to evaluate on: every class of .* has one"):
        create_dataset(data, "train")


def test_a_share_never_takes_all_of_a_class(tmp_path, photo):
    for name in ("cat", "dog"):
        for i in range(3):
            photo(tmp_path / name / f"{i}.png", 60 + i)
    data = ClassificationData(path=str(tmp_path), num_classes=2, hold_out=0.95, image_size=16)
    assert sorted(create_dataset(data, "train").reader.targets) == [0, 1]


def test_only_a_train_folder_and_a_share_of_it(photos):
    """The recipe says that a share is held out where there is no `val`: it was refused."""
    (photos / "val").rename(photos.parent / "elsewhere")
    data = ClassificationData(path=str(photos), num_classes=3, hold_out=0.25, image_size=16)
    assert [len(create_dataset(data, split)) for split in ("train", "eval")] == [9, 3]


def test_an_empty_evaluation_folder(photos, litevit):
    (photos / "val").rename(photos.parent / "elsewhere")
    (photos / "val").mkdir()
    code, _, said = litevit("train", "finetune", "--data", photos, "--model.weights", "None")
    assert code == 2
    assert f"No images under {photos}/val" in said
