"""Hugging Face sets had to have `image`, `label` and `validation`; CIFAR-100 has `img`, `fine_label` and `test`."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from litevit.data.classification import ClassificationData, count_classes, create_dataset
from litevit.jobs.evaluate import evaluate_run
from litevit.jobs.train import train

datasets = pytest.importorskip("datasets", reason="the datasets package is not installed")


def write(folder: Path, splits: dict[str, int], columns: dict[str, object], rows: int = 12) -> str:
    """A data set on a disk, in the Hub's layout."""
    rng = np.random.default_rng(0)
    for split in splits:
        values = {}
        for name, kind in columns.items():
            if isinstance(kind, datasets.Image):
                values[name] = [Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)) for _ in range(rows)]
            elif getattr(kind, "dtype", "") == "string":
                values[name] = [("owl", "ape", "cat 10", "cat 9")[i % 4] for i in range(rows)]
            else:
                values[name] = [i % 3 for i in range(rows)]
        table = datasets.Dataset.from_dict(values, features=datasets.Features(columns))
        table.to_parquet(folder / "hf" / f"{split}-00000-of-00001.parquet")
    return f"hfds/{folder / 'hf'}"


def settings(reader: str, folder: Path, **changes) -> ClassificationData:
    return ClassificationData(**{"reader": reader, "path": str(folder / "cache"), "image_size": 16, **changes})


def labels(dataset) -> list[int]:
    return [label for _, label in (dataset if not hasattr(dataset, "reader") else map(dataset.__getitem__, range(12)))]


NAMES = datasets.ClassLabel(names=["a", "b", "c"])
COARSE = datasets.ClassLabel(names=["x", "y", "z", "w"])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("columns", "classes"),
    [
        ({"img": datasets.Image(), "fine_label": NAMES, "coarse_label": COARSE}, 3),
        ({"picture": datasets.Image(), "kind": NAMES, "id": datasets.Value("int64")}, 3),
        ({"jpg": datasets.Image(), "cls": datasets.Value("int64"), "url": datasets.Value("string")}, 3),
    ],
    ids=["cifar100", "the only ones of their type", "webdataset"],
)
def test_columns_are_recognised(tmp_path, columns, classes, stream):
    reader = write(tmp_path, {"train": 0, "test": 0}, columns)
    data = settings(reader, tmp_path, num_classes=classes, stream=stream)
    for split in ("train", "eval"):  # evaluation: `test`, because there is no `validation`
        assert labels(create_dataset(data, split)) == [i % 3 for i in range(12)]


@pytest.mark.parametrize("stream", [False, True])
def test_columns_are_named(tmp_path, stream):
    columns = {"front": datasets.Image(), "back": datasets.Image(), "shape": NAMES, "colour": COARSE}
    reader = write(tmp_path, {"train": 0}, columns)
    options = {"num_classes": 4, "stream": stream, "eval_split": "train"}
    named = settings(reader, tmp_path, image_column="back", label_column="colour", **options)
    dataset = create_dataset(named, "eval")
    assert labels(dataset) == [i % 3 for i in range(12)]
    assert dataset.classes == ("x", "y", "z", "w")
    for given, words in [
        ({}, r"which column has the images\? It has front \(.*Give --data.image_column"),
        ({"image_column": "back"}, r"which column has the labels\?.*Give --data.label_column"),
        ({"image_column": "side"}, r"no column 'side' \(data.image_column\); it has front"),
        ({"image_column": "back", "label_column": "front"}, r"'front' has .*labels are class numbers or words"),
    ]:
        with pytest.raises(ValueError, match=words):
            create_dataset(settings(reader, tmp_path, **options, **given), "eval")


def test_only_a_test_split(tmp_path):
    reader = write(tmp_path, {"test": 0}, {"img": datasets.Image(), "label": NAMES})
    data = settings(reader, tmp_path, num_classes=3)
    assert len(create_dataset(data, "eval")) == 12
    with pytest.raises(ValueError, match=r"no split 'train', it has test\. Name the one that is meant"):
        create_dataset(data, "train")
    with pytest.raises(ValueError, match=r"evaluated on its training images.*--data.hold_out"):
        create_dataset(settings(reader, tmp_path, num_classes=3, train_split="test"), "train")
    shared = settings(reader, tmp_path, num_classes=3, train_split="test", hold_out=0.25)
    parts = [create_dataset(shared, split) for split in ("train", "eval")]
    assert [Counter(part.reader.targets) for part in parts] == [Counter([0, 1, 2] * 3), Counter([0, 1, 2])]
    assert not {part[i][0].sum().item() for part in parts[:1] for i in range(9)} & {
        parts[1][i][0].sum().item() for i in range(3)
    }


def test_only_a_train_split_and_a_share_held_out(tmp_path):
    reader = write(tmp_path, {"train": 0}, {"image": datasets.Image(), "label": NAMES})
    shared = settings(reader, tmp_path, num_classes=3, hold_out=0.25)
    assert [len(create_dataset(shared, split)) for split in ("train", "eval")] == [9, 3]


def test_labels_that_are_words(tmp_path):
    reader = write(tmp_path, {"train": 0}, {"image": datasets.Image(), "label": datasets.Value("string")})
    data = settings(reader, tmp_path, num_classes=0, eval_split="train")
    assert count_classes(data) == 4
    dataset = create_dataset(settings(reader, tmp_path, num_classes=4, eval_split="train"), "eval")
    assert dataset.classes == ("ape", "cat 9", "cat 10", "owl")
    assert labels(dataset) == [3, 0, 2, 1] * 3
    with pytest.raises(ValueError, match="words, whose numbers are not known before all are read"):
        create_dataset(settings(reader, tmp_path, num_classes=4, eval_split="train", stream=True), "eval")


def test_a_run_is_evaluated_on_a_hugging_face_set(tmp_path, photos, recipe):
    """Its classes are matched by name: the set has two of them, in another order."""
    train(recipe(photos))
    features = {"img": datasets.Image(), "animal": datasets.ClassLabel(names=["dog", "bee"])}
    rows = {"img": [Image.open(photos / "val" / name / "val0.png") for name in ("dog", "bee")], "animal": [0, 1]}
    table = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    table.to_parquet(tmp_path / "hf" / "test-00000-of-00001.parquet")
    found = evaluate_run(tmp_path / "run", reader=f"hfds/{tmp_path / 'hf'}", workers=0)
    assert [(row.index, row.images) for row in found.per_class] == [(0, 1), (2, 1)]
