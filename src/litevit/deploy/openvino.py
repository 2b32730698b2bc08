"""OpenVINO (.xml with its weights in .bin beside it), float32 inside."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litevit.deploy.formats import Format, Job, Opened, holds_anything
from litevit.deploy.metadata import KEY, Metadata


class OpenVINOEngine:
    def __init__(self, compiled: Any):
        self.request = compiled.create_infer_request()
        self.outputs = compiled.outputs

    def run(self, images: Tensor) -> list[Tensor]:
        found = self.request.infer([images.contiguous().numpy()], share_inputs=True)
        return [torch.from_numpy(found[output].copy()) for output in self.outputs]


def write(job: Job, path: Path) -> None:
    import openvino

    openvino.save_model(convert(job), path, compress_to_fp16=False)  # its default rounds the weights to 16 bits


def convert(job: Job) -> Any:
    """The model in OpenVINO's form, with names and metadata."""
    import openvino

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = openvino.convert_model(job.program())
    model.inputs[0].get_tensor().set_names({"images"})
    for output, name in zip(model.outputs, job.graph.names, strict=True):
        output.get_tensor().set_names({name})
    for key, value in job.metadata.write().items():
        model.set_rt_info(value, [KEY, key])
    return model


def load(path: Path, threads: int | None) -> Opened:
    return open_file(path, threads, precision="f32")


def open_file(path: Path, threads: int | None, *, precision: str | None) -> Opened:
    """Args: precision: None leaves it to OpenVINO, which takes bfloat16 where the processor has units for it."""
    try:
        import openvino
    except ImportError as error:
        raise ImportError("Running OpenVINO files needs its runtime: pip install 'litevit[openvino]'") from error
    core = openvino.Core()
    model = core.read_model(path)
    table = model.get_rt_info(KEY).value if model.has_rt_info(KEY) else {}
    metadata = Metadata.read({key: str(getattr(value, "value", value)) for key, value in table.items()}, path)
    hints: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    if precision is not None:
        hints["INFERENCE_PRECISION_HINT"] = precision
    if threads is not None:
        hints["INFERENCE_NUM_THREADS"] = threads
    return Opened(OpenVINOEngine(core.compile_model(model, "CPU", hints)), metadata)


FORMAT = Format(
    name="openvino",
    suffix=".xml",
    runtime="OpenVINO",
    needs=("openvino",),
    install="pip install 'litevit[openvino]'",
    free_batch=True,
    free_size=True,
    int8=True,
    refuses=holds_anything,
    write=write,
    load=load,
)
