"""Preprocessing inside a file: Pillow's own result from products."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from families import classifier
from PIL import Image
from small import needs
from torchvision.transforms.v2.functional import pil_to_tensor

import litevit
from litevit.checkpoints.preprocessing import IMAGENET_224, IMAGENET_384, IMAGENET_LVT
from litevit.cli import main
from litevit.deploy.preprocess import ClassifierPreprocessing
from litevit.deploy.verify import KINDS, LEVELS, PILLOW
from litevit.jobs.preprocessing import of_classifier


def photo(width: int, height: int) -> Image.Image:
    """Smooth shapes, hard edges and noise."""
    rng = np.random.default_rng(width * height)
    y, x = np.mgrid[:height, :width]
    waves = 127 + 120 * np.sin(x / 9)[..., None] * np.cos(y / np.array([7, 17, 29])[:, None, None]).transpose(1, 2, 0)
    pixels = waves + 30 * rng.standard_normal((height, width, 3))
    pixels[height // 4 : height // 2, width // 3 : width // 2] = 255
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("how", [IMAGENET_224, IMAGENET_384, IMAGENET_LVT, replace(IMAGENET_224, size=96),
                                 replace(IMAGENET_224, interpolation="bilinear", crop_pct=1.0)])  # fmt: skip
@pytest.mark.parametrize("size", [(640, 427), (224, 224), (97, 211), (1500, 300), (33, 32), (256, 256), (255, 341)])
def test_within_one_level_of_pillow(how, size: tuple[int, int]) -> None:
    image = photo(*size)
    ours = ClassifierPreprocessing(how)(pil_to_tensor(image)[None])[0]
    theirs = of_classifier(how)(image)
    std = torch.tensor(how.std).view(3, 1, 1)
    levels = ((ours - theirs) * std * 255).abs()
    assert ours.shape == theirs.shape
    assert levels.max() <= (1.001 if how.interpolation == "bicubic" else LEVELS)
    # A half that rounds the other way is rare, but where 7 pixels are made of 8 with triangles.
    assert (levels > 0.5).double().mean() < (0.01 if how.interpolation == "bicubic" else 0.05)


slow = pytest.mark.slow


@pytest.mark.parametrize(
    "format", ["pt2", *(pytest.param(name, marks=[slow, needs(name)]) for name in ("onnx", "openvino"))]
)
def test_a_file_takes_pictures_as_they_are(format: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch.manual_seed(0)
    model = classifier("litv2").eval()
    path = tmp_path / f"x{ {'pt2': '.pt2', 'onnx': '.onnx', 'openvino': '.xml'}[format] }"
    report = litevit.export(model, path, format=format, preprocessing=True, image_size=64)
    assert report.verified
    assert {check.kind for check in report.checks} >= {PILLOW, *KINDS}
    assert "from Pillow's by" in str(next(check for check in report.checks if check.kind == PILLOW))
    assert report.input.endswith("any number of images with sides of at least 16 pixels")
    run = litevit.load_exported(path)
    image = photo(150, 220)
    image.save(tmp_path / "photo.png")
    expected = model(of_classifier(replace(IMAGENET_224, size=64))(image)[None])
    torch.testing.assert_close(run(pil_to_tensor(image)[None]), expected, atol=2e-2, rtol=0)
    with pytest.raises(ValueError, match="takes uint8 RGB images"):
        run(torch.rand(1, 3, 64, 64))
    assert main(["predict", str(tmp_path / "photo.png"), "--weights", str(path), "--json"]) == 0
    assert f'"index": {int(expected.argmax())}' in capsys.readouterr().out
    assert main(["eval", "--weights", str(path), "--data", str(tmp_path)]) == 2
    told = f"litevit: {path} prepares its images itself: evaluate a file exported without --preprocessing"
    assert told in capsys.readouterr().err
