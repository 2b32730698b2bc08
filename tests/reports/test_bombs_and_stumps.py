"""Pictures with too many pixels, truncated ones, and what is none: one line, wherever they are met."""

import pytest
from PIL import Image

from litevit.data.classification import ClassificationData, create_dataset
from litevit.jobs.train import train


@pytest.fixture
def broken(photos, request, monkeypatch):
    path = photos / "val" / "cow" / "val1.png"
    if request.param == "bomb":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 32 * 32 + 1)
        Image.new("L", (50, 50)).save(path)
    else:
        path.write_bytes(path.read_bytes()[:300] if request.param == "truncated" else b"GIF?")
    return path


CASES = [("bomb", "is too large an image"), ("truncated", "is damaged or truncated"), ("none", "is not an image that")]


@pytest.mark.parametrize(("broken", "words"), CASES, indirect=["broken"])
def test_one_line(photos, broken, words, recipe, litevit, tmp_path):
    with pytest.raises(ValueError, match=rf"Cannot read .*cow/val1\.png: it {words}") as error:
        create_dataset(ClassificationData(path=str(photos), num_classes=3, image_size=16), "eval")[3]
    assert str(error.value).count("val1.png") == 1
    with pytest.raises(ValueError, match=words):
        train(recipe(photos))
    code, _, said = litevit("predict", broken, "--model", "lvt", "--weights", "none", "--size", 32)
    assert code == 2
    assert f"val1.png {words}" in said
    assert "Traceback" not in said
