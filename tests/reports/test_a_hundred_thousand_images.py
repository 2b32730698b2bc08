"""Listing large sets: 100,000 images in class folders and their layout, not decoded, in under 20 s on two cores."""

import time

import pytest

from litevit.data.class_folders import survey, table


def listed(root, *, classes: int, train: int, val: int) -> float:
    for split, count in (("train", train), ("val", val)):
        for number in range(classes):
            folder = root / split / f"class {number}"
            folder.mkdir(parents=True)
            for i in range(count):
                (folder / f"{split}_{i:05d}.jpg").touch()
    started = time.perf_counter()
    parts = survey(root)
    text = table(parts)
    seconds = time.perf_counter() - started
    assert [part.images for part in parts] == [classes * train, classes * val]
    assert f"{classes:,} classes" in text
    return seconds


def test_a_thousand(tmp_path):
    assert listed(tmp_path, classes=20, train=45, val=5) < 2


@pytest.mark.slow
def test_a_hundred_thousand(tmp_path):
    assert listed(tmp_path, classes=1000, train=90, val=10) < 20
