"""Models in the engines that people deploy with: the same exporter for ours and for timm's."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from litevit.bench.words import Dtype
from litevit.deploy.exporter import export
from litevit.deploy.formats import find
from litevit.deploy.openvino import open_file

FORMAT: dict[str, str] = {"onnxruntime": "onnx", "openvino": "openvino"}
PRECISION: dict[Dtype, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


def engine_runner(
    model: nn.Module, engine: str, dtype: Dtype, size: tuple[int, int]
) -> Callable[[int], Callable[[], object]]:
    """Batch -> a function that runs the model in an engine on the CPU, with PyTorch's number of threads.

    Args:
        model: plain, float32.
        engine: of `FORMAT`.

    Raises:
        ImportError: the engine is not installed.
        ValueError: it has no arithmetic of this kind.
    """
    kind = find(FORMAT[engine])
    if engine == "onnxruntime" and dtype != "fp32":
        raise ValueError(f"ONNX Runtime computes in float32 here, not in {dtype}")

    def make(batch: int) -> Callable[[], object]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"model{kind.suffix}"
            export(model, path, format=kind.name, image_size=size, batch_size=batch, verify=False)
            threads = torch.get_num_threads()
            if engine == "openvino":
                runner: Any = open_file(path, threads, precision=PRECISION[dtype]).engine
            else:
                assert kind.load is not None
                runner = kind.load(path, threads).engine
        images: Tensor = torch.randn(batch, 3, *size)
        return lambda: runner.run(images)

    return make
