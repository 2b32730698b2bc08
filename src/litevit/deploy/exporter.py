"""`litevit.export`: a model becomes a file of another runtime, and the file is proven before it gets its name."""

import os
import platform
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor, nn

from litevit.data.images import read_image
from litevit.deploy.exported import as_exported
from litevit.deploy.formats import Format, Job, find, formats
from litevit.deploy.plan import litevit_version, plan
from litevit.deploy.quantize import (
    acceptable,
    calibration_files,
    calibration_images,
    compare,
    prepared,
    told,
    told_default,
)
from litevit.deploy.report import ExportError, ExportReport, share_of_tolerance
from litevit.deploy.seal import put_seal
from litevit.deploy.source import Source, open_source
from litevit.deploy.staging import publish, says_when_full, staging
from litevit.deploy.verify import Check, agreement, images_of, judge
from litevit.jobs.predict import find_images

TRACING = threading.Lock()  # torch.export is not made for several threads
SIDE = 224  # of the drawn scene that a runtime's default mode is compared on, where any size is free
PHOTOS = 16  # of a folder, at most, that take part in the proof


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
    kind = find(format, int8=int8 is not None)
    if path.suffix.lower() != kind.suffix:
        raise ValueError(f"A file of {kind.runtime} ends in {kind.suffix}, got {path.name}")
    if opset is not None and kind.name != "onnx":
        raise ValueError(f"opset is of ONNX, not of {format}, got {opset}")
    if images is not None and not (verify and kind.load):
        raise ValueError(
            f"images take part in the proof, which is left out {'(verify)' if kind.load else f'of {format} files'}"
        )
    if int8 is not None and kind.quantize is None:
        able = [name for name, other in formats().items() if other.quantize]
        raise ValueError(f"{format} files are not written in int8; {', '.join(able)} are")
    if int8 is not None and preprocessing:
        raise ValueError("int8 files take normalised images: leave --preprocessing out")
    photos = _photos(images)
    if int8 is not None:
        calibration_files(int8)  # cannot be read? say so before a model is loaded
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
        calibration, labels = (None, []) if int8 is None else calibration_images(source, int8, job.shape)
        with TRACING, _one_line(kind, source.name), says_when_full(path, size):
            kind.write(job, staged)
            _seal(kind, staged)
        report.bytes = _bytes_in(staged.parent)
        if verify:
            report.checks, report.agreement, empty = _prove(job, source, kind, staged, photos, progress)
            _raise_if_wrong(report)
            report.verified = True
            if empty:
                notes.append("nothing is found on the images of the proof: it compared no detection (--images FOLDER)")
        if calibration is not None:
            progress("calibrating")
            report.int8 = _quantise(job, kind, path, staged, calibration, labels)
            _judge_int8(report)
            report.bytes = _bytes_in(staged.parent)
        elif verify:
            report.default_mode = _default_mode(job, source, kind, staged, photos)
            if report.default_mode:
                notes.append(told_default(report.default_mode, report.task, kind.runtime))
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
    except (OSError, MemoryError, ImportError):
        raise
    except Exception as error:
        if isinstance(error, ValueError) and "\n" not in str(error):  # ours, or as good
            raise
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


def _photos(folder: str | Path | None) -> list[Image.Image]:
    if folder is None:
        return []
    files = find_images([folder])
    step = max(1, len(files) // PHOTOS)
    return [read_image(file) for file in files[::step][:PHOTOS]]


def _prove(
    job: Job, source: Source, kind: Format, staged: Path, photos: Sequence[Image.Image], progress: Callable[[str], None]
) -> tuple[tuple[Check, ...], dict[str, Any], bool]:
    """Returns: the checks, the agreement on photos, and whether this is a detector's file that found nothing."""
    assert kind.load is not None
    opened = kind.load(staged, None)
    file = as_exported(staged, kind.name, opened)
    most = 0

    def run(images: Tensor) -> dict[str, Tensor]:
        nonlocal most
        found = file.named(images)
        most = max(most, int(found["count"].max())) if "count" in found else 1
        return found

    checks = tuple(judge(job.graph, run, job.shape, photos=photos, progress=progress))
    same = agreement(job.graph, run, [prepared(photo, source, job.shape) for photo in photos])
    return checks, same, most == 0


def _default_mode(
    job: Job, source: Source, kind: Format, staged: Path, photos: Sequence[Image.Image]
) -> dict[str, Any]:
    """The runtime when nothing is asked of it against the runtime in float32; empty where that is the same."""
    if kind.load is None or kind.load_default is None or (alone := kind.load_default(staged, 1)) is None:
        return {}
    size = job.shape.size or (max(SIDE, job.shape.smallest),) * 2
    images = [prepared(photo, source, job.shape) for photo in photos] or [
        images_of("images", job.shape.batch or 1, size, uint8=job.shape.uint8, photos=())
    ]
    exact = as_exported(staged, kind.name, kind.load(staged, 1))
    return compare(as_exported(staged, kind.name, alone), exact, images)


def _quantise(
    job: Job, kind: Format, path: Path, staged: Path, images: Sequence[Tensor], labels: Sequence[int]
) -> dict[str, Any]:
    """Replaces the float32 file by its int8 file. Returns: how the two compare."""
    assert kind.quantize is not None
    assert kind.load is not None
    with tempfile.TemporaryDirectory(dir=staged.parent.parent, prefix=".") as folder:
        before = _bytes_in(staged.parent)
        for file in staged.parent.iterdir():
            os.replace(file, Path(folder) / file.name)
        # Some trace another form of the model.
        with TRACING, _one_line(kind, f"{job.metadata.model} in int8"), says_when_full(path, before):
            kind.quantize(job, Path(folder) / staged.name, staged, images)
            _seal(kind, staged)
        # One thread each: their speeds are compared.
        exact = as_exported(Path(folder) / staged.name, kind.name, kind.load(Path(folder) / staged.name, 1))
        quantised = as_exported(staged, kind.name, kind.load(staged, 1))
        found = compare(quantised, exact, images, labels)
        if kind.load_default is not None and (alone := kind.load_default(staged, 1)) is not None:
            found["default_mode"] = compare(as_exported(staged, kind.name, alone), exact, images, labels)
        after = _bytes_in(staged.parent)
        return found | {"bytes_float32": before, "bytes_int8": after}


def _seal(kind: Format, staged: Path) -> None:
    if kind.sealed:
        put_seal(staged, kind.sealed)


def _bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _judge_int8(report: ExportReport) -> None:
    """Says how int8 compares, first of all where it does not pay; raises where it is of no use."""
    report.notes.insert(0, told(report.int8, report.task))
    if alone := report.int8.get("default_mode"):
        report.notes.insert(1, told_default(alone, report.task, find(report.format).runtime))
    if not acceptable(report.int8):
        raise ExportError(f"int8 loses too much: {report.notes[0]}. No file was kept.", report)


def _raise_if_wrong(report: ExportReport) -> None:
    wrong = [check for check in report.checks if not check.ok]
    if wrong:
        worst = max(wrong, key=share_of_tolerance)
        raise ExportError(
            f"{report.format} computes something else than {report.model}: {worst}; "
            f"{len(wrong)} of {len(report.checks)} checks failed. No file was kept.",
            report,
        )


def _environment(kind: Format) -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version(), "machine": platform.machine(), "litevit": litevit_version()}
    for name in dict.fromkeys(("torch", *kind.needs)):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found | kind.elsewhere()
