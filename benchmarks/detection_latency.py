"""Mask R-CNN LITv2-S beside torchvision's Mask R-CNN ResNet-50 FPN v2: one image's time by stages, training memory.

    python benchmarks/detection_latency.py --device cpu --threads 1 [--rounds 3] [--parts latency stages memory]
        [--out FOLDER]
    python benchmarks/detection_latency.py --device cuda --out FOLDER

latency: one 800 x 1333 image, batch 1, both models in turns in one process. stages: ours, step by step, on the same
image. memory: most that tensors take at one time during a training step (forward and backward, batch 1, 800 x 1333)
on an image with 100 objects, above the parameters; on the CPU counted tensor by tensor, on CUDA by the allocator.

Ours goes through `litevit.optimize_for_inference`, but not for memory. Weights are random. A random classifier finds
nothing, so that of both models is rescaled to logits with a spread of 2.5 and the background 4 ahead: then both have
about a thousand candidates and 100 detections with masks, as on a crowded picture. Times of the CPU are processor time,
of CUDA the wall clock; times of a busy machine are good for ratios alone.
"""

import argparse
import gc
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import maskrcnn_resnet50_fpn_v2

import litevit
from litevit.bench.timing import (
    environment,
    find_device,
    interleave,
    peak_bytes,
    synchronize,
    write_results,
)
from litevit.ops.boxes import paste_masks
from litevit.tasks.detection import per_level, prepare_images, to_original
from litevit.tasks.mask_rcnn import MaskRCNN
from litevit.tasks.roi_heads import join_rois

SIZE = (800, 1333)
OBJECTS = 100
PARTS = ["latency", "stages", "memory"]
OURS, THEIRS = "mask_rcnn_litv2_s", "torchvision maskrcnn_resnet50_fpn_v2"


def make_sure_of_objects(model: nn.Module, classifier: nn.Linear, background: int, image: Tensor) -> None:
    """Rescales a random box classifier; see the top."""
    seen: list[Tensor] = []
    hook = classifier.register_forward_hook(lambda module, given, logits: seen.append(logits.detach()))
    with torch.no_grad():
        model.eval()([image])
        hook.remove()
        factor = 2.5 / (seen[0] - seen[0].mean(0)).std()
        classifier.weight.mul_(factor)
        classifier.bias.copy_(classifier.bias * factor - seen[0].mean(0) * factor)
        classifier.bias[background] += 4


def create(name: str, image: Tensor) -> nn.Module:
    torch.manual_seed(0)
    if name == THEIRS:
        model = maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None).to(image.device)
        make_sure_of_objects(model, model.roi_heads.box_predictor.cls_score, 0, image)
    else:
        model = litevit.create_model(name).to(image.device)
        if isinstance(model, MaskRCNN):
            make_sure_of_objects(model, model.roi_heads.box_head.cls_logits, model.config.num_classes, image)
    return model


@torch.no_grad()
def by_stages(model: MaskRCNN, image: Tensor, now: Callable[[], float]) -> tuple[dict[str, float], dict[str, Tensor]]:
    """What `model([image])` does, one stage after the other: seconds of each, and the result."""
    seconds: dict[str, float] = {}
    config, heads = model.config, model.roi_heads

    def stage(name: str, run: Callable[[], Any]) -> Any:
        synchronize(image.device)
        start = now()
        result = run()
        synchronize(image.device)
        seconds[name] = seconds.get(name, 0.0) + now() - start
        return result

    batch = stage(
        "resize, normalise, pad",
        lambda: prepare_images([image], min_size=config.min_size, max_size=config.max_size),
    )
    maps = stage("backbone", lambda: model.backbone(batch.images))
    maps = stage("FPN", lambda: model.fpn(maps))
    logits, deltas = stage("RPN: convolutions", lambda: per_level(model.rpn, maps))
    ((boxes, _),) = stage(
        "RPN: proposals (top-k, decode, NMS)", lambda: model.rpn.proposals(logits, deltas, batch.sizes)
    )
    rois = join_rois([boxes])
    features = stage("boxes: RoIAlign", lambda: heads.features(maps, rois, heads.box_size))
    cls, reg = stage("boxes: head", lambda: heads.box_head(features))
    found = stage("boxes: decode, NMS", lambda: heads.select(boxes, cls, reg, batch.sizes[0]))
    probabilities = stage("masks: RoIAlign, head", lambda: heads.predict_masks(maps, [found]))[0]
    original = to_original(found.boxes, batch, 0)
    masks = stage("masks: pasting", lambda: paste_masks(probabilities, original, batch.original_sizes[0]))
    return seconds, {"boxes": original, "scores": found.scores, "labels": found.labels, "masks": masks}


def training_target(objects: int, device: torch.device) -> dict[str, Tensor]:
    """Boxes of 20 to 300 pixels all over the image, filled."""
    rng = torch.Generator().manual_seed(0)
    size = torch.tensor([SIZE[1], SIZE[0]])
    sides = 20 + 280 * torch.rand(objects, 2, generator=rng) ** 2
    corner = torch.rand(objects, 2, generator=rng) * (size - sides - 1)
    boxes = torch.cat((corner, corner + sides), dim=1)
    masks = torch.zeros(objects, *SIZE, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.round().int().tolist()):
        mask[y0:y1, x0:x1] = True
    labels = torch.randint(1, 80, (objects,), generator=rng)
    return {"boxes": boxes.to(device), "labels": labels.to(device), "masks": masks.to(device)}


def training_memory(name: str, image: Tensor, *, checkpointing: bool) -> int:
    torch.manual_seed(0)
    model = (
        maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None) if name == THEIRS else litevit.create_model(name)
    )
    model = model.to(image.device).train()
    if checkpointing:
        model.set_grad_checkpointing()
    target = training_target(OBJECTS, image.device)
    gc.collect()  # the model before this one
    return peak_bytes(lambda: sum(model([image], [target]).values()).backward(), image.device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto")
    parser.add_argument("--threads", type=int, help="of the CPU; default: PyTorch's")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS, metavar="PART")
    parser.add_argument("--out", type=Path, help="folder for detection.json and .csv; parts not run now stay there")
    options = parser.parse_args()
    try:
        device = find_device(options.device)
    except ValueError as error:
        parser.error(str(error))
    if options.rounds < 1:
        parser.error(f"rounds must be at least 1, got {options.rounds}")
    if options.threads:
        torch.set_num_threads(options.threads)
    clock = "cpu" if device.type == "cpu" else "wall"
    now = time.process_time if clock == "cpu" else time.perf_counter
    image = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(0)).to(device)
    rows: list[dict[str, Any]] = []
    facts = environment(device)
    facts["command"] = "python benchmarks/detection_latency.py " + facts["command"].partition(" ")[2]
    notes = [f"{clock} time"]
    if not torch.cuda.is_available():
        notes.append("CUDA was not available: nothing here has run on a GPU")
    print(*notes, sep="\n")

    if {"latency", "stages"} & set(options.parts):
        ours = litevit.optimize_for_inference(create(OURS, image))
    if "latency" in options.parts:
        models = {OURS: ours, THEIRS: create(THEIRS, image).eval()}
        with torch.no_grad():
            found = {name: len(model([image])[0]["boxes"]) for name, model in models.items()}

            def run(model: nn.Module) -> Callable[[], object]:
                return lambda: model([image])

            timings = interleave(
                {name: run(model) for name, model in models.items()},
                rounds=options.rounds,
                min_seconds=0.0,
                device=device,
                progress=print,
            )
        ratios = [b / a for a, b in zip(timings[OURS].seconds(clock), timings[THEIRS].seconds(clock))]
        for name, timing in timings.items():
            row = {"part": "latency", "name": name, "seconds": timing.median(clock), "detections": found[name]}
            rows.append({**row, "turns": [round(s, 3) for s in timing.seconds(clock)]})
            print(f"{name:40} {row['seconds']:7.2f} s, {row['detections']} detections")
        rows.append({"part": "latency", "name": "torchvision / ours", "ratio": sorted(ratios)[len(ratios) // 2]})
        print(f"torchvision / ours: {', '.join(f'{r:.2f}' for r in ratios)}")
        del models
    if "stages" in options.parts:
        with torch.no_grad():
            expected = ours([image])[0]
        turns = [by_stages(ours, image, now) for _ in range(options.rounds)]
        for key, value in expected.items():
            torch.testing.assert_close(turns[0][1][key], value)
        whole = sorted(sum(seconds.values()) for seconds, _ in turns)[len(turns) // 2]
        for stage in turns[0][0]:
            median = sorted(seconds[stage] for seconds, _ in turns)[len(turns) // 2]
            rows.append({"part": "stages", "name": stage, "seconds": median, "share": median / whole})
            print(f"{stage:40} {median:7.3f} s  {100 * median / whole:5.1f} %")
    if "memory" in options.parts:
        for name, checkpointing in (
            ("retinanet_litv2_s", False),
            ("retinanet_litv2_s", True),
            (OURS, False),
            (OURS, True),
            (THEIRS, False),
        ):
            peak = training_memory(name, image, checkpointing=checkpointing)
            label = f"{name}, checkpointed" if checkpointing else name
            rows.append({"part": "memory", "name": label, "objects": OBJECTS, "gib": peak / 2**30})
            print(f"{label:40} {peak / 2**30:6.2f} GiB")
    if options.out is not None:
        before = options.out / "detection.json"
        if before.is_file():
            kept = [row for row in json.loads(before.read_text())["rows"] if row["part"] not in options.parts]
            rows = sorted(kept + rows, key=lambda row: PARTS.index(row["part"]))
        for path in write_results(rows, facts, options.out, "detection", notes):
            print(f"Wrote {path}")


if __name__ == "__main__":
    main()
