"""Evaluation data with some of a run's classes were refused, or (with as many) took other labels for theirs."""

import io
import json
import shutil
import tarfile

import pytest

from litevit.data.classification import ClassificationData, create_dataset
from litevit.jobs.evaluate import evaluate_run
from litevit.jobs.train import train


def test_labels_follow_the_names(photos, photo):
    names = ("bee", "cow", "dog")
    shutil.rmtree(photos / "val" / "bee")
    data = ClassificationData(path=str(photos), num_classes=3, image_size=16)
    held = create_dataset(data, "eval", classes=names)
    assert held.classes == names
    assert [held[i][1] for i in range(4)] == [1, 1, 2, 2]
    photo(photos / "val" / "eel" / "1.png", 60)
    with pytest.raises(ValueError, match=r"val has classes that training does not have: eel\. Training has bee, cow"):
        create_dataset(data, "eval", classes=names)


def test_a_run_is_evaluated_on_some_of_its_classes(photos, recipe, tmp_path, litevit):
    train(recipe(photos))
    shutil.copytree(photos / "val", tmp_path / "other")
    shutil.rmtree(tmp_path / "other" / "bee")
    found = evaluate_run(tmp_path / "run", data=str(tmp_path / "other"), workers=0)
    whole = evaluate_run(tmp_path / "run", workers=0)
    assert [(row.index, row.images) for row in found.per_class] == [(1, 2), (2, 2)]
    assert found.per_class == whole.per_class[1:]
    assert found.class_names == ("bee", "cow", "dog")
    code, out, _ = litevit("eval", "--run", tmp_path / "run", "--data", tmp_path / "other", "--per-class")
    assert code == 0
    assert "dog" in out


def test_training_with_a_class_that_is_not_evaluated(photos, recipe, tmp_path):
    """It is said in the table, and the run goes on."""
    shutil.rmtree(photos / "val" / "bee")
    train(recipe(photos))
    kept = json.loads((tmp_path / "run" / "data.json").read_text())
    assert kept["evaluation"]["classes"] == {"bee": 0, "cow": 2, "dog": 2}


def test_a_run_on_shards_has_no_names_to_match(photos, recipe, tmp_path):
    """Its labels are numbers: data with as many classes are measured by their order, as before."""
    for split in ("train", "val"):
        with tarfile.open(tmp_path / f"{split}-0.tar", "w") as archive:
            for number, path in enumerate(sorted((photos / split).rglob("*.png"))):
                archive.add(path, arcname=f"{number}.png")
                label = tarfile.TarInfo(f"{number}.cls")
                label.size = 1
                archive.addfile(label, io.BytesIO(str(["bee", "cow", "dog"].index(path.parent.name)).encode()))
    train(recipe(tmp_path, data__reader="wds", data__hold_out=0.0))
    own = evaluate_run(tmp_path / "run", workers=0)
    found = evaluate_run(tmp_path / "run", data=str(photos), reader="", workers=0)
    assert (found.images, found.top1, found.loss) == (own.images, own.top1, pytest.approx(own.loss))
    shutil.rmtree(photos / "val" / "bee")
    with pytest.raises(ValueError, match="has 2 classes but the head has 3"):
        evaluate_run(tmp_path / "run", data=str(photos), reader="", workers=0)
