"""Samples called `photo.v2.jpg`, and shards called `train.v1.0-000.tar`, were passed over without a word."""

import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from litevit.data.classification import ClassificationData, create_dataset
from litevit.data.shards import WebDatasetReader
from litevit.data.streaming import TarShards


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (shade, shade, shade)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, *members: tuple[str, bytes]) -> str:
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return str(path)


def both(path: str) -> list[tuple[str, int]]:
    """Names in the shard and labels, the same by index and as a stream."""
    by_index = WebDatasetReader(path, "train")
    stream = list(TarShards(path, "train").read(0))
    found = [(by_index.samples[i][1], by_index.targets[i]) for i in range(len(by_index))]
    assert [(name.rpartition(":")[2], label) for name, _, label in stream] == found
    assert [content for _, content, _ in stream] == [by_index[i][0].read() for i in range(len(by_index))]
    assert TarShards(path, "train").count() == len(found)
    return found


def test_names_with_dots(tmp_path):
    path = write(
        tmp_path / "train.v1.0-000.tar",
        ("photo.v2.jpg", png(1)), ("photo.v2.cls", b"1"), ("photo.v3.cls", b"0"), ("photo.v3.JPEG", png(2)),
        ("2024.01.02.webp", png(3)), ("2024.01.02.json", b'{"label": 4}'),
    )  # fmt: skip
    assert both(path) == [("photo.v2.jpg", 1), ("photo.v3.JPEG", 0), ("2024.01.02.webp", 4)]
    data = ClassificationData(path=str(tmp_path), reader="wds", num_classes=5, train_split="train", image_size=16)
    assert len(create_dataset(data, "train")) == 3


def test_webdatasets_own_rule_holds_where_it_says_more(tmp_path):
    path = write(
        tmp_path / "a.tar",
        ("1.input.jpg", png(1)), ("1.cls", b"1"),
        ("2.jpg", png(2)), ("2.seg.png", png(3)), ("2.cls", b"2"), ("2.json", b'{"caption": "no label"}'),
        ("3.json", b'{"caption": "before its label"}'), ("3.jpg", png(4)), ("3.cls", b"3"),
        ("4.cls", b"4"),
        ("5.txt", b"a note"),
    )  # fmt: skip
    assert both(path) == [("1.input.jpg", 1), ("2.jpg", 2), ("3.jpg", 3)]
    left = WebDatasetReader(path, "train").part.left_out
    assert set(left) == {"a further image of a sample", "a label without an image", "neither image nor label (.txt)"}


def test_an_image_without_a_label_is_refused(tmp_path):
    path = write(tmp_path / "a.tar", ("img.1.jpg", png(1)), ("img.1.cls", b"1"), ("img.2.jpg", png(2)))
    for read in (lambda: WebDatasetReader(path, "train"), lambda: list(TarShards(path, "train").read(0))):
        with pytest.raises(ValueError, match=r"a\.tar: img\.2 has no label \(\.cls or \.json\) beside it"):
            read()
