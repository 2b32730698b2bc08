"""torch.compile and torch.export of every family, with dynamic batch, height and width.

Each takes tens of seconds (symbolic shapes), so all but one small check are slow. Exported programs take sides from 64
pixels (80 with 4 x 4 windows): below, a map is one cell or window wide, which the exporter takes for a constant.
"""

from typing import Any
from unittest import mock

import pytest
import torch
from families import CLASSIFIERS, backbone, classifier
from torch._dynamo.testing import CompileCounterWithBackend

from litevit import optimize_for_inference

SIZES = [(2, 3, 75, 101), (4, 3, 128, 96), (2, 3, 160, 130), (3, 3, 97, 224), (2, 3, 224, 224), (5, 3, 64, 72)]

# Every family inside its classifier; maps with their output norms for the families that have a mechanism of their own.
# Optimised models have kernels of their own, which a compiler must not meet.
KINDS = [("classifier", name) for name in CLASSIFIERS] + [("backbone", name) for name in ("lit", "litv2", "lvt")]
OPTIMISED = [("optimised", name) for name in ("lit", "litv2", "litv2_ws4", "lvt")]


def build(kind: str, name: str) -> torch.nn.Module:
    model = (backbone(name, "segmentation") if kind == "backbone" else classifier(name)).eval()
    return optimize_for_inference(model) if kind == "optimised" else model


def outputs(result: Any) -> list[torch.Tensor]:
    return [result] if torch.is_tensor(result) else list(result)


def agree(run: Any, model: torch.nn.Module, sizes: list) -> None:
    for size in sizes:
        images = torch.randn(size)
        for a, b in zip(outputs(run(images)), outputs(model(images)), strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # Swin's windows make long expressions of the sizes
@pytest.mark.parametrize(("kind", "name"), KINDS + OPTIMISED)
@torch.no_grad()
def test_one_compiled_graph_for_all_sizes(kind: str, name: str) -> None:
    torch._dynamo.reset()
    model = build(kind, name)
    counter = CompileCounterWithBackend("aot_eager")
    agree(torch.compile(model, fullgraph=True, dynamic=True, backend=counter), model, SIZES)
    # One graph; another for a grid one window wide or high (SIZES have both, with 4 x 4 windows) and for the
    # grid that a position table is made for. The counter sees the first one twice.
    assert counter.frame_count <= (4 if name == "litv2_ws4" else 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lit", "litv2", "lvt"])
def test_inductor_trains(name: str) -> None:
    """The default back end, forward and backward, against eager gradients, at the size it is compiled for.

    With `dynamic=True` Inductor of PyTorch 2.14.1 fails on strides of padded maps (`8*((s + 3)//4) < 8`: "cannot
    determine truth value"), in training only.
    """
    torch._dynamo.reset()
    model = classifier(name).train()
    compiled = torch.compile(model, fullgraph=True, dynamic=False)
    images = torch.randn(2, 3, 64, 96)
    grads = []
    for run in (model, compiled):
        model.zero_grad()
        run(images).square().sum().backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b, atol=1e-4 * max(1.0, a.abs().max().item()), rtol=1e-2)


def exported(model: torch.nn.Module, smallest: int) -> torch.nn.Module:
    batch = torch.export.Dim("batch", min=1, max=256)
    height = torch.export.Dim("height", min=smallest, max=2048)
    width = torch.export.Dim("width", min=smallest, max=2048)
    shapes = ({0: batch, 2: height, 3: width},)
    return torch.export.export(model, (torch.randn(2, 3, 107, 133),), dynamic_shapes=shapes).module()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), KINDS + OPTIMISED)
@torch.no_grad()
def test_export_with_dynamic_batch_height_and_width(kind: str, name: str) -> None:
    model = build(kind, name)
    smallest = 80 if name == "litv2_ws4" else 64
    sizes = [size for size in SIZES if min(size[2:]) >= smallest]
    agree(exported(model, smallest), model, [*sizes, (1, 3, smallest, smallest), (1, 3, 224, 300)])


@torch.no_grad()
def test_exportable_swin_windows_are_timms() -> None:
    """The formula of exported and compiled Swin programs, run eagerly; weights large enough for biases to count."""
    model = build("backbone", "swin_dtm")
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    for size in [(1, 3, 64, 64), (2, 3, 75, 250), (1, 3, 224, 300)]:
        images = torch.randn(size)
        expected = model(images)
        with (
            mock.patch("torch.compiler.is_compiling", return_value=True),
            mock.patch("torch.sym_max", max),
        ):
            maps = model(images)
        for a, b in zip(maps, expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-3 * b.abs().max().item(), rtol=0)


@torch.no_grad()
def test_export_at_one_size() -> None:
    """The fast check of the default run: the exporter's own code paths give the same function."""
    for name in ("lit_ti", "litv2"):
        model = build("backbone", name)
        images = torch.randn(1, 3, 75, 101)
        agree(torch.export.export(model, (images,)).module(), model, [images.shape])
