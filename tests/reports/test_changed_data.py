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
