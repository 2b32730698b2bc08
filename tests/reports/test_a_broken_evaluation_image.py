"""A truncated image, met in the first evaluation, lost all training before it."""

import json

import pytest

from litevit.data.classification import ClassificationData, create_dataset
from litevit.data.labelled_images import ClassificationImages
from litevit.data.readability import check_readable
from litevit.engine.checkpoint import list_checkpoints, load_checkpoint
from litevit.engine.logging import read_metrics
from litevit.jobs import classification
from litevit.jobs.train import train


def cut(path):
    path.write_bytes(path.read_bytes()[:200])


def test_it_is_found_before_training(photos, recipe, tmp_path):
    cut(photos / "val" / "cow" / "val1.png")
    with pytest.raises(ValueError, match=r"broken, and evaluation leaves .* Cannot read .*cow/val1\.png: it is"):
        train(recipe(photos))
    assert not (tmp_path / "run").exists()
    for name in ("bee", "cow", "dog"):
        for i in (0, 1):
            cut(photos / "val" / name / f"val{i}.png")
    with pytest.raises(ValueError, match=r"6 of 6 evaluation images are broken.* And 3 more; `litevit doctor`"):
        train(recipe(photos))


def test_a_checkpoint_is_written_before_an_evaluation_that_fails(photos, recipe, tmp_path, monkeypatch):
    """Broken while the run was training: the run goes on from there once the file is mended, and is the same run."""
    reference = recipe(photos, run="whole", run__max_steps=4, run__eval_steps=2)
    train(reference)
    broken = recipe(photos, run__max_steps=4, run__eval_steps=2)
    good = (photos / "val" / "cow" / "val1.png").read_bytes()
    evaluate = classification.ClassificationTask.evaluate

    def breaks(self, model, accelerator):
        cut(photos / "val" / "cow" / "val1.png")
        return evaluate(self, model, accelerator)

    monkeypatch.setattr(classification.ClassificationTask, "evaluate", breaks)
    with pytest.raises(ValueError, match=r"Cannot read .*cow/val1\.png"):
        train(broken)
    (kept,) = list_checkpoints(tmp_path / "run" / "checkpoints")
    assert load_checkpoint(kept)["step"] == 2
    monkeypatch.undo()
    (photos / "val" / "cow" / "val1.png").write_bytes(good)
    train(broken)
    rows, expected = (
        [
            {k: v for k, v in row.items() if k not in ("images_per_s", "memory_mb")}
            for row in read_metrics(tmp_path / folder / "metrics.jsonl")
        ]
        for folder in ("run", "whole")
    )
    assert rows == expected
    results = [json.loads((tmp_path / folder / "result.json").read_text()) for folder in ("run", "whole")]
    assert results[0] == results[1]


def test_a_large_set_is_looked_at_by_sample(photos, monkeypatch):
    dataset = create_dataset(ClassificationData(path=str(photos), num_classes=3, image_size=16), "train", augment=False)
    assert check_readable(dataset).startswith("all 12 evaluation images can be read")
    looked = []
    check = ClassificationImages.check
    monkeypatch.setattr(ClassificationImages, "check", lambda self, i: looked.append(i) or check(self, i))
    monkeypatch.setattr("litevit.data.readability.PROBE", 4)
    said = check_readable(dataset, whole_s=0.0)
    assert said.startswith("4 of 12 evaluation images were opened")
    assert sorted(looked) == [0, 3, 6, 9]
    looked.clear()
    for rank in range(2):
        check_readable(dataset, rank=rank, world=2)
    assert sorted(looked) == list(range(12))
