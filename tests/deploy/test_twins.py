"""The forms that layers take in a file: the same functions, in the shapes that a runtime is quick with."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from families import classifier
from small import fixed, needs

from litevit.deploy.graph import build_graph
from litevit.deploy.program import trace, with_constants_folded, with_plain_attention
from litevit.deploy.shapes import InputShape
from litevit.deploy.twins import ChannelsFirstConvFFN, FlatCSA, with_channels_kept_first, with_few_axes


@torch.no_grad()
def test_layers_of_few_axes_are_the_same() -> None:
    torch.manual_seed(0)
    graph = build_graph(classifier("lvt").eval())
    flat = with_few_axes(graph)
    assert any(isinstance(m, FlatCSA) for m in flat.modules())
    assert not any(isinstance(m, FlatCSA) for m in graph.modules())
    images = torch.randn(2, 3, 65, 78)
    torch.testing.assert_close(flat(images)[0], graph(images)[0], atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_feed_forward_networks_in_channels_first_are_the_same() -> None:
    torch.manual_seed(0)
    graph = build_graph(classifier("litv2").eval())
    first = with_channels_kept_first(graph)
    assert sum(isinstance(m, ChannelsFirstConvFFN) for m in first.modules()) == 5
    images = torch.randn(2, 3, 65, 78)
    torch.testing.assert_close(first(images)[0], graph(images)[0], atol=1e-6, rtol=1e-5)


@needs("openvino")
@pytest.mark.parametrize("batch", [1, None])
def test_openvino_knows_the_shape_that_is_fixed(batch: int | None, tmp_path: Path) -> None:
    """It copies no maps where all is fixed, and has products in the convolutions' layout where it is not."""
    import openvino

    fixed(tmp_path / "x.xml", "openvino", batch_size=batch, verify=False)
    model = openvino.Core().read_model(tmp_path / "x.xml")
    assert [x.is_static for x in model.inputs[0].partial_shape] == [batch is not None, True, True, True]
    kinds = Counter(node.get_type_name() for node in model.get_ops())
    assert (kinds["MatMul"], kinds["Convolution"]) == ((25, 4) if batch else (15, 14))


@torch.no_grad()
def test_constants_are_folded_and_attention_is_plain() -> None:
    torch.manual_seed(0)
    graph, shape = build_graph(classifier("lit").eval()), InputShape(batch=1, size=(96, 128))
    images = torch.randn(1, 3, 96, 128)
    program = trace(graph, shape)
    changed = with_plain_attention(with_constants_folded(program, shape.example()))
    before, after = ([str(node.target) for node in p.graph.nodes] for p in (program, changed))
    assert "aten.upsample_bicubic2d.vec" in before
    assert "aten.upsample_bicubic2d.vec" not in after
    assert "aten.scaled_dot_product_attention.default" not in after
    torch.testing.assert_close(changed.module()(images)[0], graph(images)[0], atol=1e-6, rtol=1e-5)
