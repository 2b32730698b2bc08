"""`torch.export` of a graph: the one trace that every format is written from."""

import operator
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from litevit.deploy.graph import Graph
from litevit.deploy.shapes import InputShape


def trace(graph: Graph, shape: InputShape) -> ExportedProgram:
    """The program of a graph for images of a shape.

    Raises:
        ValueError: the graph is tied to a size, or does what the exporter has no form for.
    """
    axes = shape.dynamic()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(
                graph,
                (shape.example(),),
                dynamic_shapes=None if axes is None else (axes,),
                # What the exporter cannot prove about sizes it would refuse. They are questions of memory layouts
                # ("1 % (16 * width) != 0"), which change no result; the file is judged at other sizes.
                prefer_deferred_runtime_asserts_over_guards=True,
            )
    except Exception as error:  # the exporter raises what its parts raise
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ValueError(
            f"{type(graph.model).__name__} could not be traced for {shape.describe()}: {reason}. "
            + ("Fix the size (--image-size H W)." if axes else "")
        ) from error
    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten._assert_scalar.default:
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    return program


def with_free_layouts(program: ExportedProgram) -> ExportedProgram:
    """The program with a copy before every view of a transposed tensor, in place; a format drops what it needs not.

    Such a view was recorded for the memory layout of one kernel's result (attention's). What a format decomposes that
    operator into may lay it out otherwise.
    """
    moved = (torch.ops.aten.transpose.int, torch.ops.aten.permute.default)
    viewing = (torch.ops.aten.view.default, torch.ops.aten.reshape.default)
    for node in list(program.graph.nodes):
        if node.target in viewing and node.args[0].target in moved:
            with program.graph.inserting_before(node):
                copied = program.graph.call_function(
                    torch.ops.aten.clone.default, (node.args[0],), {"memory_format": torch.contiguous_format}
                )
            copied.meta = dict(node.args[0].meta)
            node.replace_input_with(node.args[0], copied)
    program.graph_module.recompile()
    return program


def attention_axes(program: ExportedProgram) -> int:
    """Most axes of a query; 0 without PyTorch's operator for attention."""
    attention = torch.ops.aten.scaled_dot_product_attention.default
    return max((node.args[0].meta["val"].ndim for node in program.graph.nodes if node.target is attention), default=0)


def with_plain_attention(program: ExportedProgram) -> ExportedProgram:
    """The program with attention as two products and a softmax, for runtimes without an operator of their own.

    Their decomposition of PyTorch's operator guards against rows that are masked throughout, which ours never are.
    """

    def attend(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        assert (dropout_p, is_causal, enable_gqa) == (0.0, False, False)
        scores = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.transpose(-2, -1)
        return (scores if attn_mask is None else scores + attn_mask).softmax(-1) @ v

    table: dict[Any, Any] = {torch.ops.aten.scaled_dot_product_attention.default: attend}
    return program.run_decompositions(table)


MOST_GROWTH = 4  # times the numbers a constant is made from; a larger one would make the file larger than the model


def with_constants_folded(program: ExportedProgram, example: Tensor) -> ExportedProgram:
    """The program with what depends on parameters alone computed once, unless that makes the file larger.

    Position tables that are resized to the image are such values, where a file has one size.
    """
    module = program.module(check_guards=False)
    graph = module.graph
    known: dict[torch.fx.Node, Any] = {}
    for node in graph.nodes:
        if node.op == "get_attr":
            known[node] = operator.attrgetter(node.target)(module)
        elif node.op == "call_function" and node.all_input_nodes and all(x in known for x in node.all_input_nodes):
            arguments, options = torch.fx.node.map_arg((node.args, node.kwargs), known.__getitem__)
            with torch.no_grad():
                value = node.target(*arguments, **options)
            made_from = sum(known[x].numel() for x in node.all_input_nodes)
            if isinstance(value, Tensor) and value.numel() <= MOST_GROWTH * made_from:
                known[node] = value
    last = [x for x in known if x.op != "get_attr" and any(user not in known for user in x.users)]
    for i, node in enumerate(last):
        module.register_buffer(f"folded_{i}", known[node].detach().clone())
        with graph.inserting_before(node):
            node.replace_all_uses_with(graph.get_attr(f"folded_{i}"))
    graph.eliminate_dead_code()
    module.recompile()
    with torch.no_grad():
        return torch.export.export(module, (example,))
