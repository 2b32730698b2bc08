"""`eval --run R --data TESTSET` measured the run's held-out share of a foreign set: 18 of 90 images."""

import shutil

import pytest

from litevit.jobs.evaluate import evaluate_run
from litevit.jobs.train import train


@pytest.fixture
def run(photos, recipe, tmp_path):
    """Trained on a folder of which a quarter is held out."""
    train(recipe(photos / "train", data__hold_out=0.25))
    return tmp_path / "run"


def test_foreign_data_are_evaluated_whole(run, photos, tmp_path):
    own = evaluate_run(run, workers=0)
    assert (own.images, "held-out 25%" in own.protocol) == (3, True)
    foreign = evaluate_run(run, data=str(photos / "val"), workers=0)
    assert (foreign.images, "held-out" in foreign.protocol) == (6, False)


def test_the_runs_own_data_under_another_name_stay_its_own(run, photos, tmp_path, monkeypatch):
    for path in (photos / "train", tmp_path / "link", tmp_path / "copy"):
        if path.name == "link":
            path.symlink_to(photos / "train")
        if path.name == "copy":
            shutil.copytree(photos / "train", path)
        assert evaluate_run(run, data=str(path), workers=0).images == 3, path
    monkeypatch.chdir(photos)
    assert evaluate_run(run, data="train", workers=0).images == 3
