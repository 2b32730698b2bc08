"""`litevit.export`: a model becomes a file of another runtime, and the file is proven before it gets its name."""

import json
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor, nn

from litevit.checkpoints.published import Preprocessing
from litevit.data.images import read_image
from litevit.deploy.exported import DETECTORS, as_exported
from litevit.deploy.formats import Format, Job, find, formats
from litevit.deploy.graph import Graph, build_graph
from litevit.deploy.metadata import Metadata
from litevit.deploy.preprocess import PreprocessedGraph
from litevit.deploy.program import trace
from litevit.deploy.quantize import acceptable, calibration_images, compare, prepared
from litevit.deploy.shapes import InputShape, smallest_side
from litevit.deploy.source import Source, open_source, plain_config
from litevit.deploy.staging import publish, says_when_full, staging
from litevit.deploy.verify import Check, agreement, judge
from litevit.jobs.predict import find_images

TRACING = threading.Lock()  # torch.export is not made for several threads
LEAST_IMAGE = 16  # side of an image that a file resizes itself
PHOTOS = 16  # of a folder, at most, that take part in the proof


class ExportError(RuntimeError):
    """The file is not the function that the model is; it was not kept. `report` says what was found."""

    def __init__(self, message: str, report: "ExportReport"):
        super().__init__(message)
        self.report = report


@dataclass(kw_only=True)
class ExportReport:
    """What became of an export. Written beside the file as `<name>.report.json`."""

    path: Path
    format: str
    model: str
    task: str
    verified: bool = False
    checks: tuple[Check, ...] = ()
    bytes: int = 0  # of all files
    seconds: float = 0.0
    input: str = ""  # what the file takes
    outputs: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    agreement: dict[str, Any] = field(default_factory=dict)  # on a folder of images
    int8: dict[str, Any] = field(default_factory=dict)  # against the float32 file
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def worst(self) -> Check | None:
        """The check that came nearest to its tolerance, or passed it."""
        return max(self.checks, key=lambda c: _share(c), default=None)

    def to_json(self) -> str:
        content = asdict(self) | {"path": str(self.path)}
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.format}, {self.bytes / 1e6:.1f} MB, takes {self.input}"]
        worst = self.worst
        if self.verified and worst is not None:
            for key, value in self.agreement.items():
                if key != "images":
                    lines.append(f"  {key}: equal on {100 * value:.1f} % ({self.agreement['images']} images)")
            lines.append(f"  the same function in {len(self.checks)} checks; worst: {worst}")
        else:
            lines.append("  NOT verified")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def _share(check: Check) -> float:
    if check.kind == "other images":
        return check.tolerance / check.worst if check.worst else float(not check.ok) * float("inf")
    return check.worst / check.tolerance if check.tolerance else float("inf") * bool(check.worst)


def export(
    model: str | Path | nn.Module,
    path: str | Path,
    *,
    format: str,
    image_size: int | tuple[int, int] | None = None,
    batch_size: int | None = None,
    dynamic: bool = True,
    preprocessing: bool = False,
    int8: str | Path | None = None,
    weights: str | Path | None = "official",
    num_classes: int | None = None,
    names: str | Path | None = None,
    images: str | Path | None = None,
    opset: int | None = None,
    verify: bool = True,
    progress: Callable[[str], None] = lambda text: None,
) -> ExportReport:
    """Writes a model as a file of another runtime, and proves that it is the same function.

    Args:
        model: a name of `litevit.list_models()`, a model, or the folder of a training run.
        path: of the file.
        format: "pt2", "onnx", "openvino", "executorch", "litert" (its converter in an environment of its own) or
            "coreml" (written, not run: Apple's systems alone do); "tensorrt" says where to go instead.
        image_size: side, or height and width, of the images the file takes; None: any, where the format can.
        batch_size: images at a time; None: any, where the format can.
        dynamic: False fixes what is not given: the size to the model's own, the batch to 1.
        preprocessing: the file takes uint8 RGB and does the resizing and normalisation itself.
        int8: folder of images to calibrate 8-bit products with.
        weights: for a name: "official", a file, or None or "none" (random).
        num_classes: of the checkpoint, where it is not the published one's.
        names: file of class names.
        images: folder of images that take part in the proof, and on which agreement is reported.
        opset: of ONNX.
        verify: False leaves the proof out and marks the file as unproven.
        progress: told what is being done.

    Returns:
        The report, which is also written beside the file.

    Raises:
        ValueError: the format cannot hold this model, a wrong option.
        ImportError: the format's tools are not installed; the message names the extra.
        OSError: no space, no permission.
        ExportError: the file was written and is not the same function; nothing was kept.
    """
    started = time.perf_counter()
    path = Path(path).expanduser()
    kind = find(format)
    if path.suffix.lower() != kind.suffix:
        raise ValueError(f"A file of {kind.runtime} ends in {kind.suffix}, got {path.name}")
    if int8 is not None and kind.quantize is None:
        able = [name for name, other in formats().items() if other.quantize]
        raise ValueError(f"{format} files are not written in int8; {', '.join(able)} are")
    photos = _photos(images)
    verify = verify and kind.load is not None
    source = open_source(model, weights=weights, num_classes=num_classes, names=names)
    job, notes = plan(
        source,
        kind,
        image_size=image_size,
        batch_size=batch_size,
        dynamic=dynamic,
        preprocessing=preprocessing,
        opset=opset,
        verify=verify,
    )
    if why := kind.refuses(job):
        raise ValueError(f"{format} cannot hold {source.name}: {why}")
    if kind.load is None:
        notes.append(f"written, but not run here: compare it with the model where {kind.runtime} runs")
    report = ExportReport(
        path=path,
        format=format,
        model=source.name,
        task=job.metadata.task,
        input=job.shape.describe(),
        outputs=job.graph.names,
        notes=notes,
        environment=_environment(kind),
    )
    with staging(path) as staged:
        progress("writing")
        size = 2 * sum(p.numel() * p.element_size() for p in job.graph.parameters())
        calibration = None if int8 is None else calibration_images(source, int8, job.shape)
        with TRACING, _one_line(kind, source.name), says_when_full(path, size):
            kind.write(job, staged)
        report.bytes = _bytes_in(staged.parent)
        if verify:
            report.checks, report.agreement = _prove(job, source, kind, staged, photos, progress)
            _raise_if_wrong(report)
            report.verified = True
        if calibration is not None:
            progress("calibrating")
            report.int8 = _quantise(job, kind, staged, calibration)
            _judge_int8(report)
            report.bytes = _bytes_in(staged.parent)
        report.seconds = time.perf_counter() - started
        with says_when_full(path, 10_000):
            staged.with_name(f"{path.name}.report.json").write_text(report.to_json(), encoding="utf-8")
            publish(staged, path)
    return report


@contextmanager
def _one_line(kind: Format, name: str) -> Iterator[None]:
    """What a converter raises when it meets what it has no form for, pages long, as one line."""
    try:
        yield
    except (ValueError, OSError, MemoryError):
        raise
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or [type(cause).__name__]
        reason = next(
            (line.removeprefix("-- ") for line in lines if line.startswith("-- ")), lines[0]
        )  # OpenVINO's list
        raise ValueError(
            f"The converter to {kind.runtime} could not write {name}: {reason}. Try fixed sizes (--image-size, "
            "--batch-size), another format, or the backbone alone (litevit.create_backbone)."
        ) from error


def plan(
    source: Source,
    kind: Format,
    *,
    image_size: int | tuple[int, int] | None = None,
    batch_size: int | None = None,
    dynamic: bool = True,
    preprocessing: bool = False,
    opset: int | None = None,
    verify: bool = True,
) -> tuple[Job, list[str]]:
    """What is to be written, traced when it is. Args: as of `export`. Returns: the job, and notes for the report."""
    notes: list[str] = []
    graph = build_graph(source.model)
    if preprocessing:
        return _plan_with_preprocessing(graph, source, kind, image_size, batch_size, dynamic, opset, verify), notes
    smallest = smallest_side(source.model)
    own = _own_size(source, smallest)
    size: tuple[int, int] | None = (image_size, image_size) if isinstance(image_size, int) else image_size
    batch = batch_size
    if size is None and (not dynamic or not kind.free):
        size = own
        if dynamic:
            notes.append(f"{kind.runtime} files take one size: {size[0]} x {size[1]} (--image-size chooses another)")
    if size is None and min(own) < smallest:
        size = own
        notes.append(f"the model's own images, {own[0]} x {own[1]}, are below the {smallest} pixels of free sides")
    if batch is None and (not dynamic or not kind.free):
        batch = 1
    _check_sizes(size, batch, source)
    shape = InputShape(batch=batch, size=size, smallest=smallest)
    return _job(graph, shape, source, _preprocessing_at(source.preprocessing, size), opset, verify), notes


def _plan_with_preprocessing(
    graph: Graph,
    source: Source,
    kind: Format,
    image_size: int | tuple[int, int] | None,
    batch_size: int | None,
    dynamic: bool,
    opset: int | None,
    verify: bool,
) -> Job:
    """`image_size` is what the images are resized to; the images given may have any size."""
    how = source.preprocessing
    if graph.task != "classification" or how is None:
        raise ValueError(
            f"preprocessing is put into files of classifiers; {source.name} does {graph.task}: leave it out, and "
            "litevit.load_exported resizes and normalises a list of images as the model does"
        )
    if not (kind.free and dynamic):
        raise ValueError(f"preprocessing takes images of any size, which fixed {kind.runtime} files do not")
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    _check_sizes(size, batch_size, source)
    if size is not None and size[0] != size[1]:
        raise ValueError(f"preprocessing resizes to squares, got image_size {size[0]} x {size[1]}")
    how = _preprocessing_at(how, size)
    assert how is not None
    shape = InputShape(batch=batch_size, smallest=LEAST_IMAGE, uint8=True)
    return _job(PreprocessedGraph(graph, how).eval(), shape, source, how, opset, verify)


def _job(
    graph: Graph, shape: InputShape, source: Source, how: Preprocessing | None, opset: int | None, verify: bool
) -> Job:
    metadata = Metadata(
        model=source.name,
        task=graph.task,
        outputs=graph.names,
        classes=source.classes.names if source.classes else (),
        class_ids=source.classes.ids if source.classes else (),
        num_things=source.classes.num_things if source.classes else None,
        preprocessing=how,
        preprocessing_inside=shape.uint8,
        config=plain_config(source.model),
        batch=shape.batch,
        size=shape.size,
        smallest=shape.smallest,
        verified=verify,
        licence=source.licence,
        source=source.source,
        notice=source.notice,
        recipe=source.recipe,
        litevit=_version(),
    )
    return Job(graph=graph, program=cache(lambda: trace(graph, shape)), shape=shape, metadata=metadata, opset=opset)


def _preprocessing_at(how: Preprocessing | None, size: tuple[int, int] | None) -> Preprocessing | None:
    """A classifier's, where the file takes one square size."""
    if how is None or size is None or not isinstance(how.size, int) or size[0] != size[1]:
        return how
    return replace(how, size=size[0])


def _own_size(source: Source, smallest: int) -> tuple[int, int]:
    """Of the images that the model is made for."""
    how = source.preprocessing
    if how is None or how.size == (0, 0):
        return (max(224, smallest),) * 2
    if isinstance(how.size, int):
        return how.size, how.size
    return how.size[0], how.size[0]


def _check_sizes(size: tuple[int, int] | None, batch: int | None, source: Source) -> None:
    if batch is not None and batch < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch}")
    if size is None:
        return
    if len(size) != 2:
        raise ValueError(f"image_size takes one side or height and width, got {size}")
    backbone = getattr(source.model, "backbone", source.model)
    features: Any = getattr(backbone, "features", ())
    least = features[-1].stride if len(features) == 4 else 1
    if min(size) < least:
        raise ValueError(
            f"image_size must be at least {least} on both sides for {source.name}, got {size[0]} x {size[1]}"
        )


def _photos(folder: str | Path | None) -> list[Image.Image]:
    if folder is None:
        return []
    files = find_images([folder])
    step = max(1, len(files) // PHOTOS)
    return [read_image(file) for file in files[::step][:PHOTOS]]


def _prove(
    job: Job, source: Source, kind: Format, staged: Path, photos: Sequence[Image.Image], progress: Callable[[str], None]
) -> tuple[tuple[Check, ...], dict[str, Any]]:
    assert kind.load is not None
    opened = kind.load(staged, None)
    file = as_exported(staged, kind.name, opened)
    checks = tuple(judge(job.graph, file.named, job.shape, photos=photos, progress=progress))
    return checks, agreement(job.graph, file.named, [prepared(photo, source, job.shape) for photo in photos])


def _quantise(job: Job, kind: Format, staged: Path, images: Sequence[Tensor]) -> dict[str, Any]:
    """Replaces the float32 file by its int8 file. Returns: how the two compare."""
    assert kind.quantize is not None
    assert kind.load is not None
    with tempfile.TemporaryDirectory(dir=staged.parent.parent, prefix=".") as folder:
        before = _bytes_in(staged.parent)
        for file in staged.parent.iterdir():
            os.replace(file, Path(folder) / file.name)
        kind.quantize(job, Path(folder) / staged.name, staged, images)
        # One thread each: their speeds are compared.
        exact = as_exported(Path(folder) / staged.name, kind.name, kind.load(Path(folder) / staged.name, 1))
        quantised = as_exported(staged, kind.name, kind.load(staged, 1))
        found = compare(quantised, exact, images)
        after = _bytes_in(staged.parent)
        return found | {"bytes_float32": before, "bytes_int8": after}


def _bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _judge_int8(report: ExportReport) -> None:
    """Says how int8 compares, first of all where it does not pay; raises where it is of no use."""
    found = report.int8
    word = "slower" if found["speed"] < 1 else "faster"
    size = found["bytes_int8"] / found["bytes_float32"]
    told = f"int8 is {word} on this processor: {found['speed']:.2f} times the speed of float32, {size:.2f} of its size"
    if "agreement" in found:
        equal = f"{100 * found['agreement']:.1f} % of"
        if report.task in DETECTORS:
            told += f", {equal} the detections in both, on {found['images']} images"
        else:
            told += f", the same answer on {equal} {found['images']} images"
    if "error" in found:
        told += f"; error {100 * found['error']:.1f} % of the output's spread"
    report.notes.insert(0, told)
    if not acceptable(found):
        raise ExportError(f"int8 loses too much: {report.notes[0]}. No file was kept.", report)


def _raise_if_wrong(report: ExportReport) -> None:
    wrong = [check for check in report.checks if not check.ok]
    if wrong:
        worst = max(wrong, key=_share)
        raise ExportError(
            f"{report.format} computes something else than {report.model}: {worst}; "
            f"{len(wrong)} of {len(report.checks)} checks failed. No file was kept.",
            report,
        )


def _environment(kind: Format) -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version(), "machine": platform.machine(), "litevit": _version()}
    for name in dict.fromkeys(("torch", *kind.needs)):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _version() -> str:
    return str(sys.modules["litevit"].__version__)
