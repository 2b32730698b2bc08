"""`litevit export`."""

import sys
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from litevit.cli.terminal import at_least_one, plain_word, refuse, refuse_for_run, show


def export(
    model: Positional[str],
    *,
    format: Literal["pt2", "onnx", "openvino", "executorch", "coreml", "litert", "tensorrt"],
    out: Path | None = None,
    weights: str | None = None,
    num_classes: int | None = None,
    names: Path | None = None,
    image_size: tuple[int, ...] = (),
    batch_size: int | None = None,
    dynamic: bool = True,
    preprocessing: bool = False,
    int8: Path | None = None,
    images: Path | None = None,
    opset: int | None = None,
    verify: bool = True,
    json: bool = False,
) -> int:
    """Writes a model as a file of another runtime, proven to be the same function; the proof lies beside it.

    Args:
        model: name, see `litevit list`, or the folder of a training run.
        format: of the file: pt2 (PyTorch), onnx, openvino, executorch, litert, coreml (written, not run here).
        out: the file; default: the model's name with the format's ending, here.
        weights: of a name: 'official' (the default; downloaded once; of a classifier also 'imagenet'), 'none' (random),
            or a checkpoint file.
        num_classes: of the checkpoint, where it is not the published one's.
        names: text file with one class name per line; for detectors and segmenters also COCO's annotation file.
        image_size: one size instead of any: side, or height and width.
        batch_size: one number of images instead of any.
        dynamic: --no-dynamic fixes the size to the model's own and the batch to 1, where not given.
        preprocessing: the file takes uint8 RGB and resizes and normalises it itself.
        int8: folder of images to calibrate 8-bit products with.
        images: folder of images that take part in the proof.
        opset: of ONNX, 18 or later.
        verify: --no-verify leaves out the proof; the file is marked as unproven.
        json: print the report as JSON.
    """
    from litevit.deploy.exporter import export as write
    from litevit.deploy.formats import find
    from litevit.deploy.report import ExportError

    if len(image_size) > 2:
        raise ValueError(f"--image-size takes one side, or height and width, got {' '.join(map(str, image_size))}")
    refuse({"opset": None if format == "onnx" else opset}, f"for --format onnx, not {format}")
    refuse({"images": None if verify else images}, "for the proof, which --no-verify leaves out")
    at_least_one(num_classes=num_classes)
    refuse_for_run(model, {"weights": weights, "num_classes": num_classes})
    suffix = find(format).suffix
    stem = Path(model).resolve().name if Path(model).exists() else model
    path = out or Path(f"{stem}{suffix}")
    if path.is_dir() and path.suffix != suffix:
        path = path / f"{stem}{suffix}"
    weights = plain_word(weights or "official")
    if weights == "none":
        print("Random weights: the file will mean nothing.", file=sys.stderr)
    try:
        report = write(
            model,
            path,
            format=format,
            image_size=(image_size[0], image_size[-1]) if image_size else None,
            batch_size=batch_size,
            dynamic=dynamic,
            preprocessing=preprocessing,
            int8=int8,
            weights=None if weights == "none" else weights,
            num_classes=num_classes,
            names=names,
            images=images,
            opset=opset,
            verify=verify,
            progress=_say if sys.stderr.isatty() else lambda text: None,
        )
    except ExportError as error:
        print(f"litevit: {error}", file=sys.stderr)
        return 1
    show(report.to_json() if json else str(report), highlight=False, markup=False)
    return 0


def _say(text: str) -> None:
    print(f"{text:60}", end="\r", file=sys.stderr, flush=True)
