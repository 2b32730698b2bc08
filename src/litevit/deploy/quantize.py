"""Products in 8 bits: what is calibrated on, and how an int8 file is compared with the float32 file it was made from.

Quantised are products with weights alone: norms, softmax, attention's scores, offsets, sampling, depthwise
convolutions (but OpenVINO's) and the last products before an output stay float.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou
from torchvision.transforms.v2.functional import pil_to_tensor

from litevit.data.images import read_header, read_image
from litevit.deploy.compare import MATCHED_IOU
from litevit.deploy.exported import DETECTORS, Exported
from litevit.deploy.shapes import InputShape
from litevit.deploy.source import Source
from litevit.jobs.predict import find_images
from litevit.jobs.preprocessing import of_classifier
from litevit.tasks.detection import prepare_images
from litevit.tasks.segmentation import normalise

MOST = 128  # images to calibrate with
ROUNDS = 7  # of the speed's comparison
TOP1 = 0.9  # share of calibration images on which int8 must say what float32 says
SURE = 0.3  # score of a detection that counts
SIGNAL = 0.35  # largest root mean square of int8's error, as a share of the output's spread


def calibration_images(source: Source, folder: str | Path, shape: InputShape) -> tuple[list[Tensor], list[int]]:
    """Of a folder, spread evenly over it.

    Returns:
        Images as the model sees them, (B, 3, H, W) each; and a classifier's labels, where every image lies in a folder
        that is called like one of its classes, else none.
    """
    files = calibration_files(folder)
    index = {name: i for i, name in enumerate(source.classes.names)} if source.classes else {}
    labels = [index[file.parent.name] for file in files if file.parent.name in index]
    return [prepared(read_image(file), source, shape) for file in files], labels if len(labels) == len(files) else []


def calibration_files(folder: str | Path) -> list[Path]:
    """The images to calibrate with, their headers read.

    Raises:
        OSError, ValueError: there are none, or one cannot be opened.
    """
    files = find_images([folder])
    chosen = files[:: max(1, len(files) // MOST)][:MOST]
    for file in chosen:
        read_header(file)
    return chosen


def prepared(image: Any, source: Source, shape: InputShape) -> Tensor:
    """One image as the model sees it, (B, 3, H, W), in the shape of the file; as it is for one that prepares it."""
    how = source.preprocessing
    if shape.uint8:
        return pil_to_tensor(image)[None].expand(shape.batch or 1, -1, -1, -1).contiguous()
    if how is not None and how.crop_pct is not None:
        seen = of_classifier(how)(image)[None]
    else:
        pixels = pil_to_tensor(image).float() / 255
        config: Any = getattr(source.model, "config", None)
        if hasattr(config, "min_size"):
            low, high = config.min_size, config.max_size
            batch = prepare_images([pixels], resize=config.resize, min_size=low, max_size=high)
            seen = batch.images[..., : batch.sizes[0][0], : batch.sizes[0][1]]
        else:
            seen = normalise(pixels)[None]
    size = shape.size
    if size is None and min(seen.shape[2:]) < shape.smallest:
        size = (max(seen.shape[2], shape.smallest), max(seen.shape[3], shape.smallest))
    if size is not None and tuple(seen.shape[2:]) != size:
        seen = nn.functional.interpolate(seen, size=size, mode="bilinear", align_corners=False)
    return seen.expand(shape.batch or 1, -1, -1, -1).contiguous()


@torch.no_grad()
def compare(
    quantised: Exported, exact: Exported, images: Sequence[Tensor], labels: Sequence[int] = ()
) -> dict[str, Any]:
    """Agreement, error (but of detections) and speed of an int8 file, or another arithmetic, against the float32 file.

    Args:
        labels: of the images, where they are known.
    """
    right = right_exact = 0
    agree = error = power = 0.0
    sure = 0
    name = quantised.metadata.outputs[0]
    for i, image in enumerate(images):
        ours, theirs = exact.named(image), quantised.named(image)
        if quantised.task == "classification":
            a, b = int(ours[name][0].argmax()), int(theirs[name][0].argmax())
            agree += a == b
            if labels:
                right_exact += a == labels[i]
                right += b == labels[i]
        elif quantised.task == "semantic segmentation":
            agree += float((ours[name].argmax(1) == theirs[name].argmax(1)).double().mean())
        elif quantised.task in DETECTORS:
            hits, count = _found_by_both(ours, theirs)
            agree, sure = agree + hits, sure + count
            continue  # row by row the lists do not belong together: ranks swap
        for output in quantised.metadata.outputs:
            x, y = ours[output], theirs[output]
            if x.is_floating_point() and x.shape == y.shape:
                error += float((x - y).square().mean())
                power += float((x - x.mean()).square().mean())
    found: dict[str, Any] = {"images": len(images)}
    if quantised.task not in DETECTORS:
        found["error"] = (error / max(power, 1e-30)) ** 0.5
    if quantised.task in DETECTORS:
        found["detections"] = sure
        if sure:
            found["agreement"] = agree / sure
    elif quantised.task in ("classification", "semantic segmentation"):
        found["agreement"] = agree / len(images)
    if labels:
        found |= {"top1": 100 * right / len(images), "top1_float32": 100 * right_exact / len(images)}
    found["speed"] = _speed(lambda: exact.named(images[0]), lambda: quantised.named(images[0]))
    return found


def _found_by_both(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> tuple[int, int]:
    """Of the first image's sure detections, of either file: how many the other file has too, and how many there are."""
    sides = [{key: side[key][0, : int(side["count"][0])] for key in ("boxes", "scores", "labels")}
             for side in (ours, theirs)]  # fmt: skip
    hits = total = 0
    for one, other in (sides, sides[::-1]):
        sure = one["scores"] >= SURE
        same = one["labels"][sure][:, None] == other["labels"]
        partner = same & (box_iou(one["boxes"][sure], other["boxes"]) > MATCHED_IOU)
        hits += int(partner.any(1).sum())
        total += int(sure.sum())
    return hits, total


def _speed(exact: Callable[[], Any], quantised: Callable[[], Any]) -> float:
    """How many times as fast the second is, in turns."""
    ratios = []
    exact(), quantised()
    for _ in range(ROUNDS):
        start = time.perf_counter()
        exact()
        middle = time.perf_counter()
        quantised()
        ratios.append((middle - start) / (time.perf_counter() - middle))
    return statistics.median(ratios)


def told(found: dict[str, Any], task: str) -> str:
    """What `compare` found, with the sizes in bytes, as a sentence."""
    speed = round(found["speed"], 2)
    word = "slower" if speed < 1 else "faster" if speed > 1 else "as fast as float32"
    size = found["bytes_int8"] / found["bytes_float32"]
    said = f"int8 is {word} on this processor: {speed:.2f} times the speed of float32, {size:.2f} of its size"
    return said + _answers(found, task)


def told_default(found: dict[str, Any], task: str, runtime: str) -> str:
    """The same of a runtime that was left alone."""
    return (
        f"left alone, {runtime} computes what is float32 in the file in bfloat16 on this processor: "
        f"{found['speed']:.2f} times the speed of float32{_answers(found, task)}"
    )


def _answers(found: dict[str, Any], task: str) -> str:
    said = ""
    if task in DETECTORS:
        if found["detections"]:
            said += f", {100 * found['agreement']:.1f} % of {found['detections']} sure detections in both"
        else:
            said += ", no sure detection to compare"
        said += f", on {found['images']} images"
    elif "agreement" in found:
        said += f", the same answer on {100 * found['agreement']:.1f} % of {found['images']} images"
    if "top1" in found:
        said += f", {found['top1']:.1f} % of them right (float32: {found['top1_float32']:.1f} %)"
    if "error" in found:
        said += f"; error {100 * found['error']:.1f} % of the output's spread"
    return said


def acceptable(found: dict[str, Any]) -> bool:
    """Whether an int8 file is of use: it mostly says what the float32 file says. Of what says nothing, it is."""
    if "agreement" in found:
        return found["agreement"] >= TOP1
    return "error" not in found or found["error"] <= SIGNAL
