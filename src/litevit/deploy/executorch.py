"""ExecuTorch (.pte), for phones and boards: one size, one number of images, XNNPACK's kernels."""

import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from litevit.deploy.formats import Format, Job, Opened
from litevit.deploy.metadata import KEY, Metadata
from litevit.deploy.program import with_constants_folded, with_free_layouts, with_plain_attention
from litevit.files import parse_json

TOLD = f"{KEY}_metadata"  # a method of the file that returns its metadata as JSON
MOST_AXES = 6  # XNN_MAX_TENSOR_DIMS: with more, the file is written and its runtime refuses it


class ExecuTorchEngine:
    def __init__(self, program: Any):
        self.program = program  # the method lives in it
        with without_cpuinfo():
            self.method = program.load_method("forward")

    def run(self, images: Tensor) -> list[Tensor]:
        # The runtime reads memory as it lies, whatever the strides say, and its answers lie in memory that it reuses.
        return [torch.as_tensor(x).clone() for x in self.method.execute([images.contiguous()])]


def refuses(job: Job) -> str | None:
    if "count" in job.graph.names:
        return (
            "ExecuTorch has no non-maximum suppression and no RoIAlign; export the backbone "
            "(litevit.create_backbone), or the whole as onnx or openvino"
        )
    return None


def write(job: Job, path: Path) -> None:
    with quiet():
        _lower(
            with_free_layouts(with_plain_attention(with_constants_folded(job.program(), job.shape.example()))),
            job.metadata,
            path,
        )


def _lower(program: ExportedProgram, metadata: Metadata, path: Path) -> None:
    from executorch.exir import to_edge_transform_and_lower

    lowered = to_edge_transform_and_lower(
        program, partitioner=[_partitioner()], constant_methods={TOLD: json.dumps(metadata.write())}
    )
    path.write_bytes(lowered.to_executorch().buffer)


def _partitioner() -> Any:
    """XNNPACK's, without operators on tensors of more axes than XNNPACK has (HiLo's windows): the portable kernels, a
    copy each, do those."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    partitioner = XnnpackPartitioner()
    for config in partitioner.target_partitioner_configs.values():

        def fits(node: fx.Node, program: ExportedProgram, others: Any = config.check_constraints) -> bool:
            values = [x.meta.get("val") for x in (node, *node.all_input_nodes)]
            flat = all(value.dim() <= MOST_AXES for value in values if isinstance(value, Tensor))
            return flat and others(node, program)

        config.check_constraints = fits
    return partitioner


def quantize(job: Job, exact: Path, path: Path, images: Sequence[Tensor]) -> None:
    """Products with weights, per output channel; the activations' ranges are those of the images."""
    with quiet():
        program = with_constants_folded(job.program(), job.shape.example())
        quantised = in_8_bits(program, job.shape.example(), images)
        _lower(with_free_layouts(with_plain_attention(quantised)), replace(job.metadata, int8=True), path)


def in_8_bits(program: ExportedProgram, example: Tensor, images: Sequence[Tensor]) -> ExportedProgram:
    """The program with linear layers and full convolutions between quantisation and its reverse."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    class ProductsOnly(XNNPACKQuantizer):
        def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
            """Without its last step, which spreads 8 bits to the views and copies between products: those of more
            axes than XNNPACK has would be left to the portable kernels, which have no such type."""
            return self._annotate_for_quantization_config(model)

    quantizer = ProductsOnly()
    config = get_symmetric_quantization_config(is_per_channel=True)
    for operator in (torch.ops.aten.linear.default, torch.ops.aten.conv2d.default):
        quantizer.set_operator_type(operator, config)
    quantizer.set_filter_function(_is_product)
    prepared = prepare_pt2e(_with_weights_apart(program.module(check_guards=False)), quantizer)
    with torch.no_grad():
        for image in images:
            prepared(image)
    return torch.export.export(convert_pt2e(prepared), (example,))


def _with_weights_apart(module: fx.GraphModule) -> fx.GraphModule:
    """With a name of its own for the weights of every convolution, in place. Where one is called again (RASA's
    recursion), the quantizer would leave the second call in float, and the file would hold both copies (1.3 MB of
    lvt); equal bytes are written once."""
    for node in list(module.graph.nodes):
        if node.target is torch.ops.aten.conv2d.default:
            for weight in [x for x in node.all_input_nodes if x.op == "get_attr" and len(x.users) > 1]:
                with module.graph.inserting_before(node):
                    own = module.graph.get_attr(weight.target)
                own.meta = dict(weight.meta)
                node.replace_input_with(weight, own)
    module.recompile()
    return module


def _is_product(node: fx.Node) -> bool:
    """Not a convolution in groups: a channel of its own has too few weights to lose digits, and little to win."""
    return bool(node.target is not torch.ops.aten.conv2d.default or len(node.args) < 7 or node.args[6] == 1)


@contextmanager
def quiet() -> Iterator[None]:
    """The exporter's advice is for its developers, as is what PyTorch tells torchao while that is imported."""
    loggers = (logging.root, logging.getLogger("torch.utils._pytree"))
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


@contextmanager
def without_cpuinfo() -> Iterator[None]:
    """Drops what ExecuTorch tells standard error when it looks at the processor: that it cannot open Arm's files."""
    try:
        kept = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            said.seek(0)
            for line in said:
                if not line.startswith(b"[cpuinfo_utils.cpp:"):
                    os.write(2, line)


def load(path: Path, threads: int | None) -> Opened:
    """Args: threads: not used; ExecuTorch's runtime for Python has a pool of its own."""
    try:
        with quiet():
            from executorch.runtime import Runtime
    except ImportError as error:
        raise ImportError("Running .pte files needs ExecuTorch: pip install 'litevit[executorch]'") from error
    program = Runtime.get().load_program(path)
    told = program.load_method(TOLD).execute([])[0] if TOLD in program.method_names else "{}"
    return Opened(ExecuTorchEngine(program), Metadata.read(parse_json(told, f"{path}: {TOLD}"), path))


FORMAT = Format(
    name="executorch",
    suffix=".pte",
    runtime="ExecuTorch",
    needs=("executorch", "torchao"),
    write=write,
    load=load,
    refuses=refuses,
    quantize=quantize,
    sealed=(".pte",),
)
