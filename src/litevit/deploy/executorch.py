"""ExecuTorch (.pte), for phones and boards: one size, one number of images."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litevit.deploy.formats import Format, Job, Opened
from litevit.deploy.metadata import KEY, Metadata
from litevit.deploy.program import with_free_layouts

TOLD = f"{KEY}_metadata"  # a method of the file that returns its metadata as JSON


class ExecuTorchEngine:
    def __init__(self, program: Any):
        self.program = program  # the method lives in it
        self.method = program.load_method("forward")

    def run(self, images: Tensor) -> list[Tensor]:
        return [torch.as_tensor(x).clone() for x in self.method.execute([images.contiguous()])]


def refuses(job: Job) -> str | None:
    if "count" in job.graph.names:
        return "ExecuTorch has no non-maximum suppression; export onnx or openvino"
    return None


def write(job: Job, path: Path) -> None:
    """Through XNNPACK, but for HiLo's windows: its runtime refuses their tensors (XNNCompiler: unsupported parameter,
    seen with ExecuTorch 1.5), so that models with windows run on the portable kernels, which are slow."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    backbone = getattr(job.graph.model, "backbone", job.graph.model)
    windows = getattr(getattr(backbone, "config", None), "window_sizes", ())
    fast = [] if any(window > 1 for window in windows) else [XnnpackPartitioner()]
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lowered = to_edge_transform_and_lower(
                with_free_layouts(job.program()),
                partitioner=fast,
                constant_methods={TOLD: json.dumps(job.metadata.write())},
            ).to_executorch()
    finally:
        logging.root.setLevel(level)
    path.write_bytes(lowered.buffer)


def load(path: Path, threads: int | None) -> Opened:
    """Args: threads: not used; ExecuTorch's runtime for Python has a pool of its own."""
    try:
        from executorch.runtime import Runtime
    except ImportError as error:
        raise ImportError("Running .pte files needs ExecuTorch: pip install executorch") from error
    program = Runtime.get().load_program(path)
    names = program.method_names
    told = program.load_method(TOLD).execute([])[0] if TOLD in names else "{}"
    return Opened(ExecuTorchEngine(program), Metadata.read(json.loads(told), path))


FORMAT = Format(
    name="executorch",
    suffix=".pte",
    runtime="ExecuTorch",
    needs=("executorch",),
    install="pip install executorch (version 1.5 runs with PyTorch 2.14)",
    free_batch=False,
    free_size=False,
    quantize=None,
    refuses=refuses,
    write=write,
    load=load,
)
