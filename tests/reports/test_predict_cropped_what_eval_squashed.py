"""A run with `crop_pct 1.0` (quickstart, CIFAR-10) was evaluated on whole pictures, and predicted on their middle."""

import numpy as np
import pytest
import torch
from PIL import Image

from litevit.data.classification import create_dataset
from litevit.data.images import read_image
from litevit.jobs.predict import load_classifier
from litevit.jobs.preprocessing import of_classifier
from litevit.jobs.train import train


@pytest.mark.parametrize("crop_pct", [1.0, 0.875])
@pytest.mark.parametrize("size", [(90, 40), (40, 90), (600, 40)])
def test_a_run_predicts_on_what_it_was_evaluated_on(photos, recipe, tmp_path, crop_pct, size):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path = photos / "val" / "cow" / "val0.png"
    Image.fromarray(pixels).save(path)
    made = recipe(photos, data__num_classes=3, data__crop_pct=crop_pct, run__max_steps=1)
    train(made)
    _, how = load_classifier(None, tmp_path / "run")
    dataset = create_dataset(made.data, "eval")
    (index,) = (i for i in range(len(dataset)) if dataset.name(i) == str(path))
    assert torch.equal(of_classifier(how)(read_image(path)), dataset[index][0])
