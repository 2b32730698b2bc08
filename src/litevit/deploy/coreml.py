"""Core ML (.mlpackage, a folder), for Apple's systems: one size, one number of images, float32. Written anywhere, run
on a Mac alone."""

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from litevit.deploy.executorch import quiet
from litevit.deploy.formats import Format, Job
from litevit.deploy.metadata import KEY
from litevit.deploy.program import trace, with_constants_folded, with_plain_attention
from litevit.deploy.twins import with_few_axes


def refuses(job: Job) -> str | None:
    if "count" in job.graph.names:
        return (
            "Core ML has no RoIAlign as these models use it, and no suppression of many images; export the backbone "
            "(litevit.create_backbone)"
        )
    return None


def write(job: Job, path: Path) -> None:
    logger = logging.getLogger("coremltools")
    level = logger.level
    logger.setLevel(logging.ERROR)  # before its import, which warns that it runs nothing here
    try:
        with quiet():
            import coremltools

        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):  # its progress bars
            warnings.simplefilter("ignore")
            model: Any = coremltools.convert(
                _program(job),
                outputs=[coremltools.TensorType(name=name) for name in job.graph.names],
                convert_to="mlprogram",
                compute_precision=coremltools.precision.FLOAT32,
                minimum_deployment_target=coremltools.target.iOS17,
            )
        for key, value in job.metadata.write().items():
            model.user_defined_metadata[f"{KEY}.{key}"] = value
        model.save(str(path))
    finally:
        logger.setLevel(level)


def _program(job: Job) -> ExportedProgram:
    traced = trace(with_few_axes(job.graph), job.shape)
    # Position tables of another size are resized by an operator that Core ML has not.
    program = with_plain_attention(with_constants_folded(traced, job.shape.example())).run_decompositions({})
    aliases = (torch.ops.aten.alias.default, torch.ops.aten.detach.default, torch.ops.aten.detach_.default)
    for node in list(program.graph.nodes):
        if node.target in aliases:  # its converter has no form for nothing
            node.replace_all_uses_with(node.args[0])
            program.graph.erase_node(node)
    program.graph_module.recompile()
    return program


FORMAT = Format(
    name="coreml", suffix=".mlpackage", runtime="Core ML", needs=("coremltools",), write=write, refuses=refuses
)
