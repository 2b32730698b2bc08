"""`cats/indoor` and `dogs/indoor` became the classes `indoor` and `outdoor`, and a perfect `eval` hid it."""

import tarfile

import pytest

from litevit.data.class_folders import ClassFolders, natural_key, survey
from litevit.data.classification import ClassificationData, create_dataset
from litevit.data.token_labels import label_map_path

PLACES = ("indoor", "outdoor/day", "outdoor/night")


@pytest.fixture
def pets(tmp_path, photo):
    for name, shade in (("cats", 60), ("dogs", 160)):
        for place in PLACES:
            photo(tmp_path / "pets" / "val" / name / place / "1.png", shade)
    return tmp_path / "pets"


def test_the_class_is_the_first_folder(pets):
    dataset = create_dataset(ClassificationData(path=str(pets), num_classes=2, image_size=16), "eval")
    assert dataset.classes == ("cats", "dogs")
    assert [dataset[i][1] for i in range(6)] == [0, 0, 0, 1, 1, 1]
    assert [dataset.key(i) for i in range(3)] == [f"cats/{place}/1.png" for place in PLACES]
    assert survey(pets)[0].classes == {"cats": 3, "dogs": 3}


def test_label_maps_of_images_with_one_name_stay_apart(pets):
    dataset = create_dataset(ClassificationData(path=str(pets), num_classes=2, image_size=16), "eval")
    assert len({label_map_path(pets, dataset.key(i)) for i in range(6)}) == 6


@pytest.mark.parametrize("top", ["", "val/", "pets/", "anything/val/"])
def test_in_a_tar_too(pets, tmp_path, top):
    with tarfile.open(tmp_path / "pets.tar", "w") as archive:
        for name in ("cats", "dogs"):
            archive.add(pets / "val" / name, arcname=f"{top}{name}")
    dataset = create_dataset(ClassificationData(path=str(tmp_path / "pets.tar"), num_classes=2, image_size=16), "eval")
    assert dataset.classes == ("cats", "dogs")
    assert [dataset[i][1] for i in range(6)] == [0, 0, 0, 1, 1, 1]
    assert dataset.key(2) == "cats/outdoor/night/1.png"


def test_a_tar_of_each_class(pets, tmp_path):
    (tmp_path / "tars").mkdir()
    for name in ("cats", "dogs"):
        with tarfile.open(tmp_path / "tars" / f"{name}.tar", "w") as archive:
            archive.add(pets / "val" / name, arcname=".")
    with tarfile.open(tmp_path / "all.tar", "w") as archive:  # as ImageNet comes
        for name in ("cats", "dogs"):
            archive.add(tmp_path / "tars" / f"{name}.tar", arcname=f"{name}.tar")
    plain = create_dataset(ClassificationData(path=str(pets), num_classes=2, image_size=16), "eval")
    for path in (tmp_path / "tars", tmp_path / "all.tar"):
        packed = create_dataset(ClassificationData(path=str(path), num_classes=2, image_size=16), "eval")
        assert packed.classes == ("cats", "dogs")
        for i in range(6):
            assert packed.key(i) == plain.key(i)
            assert (packed[i][0] == plain[i][0]).all()


def test_natural_order_with_names_that_begin_alike(tmp_path, photo):
    for name in ("cat10", "cat", "cat2", "Cat", "2", "10"):
        photo(tmp_path / name / "1.png", 60)
    assert ClassFolders(tmp_path).classes == ("2", "10", "Cat", "cat", "cat2", "cat10")
    assert sorted(["b", "a1b", "a1", "a"], key=natural_key) == ["a", "a1", "a1b", "b"]


def test_a_link_to_a_folder_above_ends(pets):
    (pets / "val" / "cats" / "all").symlink_to(pets / "val")
    part = ClassFolders(pets / "val").part
    assert part.classes == {"cats": 3, "dogs": 3}
    assert part.left_out["a link to a folder that it lies in"].example == "cats/all"
