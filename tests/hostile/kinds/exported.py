"""Hostile exported files: damaged, of another format than their name says, with metadata, sizes and operators that nobody exported."""

import io
import json
import random
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import litevit
from hostile.arena import Kind
from hostile.mutations import NUMBERS, corrupt, dumps, names, nasty, spoil
from litevit.deploy.formats import formats
from litevit.deploy.seal import MARK

FORMATS = ("pt2", "onnx", "openvino")  # whose seeds are made in seconds; of the others there are heads alone
CLASSES = 3
STARTS = {".pte": b"\0\0\0\0ET12", ".tflite": b"\x1c\0\0\0TFL3"}


class Tiny(nn.Module):
    """A classifier, as far as an export can tell."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, CLASSES, 8, 8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.conv(images).mean((2, 3))


def prepare(seeds: Path, asked: Sequence[str] = FORMATS) -> None:
    torch.manual_seed(0)
    for name in asked:
        litevit.export(
            Tiny().eval(),
            seeds / f"a{formats()[name].suffix}",
            format=name,
            image_size=(32, 32),
            batch_size=1,
            verify=False,
        )
        without_seal(seeds / f"a{formats()[name].suffix}")


def without_seal(path: Path) -> None:
    """As another program, or an attacker, would write it: what lies behind the seal is to be met."""
    path.write_bytes(path.read_bytes().replace(MARK, b"_" * len(MARK)))


def metadata(draw: random.Random, folder: Path) -> dict[str, str]:
    """What a file says about itself, spoiled."""
    told: dict[str, Any] = {
        "model": "litv2_s", "task": draw.choice(("classification", "classification", "features", "module", "semantic segmentation", "instance segmentation", "")),
        "outputs": ["logits"], "classes": ["a", "b", "c"], "class_ids": [0, 1, 2], "batch": 1, "size": [32, 32], "smallest": 32, "multiple": 1, "verified": True,
        "preprocessing": {"size": 32, "crop_pct": 0.9, "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3}, "config": {"num_classes": 3}, "recipe": {},
    }  # fmt: skip
    plain = {key: value if isinstance(value, str) else json.dumps(value) for key, value in told.items()}
    for _ in range(draw.randrange(3)):
        key = draw.choice(sorted(plain))
        value = draw.choice(
            (
                dumps(spoil(draw, {key: told[key]}, folder)),
                dumps(nasty(draw, folder)),
                "",
                "[",
                "7",
                "null",
                "[]",
                "{}",
                "[1]",
                "true",
            )
        )
        plain[key] = value if draw.random() < 0.8 else draw.choice(("a" * 5000, "\x00", "nan"))
    return plain


def pt2(draw: random.Random, content: bytes, folder: Path) -> bytes:
    """The entries anew, one of them spoiled."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    name = draw.choice(sorted(entries))
    if draw.random() < 0.4:
        name = next(one for one in entries if one.endswith("litevit.json"))
        entries[name] = dumps(metadata(draw, folder)).encode()
    elif name.endswith(".json"):
        entries[name] = dumps(spoil(draw, json.loads(entries[name] or b"{}"), folder, most=2)).encode(
            "utf-8", "surrogatepass"
        )
    else:
        entries[name] = corrupt(draw, entries[name] or b"x")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if draw.random() < 0.1 else zipfile.ZIP_STORED) as archive:
        for key, value in entries.items():
            archive.writestr(key, value)
        if draw.random() < 0.1:
            archive.writestr(
                draw.choice(("../../outside/evil", "a/data/weights/weight_9", sorted(entries)[0])),
                bytes(draw.choice((1, 10**6))),
            )
    return file.getvalue()


def onnx(draw: random.Random, content: bytes, folder: Path) -> bytes:
    """The model anew, with other metadata, sizes, operators, or weights that lie elsewhere."""
    import onnx as library

    model = library.load_from_string(content)
    del model.metadata_props[:]
    told = (
        metadata(draw, folder)
        if draw.random() < 0.6
        else {"model": "a", "task": "classification", "outputs": '["logits"]', "batch": "1"}
    )
    for key, value in told.items():
        model.metadata_props.add(
            key=key.encode("utf-8", "replace").decode(), value=value.encode("utf-8", "replace").decode()
        )
    deed = draw.randrange(8)
    tensor = draw.choice(list(model.graph.initializer))
    node = draw.choice(list(model.graph.node))
    if deed == 0:
        tensor.data_location = library.TensorProto.EXTERNAL
        for key, value in (("location", names(draw, folder)), ("offset", "0"), ("length", str(draw.choice(NUMBERS)))):
            tensor.external_data.add(key=key, value=value.encode("utf-8", "replace").decode())
    elif deed == 1:
        tensor.dims[:] = [draw.choice((0, -1, 1, 2**31, 2**40, 2**62)) for _ in range(draw.randrange(5))]
    elif deed == 2:
        node.op_type = draw.choice(
            ("Loop", "If", "Scan", "Nothing", "ConstantOfShape", "Expand", "Tile", "NonMaxSuppression", "")
        )
    elif deed == 3:
        node.domain = draw.choice(("ai.onnx.ml", "evil", "com.microsoft"))
    elif deed == 4 and node.input:
        node.input[0] = draw.choice((node.output[0], "", "nothing", model.graph.input[0].name))
    elif deed == 5 and node.attribute:
        attribute = draw.choice(list(node.attribute))
        attribute.i = draw.choice((0, -1, 2**31, 2**62))
        attribute.ints[:] = [draw.choice((0, -1, 2**31, 2**62)) for _ in range(draw.randrange(5))]
    elif deed == 6:
        dimension = draw.choice(list(model.graph.input[0].type.tensor_type.shape.dim))
        dimension.dim_value = draw.choice((0, -1, 2**40))
    return model.SerializeToString()


def openvino(draw: random.Random, content: bytes, folder: Path) -> bytes:
    """The text with other values, or with what XML parsers fear."""
    text = content.decode()
    deed = draw.randrange(6)
    if deed == 0:
        entities = "".join(f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, 10))
        text = text.replace("?>", f"?><!DOCTYPE net [<!ENTITY a0 'x'>{entities}]>", 1).replace(
            'name="', 'name="&a9;', 1
        )
    elif deed == 1:
        text = text.replace("<net", draw.choice(("<a>" * 50_000, "<!--", "<net><net", "<![CDATA[")) + "<net", 1)
    elif deed <= 4:
        marks = [k for k in range(len(text) - 1) if text[k] == '"' and text[k - 1] == "="]
        at = draw.choice(marks) + 1
        value = draw.choice(
            (
                str(draw.choice(NUMBERS)),
                str(-draw.choice(NUMBERS)),
                "",
                "nan",
                "../../outside/evil",
                "x" * 3000,
                "1,1,1",
                "dynamic",
                "[",
                "f64",
                "Loop",
                "ReadValue",
            )
        )
        text = text[:at] + value + text[text.index('"', at) :]
    return corrupt(draw, text.encode()) if deed == 5 else text.encode("utf-8", "replace")


SPOIL: dict[str, Callable[[random.Random, bytes, Path], bytes]] = {".pt2": pt2, ".onnx": onnx, ".xml": openvino}


def other(draw: random.Random, suffix: str, folder: Path) -> bytes:
    """A file of which nothing but the head and what it says of itself is there."""
    content = STARTS.get(suffix, b"") + draw.randbytes(draw.choice((0, 8, 200)))
    if suffix != ".tflite" or draw.random() < 0.3:
        return content
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        table: Any = metadata(draw, folder) if draw.random() < 0.8 else nasty(draw, folder)
        archive.writestr("litevit.json", dumps(table) if draw.random() < 0.9 else " " * draw.choice((10**6, 2**25)))
    return file.getvalue()


def build(draw: random.Random, seeds: Path, suffix: str, folder: Path) -> bytes:
    deed = draw.randrange(10)
    if suffix in STARTS or deed == 0:
        return other(draw, suffix, folder)
    if deed == 1:  # of another format
        return draw.choice([file for file in sorted(seeds.glob("a.*")) if file.suffix != suffix]).read_bytes()
    content = (seeds / f"a{suffix}").read_bytes()
    if deed == 2:
        return content[: draw.randrange(len(content))]
    if deed <= 4:
        return corrupt(draw, content)
    return SPOIL[suffix](draw, content, folder) if deed < 9 else content


def attack(draw: random.Random, seeds: Path, folder: Path) -> None:
    suffix = draw.choice((*SPOIL, *SPOIL, *STARTS))
    file = folder / f"a{suffix}"
    file.write_bytes(build(draw, seeds, suffix, folder))
    if suffix == ".xml":
        weights = (seeds / "a.bin").read_bytes()
        (folder / "a.bin").write_bytes(weights if draw.random() < 0.8 else corrupt(draw, weights))
    opened = litevit.load_exported(file, threads=1)
    repr((opened.task, opened.classes, opened.preprocessing, opened.metadata))
    if draw.random() < 0.5:
        opened.named(torch.zeros(1, 3, 32, 32))
    elif hasattr(opened, "config"):
        opened.as_dense()


KIND = Kind("exported", attack, prepare, inputs=3000, share=60, warm=20)
