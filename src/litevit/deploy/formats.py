"""The formats: what a file of each needs, whether it can hold a model, how it is written and run.

One module per format; this is their contract and the table. A format that cannot be used here still has its row.
"""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from torch import Tensor
from torch.export import ExportedProgram

from litevit.deploy.graph import Graph
from litevit.deploy.metadata import Metadata
from litevit.deploy.shapes import InputShape


class Engine(Protocol):
    """A file that has been opened."""

    def run(self, images: Tensor) -> list[Tensor]:
        """All outputs, in their order."""


class Opened(NamedTuple):
    engine: Engine
    metadata: Metadata


@dataclass(frozen=True, kw_only=True)
class Job:
    """One export: what is written."""

    graph: Graph
    program: Callable[[], ExportedProgram]  # traced on first use
    shape: InputShape
    metadata: Metadata
    opset: int | None = None  # of ONNX


class Format(NamedTuple):
    """How one format is handled."""

    name: str  # also of the extra that brings what writes it
    suffix: str
    runtime: str  # as people know it
    needs: tuple[str, ...]  # modules that write it; the first is its runtime
    write: Callable[[Job, Path], None]
    load: Callable[[Path, int | None], Opened] | None = None  # path, threads; None: written here, it runs elsewhere
    # As the runtime runs it when nothing is asked of it. None (also returned): as `load` does.
    load_default: Callable[[Path, int | None], Opened | None] | None = None
    # What it cannot hold and what to do, before anything is traced; default: it has whatever litevit's models need.
    refuses: Callable[[Job], str | None] = lambda job: None
    # What is exported, its float32 file, the int8 file to write, images to calibrate with.
    quantize: Callable[[Job, Path, Path, Sequence[Tensor]], None] | None = None
    needs_int8: tuple[str, ...] = ()  # modules of the extra `int8` that `quantize` takes besides
    free: bool = False  # may batch and sides be
    # Endings of the files under the seal in the first (deploy/seal.py); empty: the format has checksums of its own.
    sealed: tuple[str, ...] = ()
    # Versions of what writes it in another environment, for the report.
    elsewhere: Callable[[], dict[str, str]] = dict

    def missing(self, *, to_run: bool = False, int8: bool = False) -> str | None:
        """What has to be installed first; None: nothing.

        Args:
            to_run: a file that is there, which the runtime can.
            int8: a file in 8 bits is to be written.
        """
        gone = _gone(self.needs[:1] if to_run else self.needs)
        if gone:
            return f"{self.runtime} needs {' and '.join(gone)}: pip install 'litevit[{self.name}]'"
        gone = _gone(self.needs_int8) if int8 else []
        return f"int8 files of {self.runtime} need {' and '.join(gone)}: pip install 'litevit[int8]'" if gone else None


def _gone(modules: Sequence[str]) -> list[str]:
    return [name for name in modules if importlib.util.find_spec(name) is None]


# What is not written at all, and where to go instead.
NOT_WRITTEN = {
    "tensorrt": (
        "TensorRT builds engines on the NVIDIA GPU that runs them, and torch-tensorrt wants an older PyTorch. Export "
        "onnx with --image-size and --batch-size, then there: trtexec --onnx=FILE.onnx --saveEngine=FILE.engine"
    ),
}


def formats() -> dict[str, Format]:
    """All of them by name."""
    from litevit.deploy import coreml, executorch, litert, onnx, openvino, pt2

    modules = (pt2, onnx, openvino, executorch, litert, coreml)
    return {module.FORMAT.name: module.FORMAT for module in modules}


def find(name: str, *, int8: bool = False) -> Format:
    """The format of a name, usable here. Args: int8: in 8 bits too, where it has them.

    Raises:
        ValueError: unknown.
        ImportError: what it needs is not installed; the message says what to do.
    """
    table = formats()
    if name in NOT_WRITTEN:
        raise ValueError(f"{name} files are not written: {NOT_WRITTEN[name]}")
    if name not in table:
        raise ValueError(f"Unknown format {name!r}. Known: {', '.join(table)}.")
    if missing := table[name].missing(int8=int8):
        raise ImportError(missing)
    return table[name]
