"""ONNX (.onnx), for ONNX Runtime and whatever else reads it: one file, the metadata in its properties."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litevit.deploy.formats import Format, Job, Opened
from litevit.deploy.metadata import Metadata
from litevit.deploy.program import attention_axes, with_free_layouts, with_plain_attention
from litevit.ops.batched_nms import batched_nms

OPSET = 20  # GridSample takes "linear" from here on; ONNX Runtime reads it since 1.17 (2024)
LEAST, MOST = 18, 24  # with an older one the exporter writes a wrong GridSample and says nothing


def runtime() -> Any:
    """The package `onnxruntime`, which would otherwise report its use to Microsoft (from 1.32; `=0` allows it).

    Raises:
        ImportError: it is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read once, when the library starts
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError("Running .onnx files needs ONNX Runtime: pip install 'litevit[onnx]'") from error
    return onnxruntime


class ONNXEngine:
    def __init__(self, session: Any):
        self.session = session
        self.input = session.get_inputs()[0].name

    def run(self, images: Tensor) -> list[Tensor]:
        return [torch.from_numpy(x) for x in self.session.run(None, {self.input: images.contiguous().numpy()})]


def refuses(job: Job) -> str | None:
    if job.opset is not None and not LEAST <= job.opset <= MOST:
        return (
            f"opset must be {LEAST} to {MOST}, got {job.opset}: before, GridSample and LayerNormalization are missing"
        )
    return None


def write(job: Job, path: Path) -> None:
    import torch.onnx

    runtime()  # before anything that the exporter may load it for
    traced = job.program()
    if attention_axes(traced) > 4:  # Swin's; the exporter's own form wants four
        traced = with_plain_attention(traced)
    with _quiet():
        program: Any = torch.onnx.export(
            with_free_layouts(traced),
            dynamo=True,
            opset_version=job.opset or OPSET,
            input_names=["images"],
            output_names=list(job.graph.names),
            custom_translation_table=_translations(),
            external_data=False,
            optimize=True,
            verbose=False,
        )
        program.model.metadata_props.update(job.metadata.write())
        program.model.producer_name = "litevit"
        program.save(path, external_data=False)


def _translations() -> dict[Callable, Callable]:
    """Our operators in ONNX's."""
    from onnxscript import FLOAT, opset18

    op: Any = opset18

    def suppressed(boxes: FLOAT, scores: FLOAT, iou_threshold: float):  # type: ignore[no-untyped-def]
        # (M, 3) rows of image, class, box; a score below 0 takes no part.
        count = op.Shape(scores, start=1, end=2)
        least = op.Constant(value_float=-0.5)
        found = op.NonMaxSuppression(boxes, op.Unsqueeze(scores, [1]), count, iou_threshold, least)
        where = op.Gather(found, op.Constant(value_ints=[0, 2]), axis=1)
        ones = op.Expand(op.Constant(value_float=1.0), op.Shape(where, start=0, end=1))
        zeros = op.Expand(op.Constant(value_float=0.0), op.Shape(scores))
        return op.Greater(op.ScatterND(zeros, where, ones), op.Constant(value_float=0.5))

    return {batched_nms._opoverload: suppressed}


def quantize(job: Job, exact: Path, path: Path, images: Sequence[Tensor]) -> None:
    """Products with weights, in QDQ form; per output channel, because a Transformer's channels differ."""
    import onnx

    runtime()
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter(images)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.rest, None)
            return None if image is None else {"images": image.numpy()}

    with _quiet():
        quantize_static(
            exact,
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_exclude=_last_products(onnx.load(exact, load_external_data=False).graph),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        model = onnx.load(path)
        onnx.helper.set_model_props(model, {p.key: p.value for p in onnx.load(exact).metadata_props} | {"int8": "true"})
        onnx.save(model, path)


def _last_products(graph: Any) -> list[str]:
    """Names of the products that nothing but elementwise operators lie between and an output."""
    products = ("MatMul", "Gemm", "Conv")
    makers = {output: node for node in graph.node for output in node.output}
    found, todo, seen = [], [output.name for output in graph.output], set()
    while todo:
        node = makers.get(todo.pop())
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if node.op_type in products:
            found.append(node.name)
        else:
            todo += list(node.input)
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's advice is for its developers."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", None)]
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


def load(path: Path, threads: int | None) -> Opened:
    onnxruntime = runtime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    if threads is not None:
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return Opened(ONNXEngine(session), Metadata.read(session.get_modelmeta().custom_metadata_map, path))


FORMAT = Format(
    name="onnx",
    suffix=".onnx",
    runtime="ONNX Runtime",
    needs=("onnxruntime", "onnx", "onnxscript"),
    write=write,
    load=load,
    refuses=refuses,
    quantize=quantize,
    free=True,
    sealed=(".onnx",),
)
