"""A run on `--data photos` was evaluated on whatever lay at `photos` below the folder one happened to be in."""

import json

import annotated_sets as sets
from litevit.jobs.runs import Run
from litevit.jobs.train import train


def test_a_classifier_finds_its_own_data(photos, photo, recipe, litevit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(recipe("photos"))
    here = tmp_path / "elsewhere"
    photo(here / "photos" / "val" / "bee" / "other.png", 90)  # another set of that name
    monkeypatch.chdir(here)
    code, out, said = litevit("eval", "--run", "../run", "--json", "--workers", 0)
    assert code == 0, said
    assert json.loads(out)["images"] == 6
    code, out, said = litevit("eval", "--run", "../run", "--data", "../photos", "--json", "--workers", 0)
    assert json.loads(out)["images"] == 6
    assert Run.open(tmp_path / "run").saved["data"]["path"] == str(photos)


def test_data_that_are_not_there_any_more_are_looked_for_here(photos, recipe, tmp_path, monkeypatch, litevit):
    monkeypatch.chdir(tmp_path)
    train(recipe("photos"))
    (tmp_path / "elsewhere").mkdir()
    photos.rename(tmp_path / "elsewhere" / "photos")
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, out, said = litevit("eval", "--run", "../run", "--json", "--workers", 0)
    assert code == 0, said
    assert json.loads(out)["images"] == 6


def test_a_segmenter_finds_its_own_data(tmp_path, litevit, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sets.masks(tmp_path / "set")
    small = "--model.overrides.embed_dim 8 --model.overrides.depths 1 1 1 1 --model.overrides.num_heads 1 1 2 2"
    short = "--model.overrides.head_channels 8 --run.max_steps 1 --run.batch_size 2 --run.device cpu --data.crop 64"
    words = ("train", "quickstart-segmentation", "--data", "set", *small.split(), *short.split(), "--run.dir", "run")
    code, _, said = litevit(*words)
    assert code == 0, said
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, out, said = litevit("eval", "--run", "../run", "--json")
    assert code == 0, said
    assert json.loads(out)["images"] == 2
