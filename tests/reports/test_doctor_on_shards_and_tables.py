"""The doctor said "in no known layout" of WebDataset shards and Hugging Face data sets, which training reads."""

import io
import json
import tarfile
from pathlib import Path

import pytest

Sample = tuple[bytes, int]


def samples(photos: Path, split: str) -> list[Sample]:
    """Pictures and the numbers of their classes."""
    files = sorted((photos / split).rglob("*.png"))
    names = sorted({file.parent.name for file in files})
    return [(file.read_bytes(), names.index(file.parent.name)) for file in files]


def write_shard(file: Path, content: list[Sample]) -> None:
    file.parent.mkdir(exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for i, (picture, label) in enumerate(content):
            for ending, data in (("png", picture), ("cls", str(label).encode())):
                member = tarfile.TarInfo(f"{i:04d}.{ending}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def write_tables(folder: Path, parts: dict[str, list[Sample]]) -> None:
    datasets = pytest.importorskip("datasets", reason="Hugging Face data sets need the extra 'data'")
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["bee", "cow", "dog"])})
    made = {}
    for split, content in parts.items():
        rows = {"img": [{"bytes": data, "path": None} for data, _ in content], "label": [label for _, label in content]}
        made[split] = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(made).save_to_disk(str(folder))


@pytest.fixture(params=["shards", "tables"])
def write(request, tmp_path):
    """Writes training and evaluation samples; returns the folder and the reader that training is given."""

    def make(train: list[Sample], val: list[Sample]) -> tuple[Path, str]:
        folder = tmp_path / request.param
        if request.param == "shards":
            write_shard(folder / "train-0000.tar", train)
            write_shard(folder / "val-0000.tar", val)
            return folder, "wds"
        write_tables(folder, {"train": train, "test": val})
        return folder, f"hfds/{folder}"

    return make


def findings(litevit, folder: Path) -> tuple[int, dict[str, str]]:
    code, out, error = litevit("doctor", folder, "--json")
    assert code in (0, 1), error
    return code, {row["problem"]: row["severity"] for row in json.loads(out)["findings"]}


def test_clean_ones_are_clean_and_train_reads_the_same(write, photos, litevit):
    folder, reader = write(samples(photos, "train"), samples(photos, "val"))
    assert findings(litevit, folder) == (0, {})
    code, out, _ = litevit("doctor", folder)
    assert "12 images in" in out
    path = folder if reader == "wds" else ""
    words = ("--data.reader", reader, "--model.weights", "none", "--data", path, "--show-recipe")
    code, out, error = litevit("train", "finetune", *words)
    assert code == 0, error
    assert json.loads(out)["data"]["num_classes"] == 3


def test_broken_and_repeated_pictures(write, photos, litevit):
    train, val = samples(photos, "train"), samples(photos, "val")
    folder, _ = write([*train, (train[0][0][:60], 1)], [*val, train[1]])
    code, found = findings(litevit, folder)
    assert code == 1
    assert found == {"broken images": "error", "the same image in two splits": "error"}


def test_one_class_teaches_nothing(write, photos, litevit):
    train, val = ([sample for sample in samples(photos, split) if sample[1] == 0] for split in ("train", "val"))
    folder, _ = write(train, val)
    code, found = findings(litevit, folder)
    assert (code, found["a single class (there is nothing to tell apart)"]) == (1, "error")


def test_a_label_that_training_lacks(photos, tmp_path, litevit):
    train, val = samples(photos, "train"), samples(photos, "val")
    write_shard(tmp_path / "s" / "train-0.tar", [sample for sample in train if sample[1] < 2])
    write_shard(tmp_path / "s" / "val-0.tar", val)
    code, found = findings(litevit, tmp_path / "s")
    assert (code, found["classes that training does not have"]) == (1, "error")


def test_what_is_no_shard(photos, tmp_path, litevit):
    """A tar of class folders with a description among its pictures stays one."""
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.add(photos / "train" / "bee", "bee")
        archive.add(photos / "train" / "cow", "cow")
        member = tarfile.TarInfo("bee/about.json")
        archive.addfile(member, io.BytesIO(b""))
    _, out, _ = litevit("doctor", tmp_path / "set.tar")
    assert "a tar of class folders" in out
    write_shard(tmp_path / "s" / "train-0.tar", samples(photos, "train"))
    code, _, error = litevit("doctor", tmp_path / "s", "--fix", tmp_path / "out")
    assert code == 2
    assert "--fix writes folders and COCO's files" in error
    assert not (tmp_path / "out").exists()
