"""16-bit greys came into training as white (mean 0.998), transparent ones on black; `predict` saw 0.5 and white."""

import numpy as np
import pytest
from PIL import Image

from litevit.data.classification import ClassificationData, create_dataset
from litevit.data.images import read_image


@pytest.mark.parametrize(
    ("picture", "mean"),
    [
        (Image.fromarray(np.full((32, 32), 32768, dtype=np.uint16)), 128 / 255),
        (Image.new("RGBA", (32, 32), (0, 0, 0, 0)), 1.0),
        (Image.new("LA", (32, 32), (0, 0)), 1.0),
    ],
    ids=["16 bits", "transparent", "transparent grey"],
)
def test_training_evaluation_and_prediction_see_one_brightness(tmp_path, picture, mean):
    for split in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            picture.save(tmp_path / split / name / "1.png")
    plain = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "image_size": 32, "num_classes": 2}
    data = ClassificationData(path=str(tmp_path), **plain)
    for dataset in (create_dataset(data, "eval"), create_dataset(data, "train", augment=False)):
        assert dataset[0][0].mean() == pytest.approx(mean, abs=1e-3)
    assert np.asarray(read_image(tmp_path / "val" / "a" / "1.png")).mean() / 255 == pytest.approx(mean, abs=1e-3)
