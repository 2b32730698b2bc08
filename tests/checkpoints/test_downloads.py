"""Every published file, from where it lies: `pytest -m weights`, on a machine with internet; 3 GB go into the cache.

With IMAGENET=FOLDER, which has ImageNet's `val/`, the classifiers are held to the published accuracy, too.
"""

import os

import pytest
import torch

import litevit
from litevit.checkpoints.preprocessing import ADE20K, COCO
from litevit.checkpoints.published import WEIGHTS, fetch
from litevit.jobs.evaluate import evaluate

pytestmark = pytest.mark.weights
DOWNLOADABLE = [name for name, entry in WEIGHTS.items() if entry.url]
CLASSIFIERS = [name for name in DOWNLOADABLE if WEIGHTS[name].task == "classification"]
NEAR = 0.1  # points of top-1: another decoder, another resize


@pytest.mark.parametrize("name", DOWNLOADABLE)
def test_every_tensor_finds_its_place(name):
    model = litevit.create_model(name).eval()
    report = litevit.load_weights(model, fetch(name))
    assert not report.missing
    assert not report.unexpected
    dense = WEIGHTS[name].preprocessing in (COCO, ADE20K)
    image = torch.rand(3, 192, 256)
    with torch.no_grad():
        outputs = model.forward_raw(image[None]) if dense else {"logits": model(image[None, :, :, :192])}
    assert all(value.isfinite().all() for value in outputs.values())


@pytest.mark.skipif("IMAGENET" not in os.environ, reason="no images: set IMAGENET to a folder with val/")
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_published_accuracy(name):
    result = evaluate(name, os.environ["IMAGENET"], weights="official")
    assert result.images == 50_000
    assert result.top1 == pytest.approx(WEIGHTS[name].published["top1"], abs=NEAR)
