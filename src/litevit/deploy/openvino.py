"""OpenVINO (.xml with its weights in .bin beside it), float32 inside."""

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litevit.deploy.formats import Format, Job, Opened
from litevit.deploy.metadata import KEY, Metadata
from litevit.deploy.program import trace
from litevit.deploy.twins import with_channels_kept_first


def runtime() -> Any:
    """The package `openvino`, without its telemetry: its import would write to the home folder and report to Google.

    Raises:
        ImportError: it is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if that were not installed
    try:
        import openvino
    except ImportError as error:
        raise ImportError("OpenVINO files need its runtime: pip install 'litevit[openvino]'") from error
    return openvino


@cache
def core() -> Any:
    """OpenVINO's Core, one for the process and until its end.

    The CPU's plug-in of a Core makes a stack for the thread's signals and, when it goes, gives back the one before. Of
    two Cores that go in the order they came, that one is freed already, and the next signal that Python handles
    (Ctrl-C, the end of a loader's worker) ends the process with a segmentation fault (OpenVINO 2026.4).
    """
    return runtime().Core()


class OpenVINOEngine:
    def __init__(self, compiled: Any):
        self.request = compiled.create_infer_request()
        self.outputs = compiled.outputs
        self.precision: str = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()

    def run(self, images: Tensor) -> list[Tensor]:
        found = self.request.infer([images.contiguous().numpy()], share_inputs=True)
        return [torch.from_numpy(found[output].copy()) for output in self.outputs]


def write(job: Job, path: Path) -> None:
    model = convert(job, channels_first=not job.shape.fixed)
    runtime().save_model(model, path, compress_to_fp16=False)  # its default rounds the weights to 16 bits


def convert(job: Job, *, channels_first: bool) -> Any:
    """The model in OpenVINO's form, with names and metadata. Args: channels_first: of feed-forward networks."""
    openvino = runtime()
    program = trace(with_channels_kept_first(job.graph), job.shape) if channels_first else job.program()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = openvino.convert_model(program, extension=[_suppression(), _larger()])
    model.inputs[0].get_tensor().set_names({"images"})
    # Its front end takes every size for free, and the CPU's plug-in then copies at each change of layout.
    H, W = job.shape.size or (-1, -1)
    model.reshape([job.shape.batch or -1, 3, H, W])
    for output, name in zip(model.outputs, job.graph.names, strict=True):
        output.get_tensor().set_names({name})
    for key, value in job.metadata.write().items():
        model.set_rt_info(value, [KEY, key])
    return model


def quantize(job: Job, exact: Path, path: Path, images: Sequence[Tensor]) -> None:
    """Through NNCF in its mode for Transformers; scores and heads stay float.

    Feed-forward networks stay in their convolution's layout: between a product in 8 bits and a float convolution the
    plug-in copies the map, also where all sizes are fixed (a quarter of litv2_s's time). Their depthwise convolutions
    are in 8 bits as well, one scale per channel. Against float32, litv2_s, batch 8, one thread, AVX512-VNNI: 1.51 times
    as fast before, 1.88 with the layout, 2.13 with both.
    """
    openvino = runtime()
    try:
        import nncf
    except ImportError as error:
        raise ImportError("int8 files of OpenVINO are made by NNCF: pip install 'litevit[int8]'") from error

    nncf.set_log_level(logging.ERROR)
    model = convert(job, channels_first=True)
    told = model.get_rt_info(KEY).value
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        quantised = nncf.quantize(
            model,
            nncf.Dataset([image.numpy() for image in images]),
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=len(images),
            ignored_scope=nncf.IgnoredScope(names=_last_products(model), types=["GridSample"], validate=False),
        )
    for key, value in told.items():
        quantised.set_rt_info(str(getattr(value, "value", value)), [KEY, key])
    quantised.set_rt_info("true", [KEY, "int8"])
    openvino.save_model(quantised, path, compress_to_fp16=False)


def _last_products(model: Any) -> list[str]:
    """Names of the products that nothing but elementwise operators lie between and an output."""
    found, todo, seen = [], [result.input_value(0).get_node() for result in model.get_results()], set()
    while todo:
        node = todo.pop()
        name = node.get_friendly_name()
        if name in seen:
            continue
        seen.add(name)
        if node.get_type_name() in ("MatMul", "Convolution"):
            found.append(name)
        else:
            todo += [node.input_value(i).get_node() for i in range(node.get_input_size())]
    return found


def _suppression() -> Any:
    """Our operator for boxes in OpenVINO's."""
    import numpy as np
    from openvino import opset13 as ops
    from openvino.frontend.pytorch import ConversionExtension

    def suppressed(node: Any) -> list[Any]:
        boxes, scores, iou_threshold = (node.get_input(i) for i in range(3))
        count = ops.gather(ops.shape_of(scores), np.int64(1), np.int64(0))
        threshold = ops.convert(iou_threshold, "f32")
        found = ops.non_max_suppression(
            boxes, ops.unsqueeze(scores, np.int64(1)), count, threshold, np.float32(-0.5), output_type="i64"
        )
        where = ops.gather(found.output(0), np.array([0, 2]), np.int64(1))  # rows of image, class, box
        rows = ops.gather(ops.shape_of(where), np.array([0]), np.int64(0))
        zeros = ops.broadcast(np.float32(0), ops.shape_of(scores))
        marked = ops.scatter_nd_update(zeros, where, ops.broadcast(np.float32(1), rows))
        return ops.greater(marked, np.float32(0.5)).outputs()

    return ConversionExtension("litevit.batched_nms.default", suppressed)


def _larger() -> Any:
    """The larger of two sizes, which Swin's windows ask for."""
    from openvino import opset13 as ops
    from openvino.frontend.pytorch import ConversionExtension

    def larger(node: Any) -> list[Any]:
        a, b = (ops.convert(node.get_input(i), "i64") for i in range(2))
        return ops.maximum(a, b).outputs()

    return ConversionExtension(str(torch.sym_max), larger)  # the front end's name of a Python function


def load(path: Path, threads: int | None) -> Opened:
    return open_file(path, threads, precision="f32")


def load_default(path: Path, threads: int | None) -> Opened | None:
    """As OpenVINO runs it when left alone: in bfloat16 where the processor has units for it. None: in float32."""
    if "BF16" not in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return None
    opened = open_file(path, threads, precision=None)
    assert isinstance(opened.engine, OpenVINOEngine)
    return None if opened.engine.precision == "f32" else opened


def open_file(path: Path, threads: int | None, *, precision: str | None) -> Opened:
    """Args: precision: None leaves it to OpenVINO, which takes bfloat16 where the processor has units for it."""
    weights = path.with_suffix(".bin")
    if not weights.exists():
        raise ValueError(f"{path} has its weights in {weights.name}, which is not beside it: copy both")
    if not path.read_bytes()[:64].lstrip().startswith(b"<"):  # OpenVINO prints pages of bytes before it raises
        raise ValueError(f"{path} is not a file of OpenVINO: it does not begin as XML does")
    model = core().read_model(path)
    table = model.get_rt_info(KEY).value if model.has_rt_info(KEY) else {}
    metadata = Metadata.read({key: str(getattr(value, "value", value)) for key, value in table.items()}, path)
    hints: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    if precision is not None:
        hints["INFERENCE_PRECISION_HINT"] = precision
    if threads is not None:
        hints["INFERENCE_NUM_THREADS"] = threads
    return Opened(OpenVINOEngine(core().compile_model(model, "CPU", hints)), metadata)


FORMAT = Format(
    name="openvino",
    suffix=".xml",
    runtime="OpenVINO",
    needs=("openvino",),
    needs_int8=("nncf",),
    write=write,
    load=load,
    load_default=load_default,
    quantize=quantize,
    free=True,
    sealed=(".xml", ".bin"),
)
