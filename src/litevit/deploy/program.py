"""`torch.export` of a graph: the one trace that every format is written from."""

import warnings

import torch
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
