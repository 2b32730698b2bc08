"""LiteRT (.tflite), for Android and microcontrollers: one size, one number of images.

Its converter, litert-torch, pins versions of packages that litevit's environment has newer ones of (0.10, through xdsl:
typing-extensions < 4.13, and tyro wants 4.13). It may therefore live in an environment of its own, which
`LITEVIT_LITERT_PYTHON` names; the small runtime lives in this one.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litevit.deploy.formats import Format, Job, Opened
from litevit.deploy.metadata import KEY, MOST_BYTES, Metadata
from litevit.deploy.program import trace, with_constants_folded, with_plain_attention
from litevit.deploy.seal import damaged, seal_of
from litevit.deploy.twins import with_few_axes
from litevit.files import parse_json

VARIABLE = "LITEVIT_LITERT_PYTHON"
FILE = f"{KEY}.json"  # in the archive at the file's end, where LiteRT's own metadata tools put associated files
CONVERT = """
import sys
import torch, litert_torch
program = torch.export.load(sys.argv[1])
litert_torch.convert(program.module(check_guards=False), *program.example_inputs[:1]).export(sys.argv[2])
"""

VERSIONS = """
import json
from importlib.metadata import version
names = {"litert_torch": "litert-torch", "litert_converter": "litert-converter", "torch of litert_torch": "torch"}
print(json.dumps({key: version(name) for key, name in names.items()}))
"""


class LiteRTEngine:
    def __init__(self, interpreter: Any):
        self.run_signature = interpreter.get_signature_runner()
        (self.input,) = self.run_signature.get_input_details()

    def run(self, images: Tensor) -> list[Tensor]:
        found = self.run_signature(**{self.input: images.contiguous().numpy()})
        return [torch.from_numpy(found[f"output_{i}"].copy()) for i in range(len(found))]


def refuses(job: Job) -> str | None:
    if "count" in job.graph.names:
        return (
            "LiteRT has no RoIAlign and no suppression of many images; export the backbone (litevit.create_backbone), "
            "or the whole as onnx or openvino"
        )
    if _converter() is None:
        return (
            "its converter, litert-torch, is not here. It wants an environment of its own: python -m venv litert && "
            f"litert/bin/pip install litert-torch, then set {VARIABLE}=litert/bin/python and export again"
        )
    return None


def _converter() -> str | None:
    """The Python that has litert-torch."""
    if named := os.environ.get(VARIABLE):
        return named
    return sys.executable if importlib.util.find_spec("litert_torch") else None


def _run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Code in the converter's Python, without this one's path of modules."""
    command = [str(_converter()), "-c", code, *arguments]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    try:
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    except OSError as error:
        raise ValueError(f"{VARIABLE} names no Python that runs: {command[0]} ({error.strerror})") from None


def versions() -> dict[str, str]:
    """Of what converts; nothing where it is not installed as packages are."""
    done = _run(VERSIONS)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}


def write(job: Job, path: Path) -> None:
    example = job.shape.example()
    traced = trace(with_few_axes(job.graph), job.shape)
    program = with_plain_attention(with_constants_folded(traced, example))
    with tempfile.TemporaryDirectory() as folder:
        torch.export.save(program, Path(folder) / "program.pt2")
        done = _run(CONVERT, str(Path(folder) / "program.pt2"), str(path))
    if done.returncode or not path.exists():
        said = [line.strip() for line in done.stderr.splitlines() if "Error" in line] or done.stderr.splitlines()[-1:]
        raise ValueError(
            f"litert-torch could not convert {job.metadata.model}: {said[-1][:300] if said else 'no word'}"
        )
    add_metadata(path, job.metadata)


def add_metadata(path: Path, metadata: Metadata) -> None:
    told = replace(metadata, seal=seal_of(path.read_bytes()))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(FILE, json.dumps(told.write()))


def load(path: Path, threads: int | None) -> Opened:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ImportError("Running .tflite files needs LiteRT: pip install 'litevit[litert]'") from error
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} ({path.stat().st_size} bytes) cannot be opened by LiteRT: its end, which says what it is, "
            "is missing. It is truncated, or was not written by litevit export"
        )
    with zipfile.ZipFile(path) as archive:
        told: Any = {}
        if FILE in archive.namelist():
            if (size := archive.getinfo(FILE).file_size) > MOST_BYTES:
                raise ValueError(f"{path}: {FILE} in it claims {size:,} bytes; it is damaged")
            told = parse_json(archive.read(FILE), f"{path}: {FILE}")
        end = min((entry.header_offset for entry in archive.infolist()), default=0)
    metadata = Metadata.read(told, path)
    if metadata.seal is not None and metadata.seal != seal_of(path.read_bytes()[:end]):
        raise damaged(str(path))
    try:
        interpreter = Interpreter(model_path=str(path), num_threads=threads)
    except ValueError as error:  # which does not name the file
        raise RuntimeError(str(error)) from error
    return Opened(LiteRTEngine(interpreter), metadata)


FORMAT = Format(
    name="litert",
    suffix=".tflite",
    runtime="LiteRT",
    needs=("ai_edge_litert",),
    write=write,
    load=load,
    refuses=refuses,
    elsewhere=versions,
)
