"""PyTorch's own ONNX exporters on plain models, as a reader of PyTorch's documentation calls them."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from optimize.models import MODELS, stirred

pytest.importorskip("onnxscript", reason="PyTorch's exporter needs it (the extra 'onnx')")
runtime = pytest.importorskip("onnxruntime", reason="runs the files (the extra 'onnx')")

FREE = ({0: Dim("batch", min=1, max=64), 2: Dim("height", min=64, max=1024), 3: Dim("width", min=64, max=1024)},)
AXES = {"images": {0: "batch", 2: "height", 3: "width"}}


def compare(model: nn.Module, path: Path, images: Tensor) -> None:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    (found,) = runtime.InferenceSession(path, options).run(None, {"images": images.numpy()})
    with torch.no_grad():
        expected = model(images)
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=2e-5 * expected.abs().max().item())


@pytest.mark.parametrize("name", MODELS)
def test_one_size(name, tmp_path):
    """LIT's attention and Swin's windows could not be exported: the graph had views of one kernel's layout."""
    model, images = stirred(name).eval(), torch.randn(1, 3, 64, 96)
    torch.onnx.export(model, (images,), tmp_path / "x.onnx", input_names=["images"], dynamo=True, verbose=False)
    compare(model, tmp_path / "x.onnx", images)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_any_size(name, tmp_path):
    model, images = stirred(name).eval(), torch.randn(2, 3, 64, 96)
    options = {"input_names": ["images"], "dynamo": True, "verbose": False, "dynamic_shapes": FREE}
    torch.onnx.export(model, (images,), tmp_path / "x.onnx", **options)
    for shape in ((1, 3, 64, 96), (3, 3, 131, 77)):
        compare(model, tmp_path / "x.onnx", torch.randn(shape))


@pytest.mark.parametrize("name", MODELS)
def test_the_exporter_before(name, tmp_path):
    model, images = stirred(name).eval(), torch.randn(2, 3, 64, 96)
    options = {"input_names": ["images"], "dynamo": False, "dynamic_axes": AXES, "opset_version": 20}
    torch.onnx.export(model, (images,), tmp_path / "x.onnx", **options)
    for shape in ((1, 3, 64, 96), (3, 3, 131, 77)):
        compare(model, tmp_path / "x.onnx", torch.randn(shape))
