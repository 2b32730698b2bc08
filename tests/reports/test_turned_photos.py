"""Photos that a camera stored sideways: `eval` said 100 %, `predict` was right on none of the same files."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from litevit.checkpoints.preprocessing import Preprocessing
from litevit.jobs.evaluate import evaluate
from litevit.jobs.predict import predict


class SkyAbove(nn.Module):
    """Two classes: is the picture brighter in its upper half, or in its left half?"""

    def __init__(self) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        H, W = images.shape[-2:]
        upper = images[..., : H // 2, :].mean((1, 2, 3)) - images[..., H // 2 :, :].mean((1, 2, 3))
        left = images[..., : W // 2].mean((1, 2, 3)) - images[..., W // 2 :].mean((1, 2, 3))
        return torch.stack([upper, left], 1)


@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_eval_and_predict_see_the_same_picture(tmp_path, orientation):
    sky = np.zeros((40, 40, 3), dtype=np.uint8)
    sky[:20] = 255
    turns = {1: 0, 6: 1, 8: -1}[orientation]  # as the sensor saw it
    exif = Image.Exif()
    exif[0x0112] = orientation
    for label, upright in enumerate((sky, sky.swapaxes(0, 1))):
        for i in range(4):
            path = tmp_path / "val" / str(label) / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.rot90(upright, turns)).save(path, quality=95, exif=exif)
    assert evaluate(SkyAbove(), str(tmp_path), num_classes=2, image_size=32, workers=0).top1 == 100
    how = Preprocessing(size=32, crop_pct=0.875, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    for label in (0, 1):
        paths = sorted((tmp_path / "val" / str(label)).iterdir())
        found = list(predict(SkyAbove(), paths, how, names=("upper", "left")))
        assert [prediction.guesses[0].index for prediction in found] == [label] * 4
