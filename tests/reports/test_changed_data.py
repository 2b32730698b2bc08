"""A run went on with other data than it had begun with, without a word."""

import shutil

import pytest

from litevit.jobs.train import train


@pytest.fixture
def begun(photos, recipe):
    train(recipe(photos))
    return photos


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: (root / "train" / "bee" / "train3.png").unlink(), "training has 11 images, had 12"),
        (lambda root: (root / "val" / "bee" / "val1.png").unlink(), "evaluation has 5 images, had 6"),
        (
            lambda root: [(root / split / "bee").rename(root / split / "wasp") for split in ("train", "val")],
            "training: new classes wasp; training: gone classes bee",
        ),
        (
            lambda root: (root / "train" / "bee" / "train3.png").rename(root / "train" / "cow" / "moved.png"),
            "training has as many images, but others of some classes",
        ),
        (
            lambda root: (root / "train" / "bee" / "train3.png").rename(root / "train" / "bee" / "new.png"),
            "training has as many images, but other files",
        ),
    ],
)
def test_it_is_refused_with_what_changed_or_goes_on_when_told(begun, recipe, tmp_path, change, words):
    change(begun)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=rf"was trained on other data: {words}.*--run.data_changed True"):
        train(recipe(begun, run__max_steps=4))
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert train(recipe(begun, run__max_steps=4, run__data_changed=True)).step == 4


def test_data_that_have_moved_are_the_same(begun, recipe, tmp_path):
    shutil.move(begun, tmp_path / "moved")
    assert train(recipe(tmp_path / "moved", run__max_steps=4)).step == 4


def test_on_the_command_line(begun, recipe, tmp_path, litevit):
    (begun / "train" / "bee" / "train3.png").unlink()
    again = ("train", tmp_path / "run" / "recipe.json", "--run.max-steps", 4)
    code, _, said = litevit(*again)
    assert code == 2
    assert "training has 11 images, had 12" in said
    code, _, said = litevit(*again, "--run.data-changed")
    assert code == 0
    assert "warning: the data have changed: training has 11 images, had 12" in said


def test_epochs_that_follow_from_the_images_follow_the_new_ones(begun, recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("litevit.engine.train.epochs_for", lambda images: 2 * images)
    automatic = {"schedule__epochs": None, "run": "automatic"}
    train(recipe(begun, **automatic))
    (begun / "train" / "bee" / "train3.png").unlink()
    with pytest.raises(ValueError, match="training has 11 images, had 12"):
        train(recipe(begun, run__max_steps=4, **automatic))
    capsys.readouterr()
    assert train(recipe(begun, run__max_steps=4, run__data_changed=True, **automatic)).step == 4
    said = capsys.readouterr()
    line = "the data have changed: training has 11 images, had 12; schedule.epochs: 22, checkpoint 24"
    assert line in said.out + said.err
    # What a person changes is still refused, and so is another number of epochs that was given.
    with pytest.raises(ValueError, match=r"another recipe; it differs in optim\.lr"):
        train(recipe(begun, run__max_steps=6, optim__lr=0.5, run__data_changed=True, **automatic))
    with pytest.raises(ValueError, match=r"another recipe; it differs in schedule\.epochs: 7, checkpoint 22"):
        train(recipe(begun, run__max_steps=6, run__data_changed=True, run="automatic", schedule__epochs=7))


def test_another_number_of_classes_needs_another_head(begun, recipe, tmp_path, photo):
    for i, split in enumerate(("train", "val")):
        photo(begun / split / "elk" / "0.png", 200 + i)
    with pytest.raises(ValueError, match=r"another number of classes, so .* would be \(4,.*--model.weights .*run"):
        train(recipe(begun, run__max_steps=4, run__data_changed=True))
    started = recipe(begun, run="next", model__weights=str(tmp_path / "run"))
    assert train(started).step == 2
