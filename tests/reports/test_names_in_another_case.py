"""A set that was annotated where `1.jpg` and `1.JPG` are one file, read where they are two."""

import json
from pathlib import Path

import pytest

import annotated_sets as sets
from litevit.data.dense import DetectionData, DetectionSets
from litevit.data.layouts import find_image

pytest.importorskip("faster_coco_eval", reason="COCO masks need faster-coco-eval (the extra 'coco')")


def test_a_name_in_another_case_is_the_file_where_it_is_the_only_one(tmp_path: Path) -> None:
    (tmp_path / "DCIM").mkdir()
    for name in ("DCIM/IMG_1.JPG", "a.png", "A.PNG", "b.jpg", "B.JPG"):
        (tmp_path / name).touch()
    if len(list(tmp_path.iterdir())) < 5:
        pytest.skip("this file system knows no difference")
    for name in (
        "DCIM/img_1.jpg",
        "DCIM/IMG_1.jpeg",
        "D:\\photos\\DCIM\\img_1.jpg",
        "b.jpg",
        "B.JPG",
        "a.Png",
        "c.png",
    ):
        found = find_image(tmp_path, name)
        expected = {"DCIM/img_1.jpg": "DCIM/IMG_1.JPG", "b.jpg": "b.jpg", "B.JPG": "B.JPG"}.get(name)
        assert found.is_file() == (expected is not None), name
        assert expected is None or found == tmp_path / expected
    (tmp_path / "new.JPG").touch()  # after the folder was listed
    assert find_image(tmp_path, "C:\\new.jpg").name == "new.JPG"


def test_a_coco_set_of_capitals_is_read(tmp_path: Path) -> None:
    root = sets.cvat(tmp_path)
    plain = DetectionSets(DetectionData(path=str(root), resize=False, flip=0), cache=tmp_path)
    before = [plain.train.dataset[i][1]["boxes"].tolist() for i in range(6)]
    for file in root.rglob("*.png"):
        file.rename(file.with_suffix(".PNG"))
    again = DetectionSets(DetectionData(path=str(root), resize=False, flip=0), cache=tmp_path)
    again.train.dataset.require_files()
    assert [again.train.dataset[i][1]["boxes"].tolist() for i in range(6)] == before
    listed = [json.loads(file.read_text()) for file in root.rglob("*.json")]
    assert all(image["file_name"].endswith(".png") for content in listed for image in content["images"])
