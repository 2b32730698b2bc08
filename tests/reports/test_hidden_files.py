"""`.ipynb_checkpoints`, `__MACOSX` and `._1.jpg` became classes and unreadable images."""

import io
import tarfile

from litevit.data.class_folders import survey
from litevit.data.classification import ClassificationData, create_dataset
from litevit.jobs.predict import find_images


def test_they_are_ignored_and_counted(photos, tmp_path, photo):
    for folder in (".ipynb_checkpoints", "__MACOSX/bee", "bee/.thumbnails", "@eaDir"):
        photo(photos / "train" / folder / "1.png", 60)
    (photos / "train" / "bee" / "._1.png").write_bytes(b"resource fork")
    (photos / "train" / "cow" / ".DS_Store").write_bytes(b"x")
    (photos / "train" / "Thumbs.db").write_bytes(b"x")
    dataset = create_dataset(ClassificationData(path=str(photos), num_classes=3, image_size=16), "train")
    assert dataset.classes == ("bee", "cow", "dog")
    assert len(dataset) == 12
    part = next(part for part in survey(photos) if part.name == "train")
    assert part.left_out["hidden"].files == 7
    assert len(find_images([photos / "train"])) == 12


def test_in_tars_and_shards(photos, tmp_path):
    with tarfile.open(tmp_path / "val.tar", "w") as archive:
        archive.add(photos / "val", arcname="val")
        for name in ("__MACOSX/val/bee/._1.png", "val/bee/._1.png"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    found = create_dataset(ClassificationData(path=str(tmp_path / "val.tar"), num_classes=3, image_size=16), "eval")
    assert found.classes == ("bee", "cow", "dog")
    assert len(found) == 6
    with tarfile.open(tmp_path / "shard-0.tar", "w") as archive:
        archive.add(photos / "val" / "bee" / "val0.png", arcname="1.png")
        for name, content in (("1.cls", b"0"), ("._1.png", b"x"), ("__MACOSX/1.cls", b"7")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    shard = str(tmp_path / "shard-0.tar")
    for stream in (False, True):
        data = ClassificationData(path=shard, reader="wds", stream=stream, num_classes=1, image_size=16)
        assert [label for _, label in _items(create_dataset(data, "eval"))] == [0]


def _items(dataset):
    return list(dataset) if not hasattr(dataset, "reader") else [dataset[i] for i in range(len(dataset))]
