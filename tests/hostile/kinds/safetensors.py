"""Hostile `.safetensors` files: headers that lie about sizes, offsets and types, and what a run writes into them."""

import functools
import json
import random
import struct
from pathlib import Path
from typing import Any

import torch

from hostile.arena import Kind
from hostile.mutations import corrupt, dumps, nasty, spoil
from litevit.checkpoints.files import read_file, read_metadata, read_state_dict
from litevit.checkpoints.recorded import recorded_options
from litevit.engine.config import to_dict
from litevit.jobs.runs import Run
from litevit.recipes import RECIPES

DTYPES = ("F32", "F16", "BF16", "F64", "I64", "I32", "I8", "U8", "BOOL", "F8_E4M3", "F4", "C64", "U64", "Q4", "", "f32")


@functools.cache
def told() -> dict[str, Any]:
    """What a run writes beside its weights."""
    recipe = to_dict(RECIPES["quickstart"]())
    return {
        "recipe": recipe, "classes": ["zero", "one"], "class_ids": [0, 1], "metrics": {"top1": 50.0}, "step": 7,
    }  # fmt: skip


def header() -> dict[str, Any]:
    shapes = {
        "head.classifier.bias": (3,),
        "head.classifier.weight": (3, 4),
        "roi_heads.box_head.cls_logits.bias": (5,),
    }
    at, entries = 0, {}
    for name, shape in shapes.items():
        size = 4 * int(torch.tensor(shape).prod())
        entries[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    return entries


def assemble(table: Any, length: int, *, claimed: int | None = None) -> bytes:
    text = (table if isinstance(table, str) else dumps(table)).encode(errors="surrogatepass")
    return struct.pack("<Q", (len(text) if claimed is None else claimed) & (2**64 - 1)) + text + bytes(length)


def build(draw: random.Random, folder: Path) -> bytes:
    entries = header()
    length = max(entry["data_offsets"][1] for entry in entries.values())
    run = {key: value if isinstance(value, str) else json.dumps(value) for key, value in told().items()}
    content: Any = {"__metadata__": run, **entries}
    deed = draw.randrange(9)
    if deed == 0:  # the run's own header, spoiled
        key = draw.choice(list(run))
        run[key] = dumps(spoil(draw, told()[key], folder))
    elif deed == 1:
        run[draw.choice(list(run))] = draw.choice(
            ("", "{", "null", "[]", "{}", '"a"', "1", "NaN", "[" * 5000, "9" * 5000)
        )
    elif deed == 2:  # a tensor that lies
        entry = content[draw.choice(list(entries))]
        field = draw.choice(("dtype", "shape", "data_offsets"))
        entry[field] = draw.choice(DTYPES) if field == "dtype" else [nasty(draw) for _ in range(draw.randrange(4))]
    elif deed == 3:  # offsets: overlapping, beyond the end, backwards, with gaps
        entry = content[draw.choice(list(entries))]
        low, high = (draw.choice((0, 4, 12, 60, length, length + 1, 2**31, 2**63, 2**64 - 1, -4)) for _ in range(2))
        entry["data_offsets"] = [low, high]
        if draw.random() < 0.5:
            entry["shape"] = [max(high - low, 0) // 4]
    elif deed == 4:  # shapes that multiply to nothing, or to more than there is
        entry = content[draw.choice(list(entries))]
        entry["shape"] = draw.choice(
            ([2**32, 2**32], [2**63, 2], [0, 2**62], [-1, -3], [1] * 2000, [3, 0], [], [2**40, 0])
        )
    elif deed == 5:
        content = spoil(draw, content, folder)
    elif deed == 6:
        return assemble(content, length, claimed=draw.choice((0, 1, 7, 100_000_001, 2**31, 2**40, 2**63, 2**64 - 1)))
    elif deed == 7:
        return assemble(content, draw.choice((0, 1, length - 1, length + 1, 10 * length)))
    whole = assemble(content, length)
    return corrupt(draw, whole) if draw.random() < 0.4 or deed == 8 else whole


def take(file: Path, draw: random.Random) -> None:
    """As `--weights FILE` does, or `--run FOLDER`."""
    way = draw.randrange(5)
    if way == 0:
        read_file(file)
    elif way == 1:
        read_metadata(file)
        read_state_dict(file, ema=draw.random() < 0.5)
    elif way == 2:
        recorded_options(file, draw.choice(("litv2_s", "mask_rcnn", "segformer_lvt")))
    else:
        run = Run.open(file)
        for part in (run.model_name, run.task, run.overrides, run.classes, run.class_ids, run.metrics):
            repr(part)
        _ = run.preprocessing if way == 3 else run.recipe


def attack(draw: random.Random, seeds: Path, folder: Path) -> None:
    file = folder / draw.choice(("best.safetensors", "model.safetensors", "model.pth"))
    file.write_bytes(build(draw, folder))
    take(file, draw)


KIND = Kind("safetensors", attack, prepare=lambda seeds: None, inputs=50_000, share=250)
