"""`eval --run R --split train|bogus`, `--size`, `--crop-pct`, `--reader`, `--num-classes` changed nothing, exit 0."""

import json

import pytest

from litevit.jobs.train import train


@pytest.fixture
def run(photos, recipe, tmp_path):
    train(recipe(photos))
    return tmp_path / "run"


def evaluate(litevit, run, *options):
    code, out, said = litevit("eval", "--run", run, "--json", "--workers", 0, *options)
    return json.loads(out) if code == 0 else said


def test_what_is_given_is_done(run, photos, litevit):
    plain = evaluate(litevit, run)
    assert plain["images"] == 6
    assert plain["protocol"] == "shorter side 36, centre crop 32, bicubic, fp32"
    trained = evaluate(litevit, run, "--split", "train")
    assert trained["images"] == 12
    assert trained["protocol"].endswith("what it was trained on")
    assert "centre crop 64" in evaluate(litevit, run, "--size", 64)["protocol"]
    assert "resized to 32 x 32" in evaluate(litevit, run, "--crop-pct", 1.0)["protocol"]
    assert evaluate(litevit, run, "--split", "val")["images"] == 6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--split", "bogus"), "No 'bogus' split under"),
        (("--num-classes", "4"), "--num-classes is for a checkpoint file"),
        (("--reader", "wds"), "--reader 'wds' needs other --data"),
        (("--annotations", "x.json"), "--annotations is for detectors and segmenters"),
        (("--out", "x"), "--out is for detectors and segmenters"),
        (("--flip", "--limit", "3"), "--limit and --flip are for detectors and segmenters"),
        (("--weights", "x.pth"), "both say which weights"),
        (("--size", "0"), "--size of a classifier must be a number of at least 32, got 0"),
        (("--size", "-64"), "--size of a classifier must be a number of at least 32, got -64"),
        (("--crop-pct", "0"), "--crop-pct must be above 0 and at most 1 (no crop), got 0.0"),
        (("--crop-pct", "-1"), "--crop-pct must be above 0"),
        (("--crop-pct", "nan"), "--crop-pct must be above 0"),
        (("--crop-pct", "87.5"), "--crop-pct must be above 0 and at most 1"),
        (("--batch-size", "0"), "--batch-size must be at least 1, got 0"),
        (("--num-classes", "0"), "--num-classes must be at least 1, got 0"),
        (("--workers", "-1"), "--workers must be 0 or more, got -1"),
    ],
)
def test_what_does_not_apply_is_refused(run, litevit, options, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert words in evaluate(litevit, run, *options)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("option", ["--num-classes", "--top", "--batch-size"])
def test_predict_refuses_nothing_of_something(option, photos, litevit):
    """0 was taken for "not given"."""
    code, _, said = litevit("predict", photos / "val/bee/val0.png", "--model", "lvt", "--weights", "none", option, 0)
    assert (code, said) == (2, f"litevit: {option} must be at least 1, got 0\n")


def test_another_models_name_is_refused(run, litevit):
    code, _, said = litevit("eval", "lvt", "--run", run)
    assert code == 2
    assert "is a run of litv2_s, not of lvt: leave the name out" in said


def test_a_split_of_held_out_data(photos, recipe, litevit, tmp_path):
    train(recipe(photos / "train", data__hold_out=0.25))
    run = tmp_path / "run"
    assert evaluate(litevit, run)["images"] == 3
    assert evaluate(litevit, run, "--split", "train")["images"] == 9
    assert evaluate(litevit, run, "--split", "val")["images"] == 3
    for split in ("test", "bogus"):
        assert f"has no '{split}' split: it has train and validation, the held-out part" in evaluate(
            litevit, run, "--split", split
        )


@pytest.mark.parametrize(
    "arguments",
    [("predict", "a.png", "--model", "retinanet_lit_ti", "--top", 3), ("eval", "retinanet_lit_ti", "--labels", "real")],
)
def test_options_of_classifiers_for_a_detector(litevit, arguments):
    code, _, said = litevit(*arguments)
    assert code == 2
    assert f"{arguments[-2]} is for classifiers; retinanet_lit_ti does detection" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("list", "lvt", "--out", "x.md"), "--out is for --compare"),
        (("list", "lvt", "--names", "--size", 64), "--size is for the table; --names prints names alone"),
        (("list", "lvt", "--compare", "--size", 64), "--size is for the list"),
    ],
)
def test_options_of_list(litevit, arguments, words):
    code, _, said = litevit(*arguments)
    assert code == 2
    assert words in said
