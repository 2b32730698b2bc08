"""Models in the engines that people deploy with: the same exporter for ours and for timm's."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from litevit.bench.words import ModelDtype
from litevit.deploy.formats import find
from litevit.deploy.openvino import open_file
from litevit.deploy.plan import plan
from litevit.deploy.source import open_source
from litevit.deploy.verify import images_of

FORMAT: dict[str, str] = {"onnxruntime": "onnx", "openvino": "openvino"}
PRECISION: dict[ModelDtype, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32", "int8-bf16": "bf16"}
INT8 = ("int8", "int8-bf16")
CALIBRATION = 16  # drawn scenes; the weights are random, and only the speed is asked for


def check_engines(engines: Sequence[str], dtypes: Sequence[ModelDtype]) -> None:
    """Raises ImportError where one that was asked for is not installed; PyTorch is."""
    for engine in engines:
        if engine in FORMAT:
            find(FORMAT[engine], int8=bool(set(dtypes) & set(INT8)))


def engine_runner(
    model: nn.Module, engine: str, dtype: ModelDtype, size: tuple[int, int]
) -> Callable[[int], Callable[[], object]]:
    """Batch -> a function that runs the model in an engine on the CPU, with PyTorch's number of threads.

    Args:
        model: plain, float32.
        engine: of `FORMAT`.

    Raises:
        ImportError: the engine is not installed.
        ValueError: it has no arithmetic of this kind.
    """
    kind = find(FORMAT[engine], int8=dtype in INT8)
    if engine == "onnxruntime" and dtype not in ("fp32", "int8"):
        raise ValueError(f"ONNX Runtime computes in float32 or int8 here, not in {dtype}")

    def make(batch: int) -> Callable[[], object]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"model{kind.suffix}"
            job, _ = plan(open_source(model), kind, image_size=size, batch_size=batch, verify=False)
            kind.write(job, path)
            if dtype in INT8:
                assert kind.quantize is not None
                exact, path = path, Path(folder) / f"int8{kind.suffix}"
                count = -(-CALIBRATION // batch) * batch
                scenes = images_of("images", count, size, uint8=False, photos=())
                kind.quantize(job, exact, path, scenes.split(batch))
            threads = torch.get_num_threads()
            if engine == "openvino":
                runner: Any = open_file(path, threads, precision=PRECISION[dtype]).engine
                if runner.precision != PRECISION[dtype]:  # it takes another without a word
                    raise ValueError(f"OpenVINO computes {dtype} with {runner.precision} on this processor")
            else:
                assert kind.load is not None
                runner = kind.load(path, threads).engine
        images: Tensor = torch.randn(batch, 3, *size)
        return lambda: runner.run(images)

    return make
