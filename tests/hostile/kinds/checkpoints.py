"""Hostile PyTorch files: pickles that run code, zip tricks, tensors that lie about their storage, damage at any place."""

import collections
import io
import random
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch

import litevit
from hostile.arena import Kind
from hostile.mutations import corrupt, names
from litevit.checkpoints.files import read_file, read_state_dict
from litevit.checkpoints.recorded import class_counts
from litevit.engine.checkpoint import load_checkpoint

CALLS = ("os system", "posix system", "builtins eval", "builtins exec", "builtins __import__", "builtins open", "builtins getattr",
         "subprocess Popen", "subprocess run", "torch load", "torch.hub load", "torch.jit load", "torch.serialization load",
         "torch.storage _load_from_bytes", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter",
         "torch.nn.parameter Parameter", "collections OrderedDict", "collections defaultdict", "argparse Namespace",
         "yacs.config CfgNode", "numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype", "pathlib PosixPath",
         "mmengine.logging.history_buffer HistoryBuffer", "functools partial", "operator attrgetter", "torch Size",
         "torch._tensor _rebuild_from_type_v2", "torch.serialization _get_layout", "codecs encode", "shutil rmtree",
         "importlib import_module", "runpy run_path", "pickle loads", "torch.os system", "torch._utils.os system",
         "builtins dict", "builtins list", "torch float32", "torch FloatStorage", "torch._C _nn", "")  # fmt: skip


def states() -> dict[str, Any]:
    """The contents of valid checkpoints."""
    tensors = {
        "head.classifier.weight": torch.arange(12.0).reshape(3, 4),
        "head.classifier.bias": torch.zeros(3),
        "stages.0.0.norm.weight": torch.ones(4, dtype=torch.float16),
        "steps": torch.tensor(7),
    }
    prefixed = {f"module.{key}": value for key, value in tensors.items()}
    return {
        "flat": tensors,
        "model": {"model": tensors, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "lr": 1e-3}},
        "prefixed": {"state_dict": prefixed, "meta": {"CLASSES": ("a", "b")}},
        "averaged": {
            "state_dict": {"model.a": torch.ones(1), "ema_model.module.a": torch.ones(1), "n_averaged": torch.tensor(1)}
        },
        "views": {"a": tensors["head.classifier.weight"].t(), "b": torch.nn.Parameter(torch.ones(2))},
    }


def prepare(seeds: Path) -> None:
    for name, state in states().items():
        torch.save(state, seeds / f"{name}.zip.pth")
        torch.save(state, seeds / f"{name}.old.pth", _use_new_zipfile_serialization=False)


def seed_bytes(draw: random.Random, seeds: Path, ending: str = "") -> bytes:
    return draw.choice(sorted(seeds.glob(f"*{ending}.pth"))).read_bytes()


# ------------------------------------------------------------------ pickles


def text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def program(draw: random.Random, folder: Path) -> bytes:
    """A pickle that does something when it is read, by one of the ways in which pickles do."""
    canary = folder.parent / "canary"
    arguments = draw.choice((f"touch {canary}", f"open({str(canary)!r}, 'w')", str(canary), "os", names(draw, folder)))
    name = draw.choice(CALLS)
    module, _, attribute = name.partition(" ")
    way = draw.randrange(9)
    call = text(module) + text(attribute) + b"\x93" if way % 2 else f"c{module}\n{attribute}\n".encode()
    given = text(arguments) + b"\x85"
    if way <= 2:
        body = call + given + b"R"
    elif way == 3:
        body = b"(" + text(arguments) + f"i{module}\n{attribute}\n".encode()
    elif way == 4:
        body = b"(" + call + text(arguments) + b"o"
    elif way == 5:
        body = call + given + b"\x81" + b"}" + text("__setstate__") + call + b"sb"
    elif way == 6:
        body = (
            text(arguments) + draw.choice((b"Q", b"\x85Q"))
            if draw.random() < 0.7
            else f"P{arguments}\n".encode("utf-8", "replace")
        )
    elif way == 7:
        body = call + b")" + b"R" + b"}" + text("__reduce__") + given + b"sb"
    else:
        body = draw.choice((b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00", b"\x96" + b"\xff" * 8, b"\x97", b"B" + b"\xff" * 4,
                            b"\x8a\xff" + b"\x01" * 9, b"h\x05", b"j\xff\xff\xff\xff", b"." * 9, b"(" * 4000, b"]" * 4000 + b"a" * 3999,
                            b"I9" + b"9" * 6000 + b"\n", b"F1e999\n", b"\x8e" + b"\xff" * 8))  # fmt: skip
    if draw.random() < 0.7:  # where a state dict would have a value
        body = b"}" + text(draw.choice(("state_dict", "a", "config", "args"))) + body + b"s"
    return b"\x80" + bytes([draw.choice((2, 2, 2, 3, 4, 5, 9))]) + body + b"."


def storage(key: str = "0", kind: str = "FloatStorage", count: Any = 4, device: str = "cpu") -> bytes:
    """The persistent id of a storage, as torch.save writes it."""
    many = (
        struct.pack("<i", count)
        if -(2**31) <= count < 2**31
        else b"\x8a\x09" + (count & (2**71 - 1)).to_bytes(9, "little")
    )
    number = b"J" + many if len(many) == 4 else many
    return b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text(device) + number + b"tQ"


def integers(values: Any) -> bytes:
    return b"(" + b"".join(b"\x8a\x09" + (v & (2**72 - 1)).to_bytes(9, "little") for v in values) + b"t"


def lying_tensor(draw: random.Random) -> bytes:
    """`data.pkl` of a tensor whose size, stride, offset or storage is not what the file holds."""
    sizes = (
        [],
        [4],
        [2, 2],
        [2**31],
        [10**9],
        [10**12, 0],
        [2**62, 4],
        [-1],
        [-4, -1],
        [1] * 70,
        [10**5, 10**5],
        [2**40],
    )
    strides = ([], [1], [0], [0, 0], [2, 1], [-1], [2**62], [0, 2**61], [10**9])
    build_ = draw.choice(("_rebuild_tensor_v2", "_rebuild_tensor_v2", "_rebuild_tensor", "_rebuild_parameter", "_rebuild_sparse_tensor",
                          "_rebuild_qtensor", "_rebuild_meta_tensor_no_storage", "_rebuild_nested_tensor"))  # fmt: skip
    kind = draw.choice(
        (
            "FloatStorage",
            "DoubleStorage",
            "HalfStorage",
            "BoolStorage",
            "QInt8Storage",
            "ComplexFloatStorage",
            "UntypedStorage",
            "NoStorage",
        )
    )
    size, stride = draw.choice(sizes), draw.choice(strides)
    if draw.random() < 0.5:
        stride = [draw.choice((0, 1, 2**40)) for _ in size]
    stored = storage(
        draw.choice(("0", "0", "0", "1", "../0", "")),
        kind,
        draw.choice((4, 4, 0, -1, 2**31, 10**12, 2**62)),
        draw.choice(("cpu", "cpu", "cuda:0", "meta", "xla")),
    )
    offset = b"\x8a\x09" + (draw.choice((0, 0, 1, 4, -1, 2**40, 2**63)) & (2**72 - 1)).to_bytes(9, "little")
    arguments = (
        b"(" + stored + offset + integers(size) + integers(stride) + b"\x89" + b"ccollections\nOrderedDict\n)R" + b"t"
    )
    if build_ == "_rebuild_meta_tensor_no_storage":
        arguments = b"(" + b"ctorch\nfloat32\n" + integers(size) + integers(stride) + b"\x89t"
    return b"\x80\x02}" + text("a") + f"ctorch._utils\n{build_}\n".encode() + arguments + b"Rs."


# --------------------------------------------------------------------- zips


def packed(content: bytes, draw: random.Random, folder: Path, *, plain: bool = False) -> bytes:
    """`data.pkl` in a zip as torch.save makes it, with the tricks that zips know."""
    file = io.BytesIO()
    trick = 0 if plain else draw.randrange(12)
    root = "archive" if trick != 1 else draw.choice(("../../outside", "/", "a/b/c", "..", "a\x00b", "x" * 60_000))
    squeezed = zipfile.ZIP_DEFLATED if trick == 2 else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", squeezed) as archive:
        archive.writestr(f"{root}/data.pkl", content)
        archive.writestr(
            f"{root}/byteorder", draw.choice((b"little", b"big", b"", b"none")) if trick == 3 else b"little"
        )
        archive.writestr(f"{root}/data/0", bytes(16))
        archive.writestr(
            f"{root}/version", draw.choice((b"", b"-1", b"999999999999999999999", b"x")) if trick == 4 else b"3\n"
        )
        if trick == 5:  # the same name twice
            archive.writestr(f"{root}/data.pkl", program(draw, folder))
        if trick == 6:  # names that climb out
            for name in ("../../outside/evil", "/" + str(folder.parent / "outside" / "evil").lstrip("/"), "..\\evil"):
                archive.writestr(name, b"evil")
        if trick == 7:  # a small entry that becomes large
            archive.writestr(f"{root}/data/1", bytes(draw.choice((10**6, 3 * 10**7))), zipfile.ZIP_DEFLATED)
        if trick == 8:
            archive.writestr(f"{root}/.data/serialization_id", b"\xff" * draw.choice((0, 1, 40, 100_000)))
            archive.writestr(f"{root}/constants.pkl", program(draw, folder))
            archive.writestr(f"{root}/code/__torch__.py", b"import os; os.system('touch canary')")
        archive.comment = b"x" * draw.choice((0, 65_535)) if trick == 9 else b""
    data = bytearray(file.getvalue())
    if trick >= 10:  # sizes and places that the directory claims
        marks = [k for k in range(len(data) - 4) if data[k : k + 4] in (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06")]
        at = draw.choice(marks) + draw.choice((6, 8, 10, 12, 16, 18, 20, 22, 24, 26, 28, 30, 42))
        value = draw.choice((0, 1, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000))
        data[at : at + 4] = struct.pack("<I", value)
    return bytes(data)


def strange_state(draw: random.Random) -> Any:
    """Contents that torch.save writes, and nobody would."""
    state: dict[Any, Any] = {}
    deed = draw.randrange(12)
    if deed == 0:
        state[draw.choice(("model", "state_dict", "ema", "a"))] = state
    elif deed == 1:
        state[draw.choice((1, 2.5, None, True, b"a", (1, 2)))] = torch.ones(2)
        state["module.a"] = torch.ones(1)
    elif deed == 2:
        state["a"] = torch.ones(1).expand(draw.choice((10, 10**6, 10**10)))
    elif deed == 3:
        state["a"] = draw.choice(
            (
                torch.empty(10**12, device="meta"),
                torch.eye(3).to_sparse(),
                torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
            )
        )
    elif deed == 4:
        inner: Any = torch.ones(1)
        for _ in range(draw.choice((3, 300))):
            inner = {draw.choice(("model", "state_dict", "module")): inner}
        state = inner if isinstance(inner, dict) else {}
    elif deed == 5:
        state = draw.choice(
            ([], [torch.ones(1)], "text", 7, None, (), torch.ones(2), {"model": []}, {"state_dict": torch.ones(1)})
        )
    elif deed == 6:
        state = collections.OrderedDict(
            ("." * n + "module." * n + "encoder." + str(n), torch.ones(1)) for n in range(5)
        )
    elif deed == 7:
        state = {"module." * draw.choice((1, 50, 3000)) + "a": torch.ones(1)}
    elif deed == 8:
        state = {
            "head.cls_logits.bias": torch.ones(()),
            "head.deltas.bias": torch.ones(()),
            "head.classifier.bias": torch.ones(()),
        }
    elif deed == 9:
        state = {"head.cls_logits.bias": torch.ones(9), "head.deltas.bias": torch.ones(0)}
    elif deed == 10:
        state = {
            key: draw.choice((torch.ones(0), torch.ones(2, 2, dtype=torch.complex64), torch.tensor(True)))
            for key in states()["flat"]
        }
    else:
        state = {
            "": torch.ones(1),
            ".": torch.ones(1),
            "a..b": torch.ones(1),
            "model.": torch.ones(1),
            "ema_model.": torch.ones(1),
        }
    return state


def build(draw: random.Random, seeds: Path, folder: Path) -> bytes:
    deed = draw.randrange(9)
    if deed == 0:
        return program(draw, folder)
    if deed == 1:
        return packed(program(draw, folder), draw, folder)
    if deed == 2:
        return packed(lying_tensor(draw), draw, folder, plain=draw.random() < 0.8)
    if deed == 3:
        file = io.BytesIO()
        torch.save(strange_state(draw), file, _use_new_zipfile_serialization=draw.random() < 0.8)
        return file.getvalue()
    if deed == 4:
        with zipfile.ZipFile(io.BytesIO(seed_bytes(draw, seeds, ".zip"))) as archive:
            content = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
        return packed(corrupt(draw, content), draw, folder, plain=True)
    if deed == 5:
        return packed(seed_bytes(draw, seeds), draw, folder)
    content = seed_bytes(draw, seeds)
    if deed == 6:
        return content[: draw.randrange(len(content))]
    if deed == 7:
        tail = max(len(content) - draw.choice((64, 400)), 0)
        return corrupt(draw, content, begin=draw.choice((0, tail)))
    return content if draw.random() < 0.2 else corrupt(draw, content)


def take(file: Path, draw: random.Random) -> None:
    way = draw.randrange(6)
    if way == 0:
        read_file(file)
    elif way == 1:
        class_counts(file)
    elif way == 2:
        load_checkpoint(file)
    elif way == 3:
        litevit.load_weights(_model(), file)
    else:
        read_state_dict(file, ema=draw.random() < 0.5)


_models: list[Any] = []


def _model() -> Any:
    if not _models:
        small = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "num_classes": 3}
        _models.append(litevit.create_model("litv2_s", **small))
    return _models[0]


def attack(draw: random.Random, seeds: Path, folder: Path) -> None:
    file = folder / draw.choice(("model.pth", "step-00000001.pt", "model", "model.safetensors"))
    file.write_bytes(build(draw, seeds, folder))
    take(file, draw)


KIND = Kind("checkpoints", attack, prepare, inputs=50_000, share=200)
