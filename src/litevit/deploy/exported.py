"""Opens and runs exported files: `load_exported`."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2.functional import pil_to_tensor

from litevit.checkpoints.preprocessing import Preprocessing
from litevit.deploy.formats import Engine, Format, Opened, formats
from litevit.deploy.graph import FEATURES
from litevit.deploy.metadata import Metadata
from litevit.deploy.seal import check_seal
from litevit.deploy.shapes import InputShape
from litevit.jobs.dense_models import DETECTION, INSTANCES, PANOPTIC, SEMANTIC, DenseModel

Pathlike = str | Path
DETECTORS = (DETECTION, INSTANCES, PANOPTIC)


class Exported(nn.Module):
    """An exported file, called like the model it came from, on the CPU.

    Classifiers and segmenters give their logits, backbones their four maps. Detectors and panoptic models give lists
    for a list of images, and their named tensors for a batch; see `litevit.deploy.dense`.

    Attributes:
        path: of the file.
        format: as `litevit.export` calls it.
        engine: its runtime, with the file open.
        metadata: everything the file says about itself.
    """

    def __init__(self, path: Path, format: str, engine: Engine, metadata: Metadata):
        super().__init__()
        self.path = path
        self.format = format
        self.engine = engine
        self.metadata = metadata
        self.shape = InputShape(
            batch=metadata.batch,
            size=metadata.size,
            smallest=metadata.smallest,
            uint8=metadata.preprocessing_inside,
        )
        # Whoever asks a model for its device looks at a parameter.
        self.nothing = nn.Parameter(torch.empty(0), requires_grad=False)
        self.eval()

    @property
    def task(self) -> str:
        """As in `litevit.list_models(task=...)`; "features" for a backbone."""
        return self.metadata.task

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels."""
        return self.metadata.classes

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How an image becomes the input; for files that do it themselves: what they do."""
        return self.metadata.preprocessing

    def named(self, images: Tensor) -> dict[str, Tensor]:
        """All outputs under their names.

        Args:
            images: (B, 3, H, W), normalised float32, or what the file takes.

        Returns:
            Name -> tensor, in the file's order.

        Raises:
            ValueError: images of a shape or type that the file does not take.
        """
        self.shape.check(images, self.path.name)
        try:
            found = self.engine.run(images)
        except Exception as error:  # every runtime has its own for a graph that is not what the file says
            if isinstance(error, ValueError | MemoryError):
                raise
            raise ValueError(f"{self.path} cannot be run: its graph is damaged ({_reason(error)})") from error
        if len(found) != len(self.metadata.outputs):
            raise ValueError(
                f"{self.path} gives {len(found)} outputs and says {len(self.metadata.outputs)}; it is damaged"
            )
        return dict(zip(self.metadata.outputs, found))

    @torch.no_grad()
    def forward(self, images: Tensor) -> Any:
        """Args: images: (B, 3, H, W), normalised. Returns: what the model returns."""
        found = tuple(self.named(images.detach().cpu()).values())
        return found if self.task == FEATURES else found[0]

    @property
    def prepare(self) -> Callable[[Image.Image], Tensor] | None:
        """From a Pillow image to what a file with its own preprocessing takes; None: it takes normalised images."""
        return pil_to_tensor if self.shape.uint8 else None

    def as_dense(self, names: Pathlike | None = None, score_threshold: float | None = None) -> DenseModel:
        """The file as the jobs of detectors and segmenters take a model.

        Args:
            names: file of class names instead of its own.
            score_threshold: leaves out detections below; the file's own threshold stays.

        Returns:
            What `litevit.jobs` evaluates, predicts and draws with.

        Raises:
            ValueError: a classifier or a backbone.
        """
        raise ValueError(f"{self.path} does {self.task}; this is for detectors and segmenters")

    def __deepcopy__(self, memo: dict) -> "Exported":
        return self  # an engine cannot be copied, and never changes


def load_exported(path: Pathlike, *, threads: int | None = None) -> Exported:
    """Opens a file written by `litevit.export`.

    Args:
        path: of the file, whose ending says the format.
        threads: processor threads; None: what the runtime takes.

    Returns:
        A module that is called as the model was.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, of another format than its name says, or not litevit's.
        ImportError: its runtime is not installed; the message names the extra.
    """
    path = Path(path).expanduser()
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    kind = recognise(path)
    if kind.load is None:
        raise ValueError(f"{path}: files of {kind.runtime} are written here and run elsewhere; open it there")
    if missing := kind.missing(to_run=True):
        raise ImportError(missing)
    opened = _open(kind, path, threads)
    return as_exported(path, kind.name, opened)


def as_exported(path: Path, format: str, opened: Opened) -> Exported:
    """The class that a file's task asks for."""
    from litevit.deploy.dense import ExportedDetector, ExportedSegmenter  # they are made of this module's Exported

    task = opened.metadata.task
    kind = ExportedSegmenter if task == SEMANTIC else ExportedDetector if task in DETECTORS else Exported
    return kind(path, format, opened.engine, opened.metadata)


def _reason(error: Exception) -> str:
    """The first line of what a runtime says that is not a place in its own source (OpenVINO puts those first)."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from ", "Check '"))]
    return next(iter(told or lines), type(error).__name__)[:200]


def _open(kind: Format, path: Path, threads: int | None) -> Opened:
    assert kind.load is not None
    try:
        changed = check_seal(path, kind.sealed) if kind.sealed else None
        opened = kind.load(path, threads)
    except Exception as error:
        if isinstance(error, ValueError | ImportError | MemoryError) and not isinstance(error, UnicodeError):
            raise  # every runtime has its own exceptions for a damaged file
        raise ValueError(
            f"{path} ({path.stat().st_size} bytes) cannot be opened by {kind.runtime}: it is truncated or damaged, or "
            f"written by a later version. Export it again. ({_reason(error)})"
        ) from error
    if changed is None:
        return opened
    warnings.warn(changed, stacklevel=3)
    return opened._replace(metadata=replace(opened.metadata, verified=False))


def is_exported(path: Any) -> bool:
    """Whether a path ends like an exported file."""
    suffix = Path(str(path)).suffix.lower()
    return any(suffix == kind.suffix for kind in formats().values())


def recognise(path: Path) -> Format:
    """The format of a file, by its content; a name that says something else is an error."""
    table = formats()
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist.")
    by_name = next((kind for kind in table.values() if path.suffix.lower() == kind.suffix), None)
    if by_name is None:
        known = ", ".join(f"{kind.suffix} ({kind.name})" for kind in table.values())
        raise ValueError(f"{path} does not end like an exported file: {known}.")
    if path.is_dir():
        if by_name.name != "coreml":
            raise ValueError(f"{path} is a folder, not a file of {by_name.runtime}.")
        return by_name
    name = _content(path)
    if name is not None and name != by_name.name:
        it_is = f"it is {name}"
        if name in table:
            it_is = f"it holds {table[name].runtime}'s format: call it {path.with_suffix(table[name].suffix).name}"
        raise ValueError(f"{path} is not a file of {by_name.runtime}: {it_is}.")
    return by_name


def _content(path: Path) -> str | None:
    """The format that the first bytes speak for; None: they say nothing."""
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        return "empty"
    if start[:4] == b"PK\x03\x04":
        return "pt2"
    if start[4:6] == b"ET":  # before what looks at the first byte, which is a length here
        return "executorch"
    if start[4:8] == b"TFL3":
        return "litert"
    if start.lstrip()[:1] == b"<":
        return "openvino" if b"<?xml" in start or b"<net" in start else "a web page"
    if start[:1] == b"\x08":  # field 1 of a protocol buffer: the IR version
        return "onnx"
    return None
