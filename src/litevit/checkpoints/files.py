"""Reads and writes checkpoint files. Reading never runs code from a file.

`.pth` files are read by PyTorch's restricted unpickler. Training checkpoints also hold objects of packages that need
not be installed (yacs, argparse, mmcv, mmengine, numpy scalars): those names are met by inert stand-ins from
`STAND_INS`, every other name is refused.
"""

import os
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from litevit.devices import out_of_memory
from litevit.files import ClaimError, remove_abandoned, torch_file, whole_file
from litevit.seals import check_seal, save_sealed

Pathlike = str | os.PathLike


class _Inert:
    """Stands for a pickled object whose contents nobody needs: takes any arguments and any state, and does nothing."""

    def __new__(cls, *args, **kwargs):
        return object.__new__(cls)

    def __init__(self, *args, **kwargs):
        super().__init__()

    def __setstate__(self, state):
        return None


class _InertDict:
    """Stands for a subclass of dict. The restricted unpickler fills plain dictionaries only, so it becomes one."""

    def __new__(cls, *args, **kwargs):
        return OrderedDict()


def _stand_in(name: str, kind: type) -> type:
    """A class that the unpickler finds under the full `name`; it serves for functions too."""
    module, _, last = name.rpartition(".")
    made = type(last, (kind,), {})
    # The unpickler looks a stand-in up by these two attributes, in every PyTorch that this package supports.
    made.__module__, made.__qualname__ = module, last
    return made


STAND_INS: list[Any] = [
    _stand_in(name, kind)
    for name, kind in {
        "yacs.config.CfgNode": _InertDict,  # LIT-S/M/B, LITv2: training checkpoints, key `config`
        "argparse.Namespace": _Inert,  # LIT-Ti, LVT: training checkpoints, key `args`
        "pathlib.PosixPath": _Inert,  # inside the namespace
        "pathlib.WindowsPath": _Inert,
        "collections.defaultdict": _InertDict,
        "builtins.dict": _InertDict,
        "addict.addict.Dict": _InertDict,
        "mmcv.utils.config.ConfigDict": _InertDict,  # mmdet, mmseg of 2021: key `meta`
        "mmengine.config.config.ConfigDict": _InertDict,  # mmdet 3: keys `meta` and `message_hub`
        "mmengine.logging.history_buffer.HistoryBuffer": _Inert,
        "builtins.getattr": _Inert,  # how a history buffer refers to its methods; this one looks nothing up
        "numpy.dtype": _Inert,
        "numpy.ndarray": _Inert,
        "numpy.core.multiarray.scalar": _Inert,
        "numpy._core.multiarray.scalar": _Inert,
        "numpy.core.multiarray._reconstruct": _Inert,
        "numpy._core.multiarray._reconstruct": _Inert,
    }.items()
]


# How files of `litevit export` end, and what runs them (deploy/formats.py, of which nothing is known here).
EXPORTED = {
    ".pt2": "PyTorch",
    ".onnx": "ONNX Runtime",
    ".xml": "OpenVINO",
    ".pte": "ExecuTorch",
    ".tflite": "LiteRT",
    ".mlpackage": "Core ML",
}


def is_exported_file(path: Pathlike) -> bool:
    """Whether a path is there, and ends like a file of `litevit export`; annotations end in .xml, too."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix != ".xml":
        return suffix in EXPORTED and path.exists()
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return b"<net" in file.read(512)


def refuse_exported(path: Pathlike) -> None:
    """Raises ValueError for an exported file: its weights are parts of a program, folded and renamed."""
    if is_exported_file(path):
        runtime = EXPORTED[Path(path).suffix.lower()]
        raise ValueError(
            f"{path} is an exported file, a program for {runtime}, from which weights cannot be taken. Give the "
            "training run or the checkpoint that it was made from. (litevit predict and eval run the file as it is: "
            "--weights.)"
        )


def read_file(path: Pathlike) -> Any:
    """Whatever a `.pth` or `.safetensors` file holds, on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, exported, no checkpoint, or asks for something to be run.
    """
    path = Path(path).expanduser()
    refuse_exported(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        hint = "" if path.suffix else ' Weights are a .pth or .safetensors file, or "official" for the published ones.'
        raise FileNotFoundError(f"Checkpoint {path} {what}.{hint}")
    with path.open("rb") as file:
        start = file.read(512)
    if start.lstrip()[:1] == b"<":
        raise ValueError(f"{path} is a web page, not a checkpoint: open its address in a browser and save the file.")
    if path.suffix == ".safetensors" or start[8:10] == b'{"':
        return _read_safetensors(path)
    return _read_pickle(path)


def read_metadata(path: Pathlike) -> dict[str, str]:
    """The header of a `.safetensors` file; empty for other files."""
    path = Path(path)
    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return dict(file.metadata() or {})
    except SafetensorError:
        raise _unreadable(path) from None


def held(path: Path) -> tuple[int, int]:
    """How many tensors a `.safetensors` file holds, and its bytes."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return len(file.keys()), path.stat().st_size
    except SafetensorError:
        raise _unreadable(path) from None


def _unreadable(path: Path) -> ValueError:
    return ValueError(
        f"{path} ({path.stat().st_size} bytes) cannot be read: it is truncated or damaged, or neither a PyTorch nor a "
        "safetensors file. Get it anew."
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            check_seal(path)
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dictionary)
    except SafetensorError:
        raise _unreadable(path) from None


def _read_pickle(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(STAND_INS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; what cannot be read raises
            with torch_file(path) as file:
                return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        name = _forbidden_name(str(error))
        if "Unsupported operand" in str(error) and _begins_with(path, pickle.PROTO):
            raise ValueError(
                f"{path} was refused: it is a pickle that torch.save did not write, and reading it may run code. "
                "Ask its maker for a file of tensors only (torch.save of a plain state dict, or .safetensors)."
            ) from None
        if name is None:
            raise _unreadable(path) from None
        raise ValueError(
            f"{path} was refused: it asks for {name} when read, and a checkpoint must not run code. "
            "If you trust its maker, ask for a file of tensors only (a plain state dict or .safetensors)."
        ) from None
    except (PermissionError, ClaimError):
        raise
    except Exception as error:  # a damaged file can fail anywhere in the reader, with any exception
        if out_of_memory(error):
            raise OSError(f"{path} cannot be read: out of memory") from None
        raise _unreadable(path) from None


def _begins_with(path: Path, mark: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(mark)) == mark


def _forbidden_name(message: str) -> str | None:
    """The name in the unpickler's complaint about a global that is not allowed."""
    for before in (
        "Unsupported global: GLOBAL ",
        "unsupported GLOBAL ",
        "Trying to call reduce for unrecognized function ",
    ):
        if before in message:
            return message.split(before, 1)[1].split()[0]
    return None


# ------------------------------------------------------------- state dict


class StateDict(NamedTuple):
    """The tensors of a checkpoint under their bare keys."""

    tensors: dict[str, Tensor]
    wrapping: tuple[str, ...]  # what was taken off, outermost first: ("model", "module.")
    dropped: tuple[str, ...]  # keys beside the wanted ones ("encoder." files hold more than the encoder)


CONTAINERS = ("state_dict", "model", "model_state", "model_state_dict", "module", "state_dict_ema", "model_ema", "ema")
PREFIXES = ("module.", "_orig_mod.")  # DistributedDataParallel and AveragedModel, torch.compile
LIVE, AVERAGED = ("model.", "net."), ("ema_model.", "model_ema.", "ema.")  # a Lightning module's attributes
DEEPEST = 16  # containers in one another
COUNTERS = ("n_averaged", "total_ops", "total_params")  # AveragedModel's; thop's, beside every module


def _no_weight(tensor: Tensor) -> str | None:
    """Why a tensor cannot be of a model; copying one that repeats its storage would take any amount of memory."""
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_nested:
        return "sparse, quantised or nested"
    if tensor.is_meta:
        return "without values (of the meta device)"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return f"of shape {tuple(tensor.shape)} and larger than what the file holds of it"
    return None


def read_state_dict(source: Pathlike | Mapping[str, Any], *, ema: bool = False) -> StateDict:
    """Tensors of a checkpoint file, or of its contents, freed of containers and prefixes.

    Takes files of plain PyTorch, timm, mmcv and mmengine, torchvision's references, Lightning, DeepSpeed, compiled and
    averaged models (`AveragedModel`).

    Args:
        source: path, flat state dict, or the dictionary of a training checkpoint.
        ema: take the moving average (`state_dict_ema`, `model_ema`, `ema_model.`) where the checkpoint holds both.
    """
    name = "The state dict" if isinstance(source, Mapping) else str(source)
    content = source if isinstance(source, Mapping) else read_file(source)
    containers = sorted(CONTAINERS, key=lambda key: key.endswith("ema") != ema)
    wrapping: list[str] = []
    while isinstance(content, Mapping) and (found := [c for c in containers if isinstance(content.get(c), Mapping)]):
        if len(wrapping) == DEEPEST:  # a dictionary may hold itself
            raise ValueError(
                f"{name} nests its model deeper than {DEEPEST} containers: {' > '.join(wrapping[:4])} > ..."
            )
        content = content[found[0]]
        wrapping.append(found[0])
    held = content.items() if isinstance(content, Mapping) else ()
    tensors = {k: v for k, v in held if isinstance(k, str) and isinstance(v, Tensor)}
    if not tensors:
        raise ValueError(
            f"{name} holds no model: a state dict is expected, flat or under one of {', '.join(CONTAINERS)}."
        )
    for key, tensor in () if isinstance(source, Mapping) else tensors.items():
        if problem := _no_weight(tensor):
            raise ValueError(f"{name}: {key[:60]} is {problem}; the weights of a model are plain tensors")
    dropped = [key for key in tensors if key.rpartition(".")[2] in COUNTERS]
    tensors = {key: value for key, value in tensors.items() if key not in dropped}

    def keep_below(prefix: str) -> None:
        nonlocal tensors
        dropped.extend(key for key in tensors if not key.startswith(prefix))
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        wrapping.append(prefix)

    stripped = True
    while stripped:
        stripped = False
        wanted = [p for p in (*(AVERAGED + LIVE if ema else LIVE + AVERAGED),) if any(k.startswith(p) for k in tensors)]
        common = [p for p in PREFIXES if tensors and all(k.startswith(p) for k in tensors)]
        if wanted or common:
            keep_below((wanted or common)[0])
            stripped = True
    if any(".module." in key or "._orig_mod." in key or key.startswith("_orig_mod.") for key in tensors):
        # A compiled or distributed model inside another module: model.backbone._orig_mod.stages...
        tensors = {re.sub(r"(^|\.)(_orig_mod|module)\.", r"\1", key): value for key, value in tensors.items()}
        wrapping.append("_orig_mod.")
    if any(key.startswith("encoder.") for key in tensors):  # self-supervised training: encoder and decoder in one file
        keep_below("encoder.")
    return StateDict(tensors, tuple(wrapping), tuple(dropped))


# ----------------------------------------------------------------- writing


def write_state_dict(
    tensors: Mapping[str, Tensor],
    path: Pathlike,
    *,
    container: str | None = "model",
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Writes `.safetensors` (with `metadata`), or a PyTorch file of the tensors alone for any other suffix.

    A PyTorch file holds them below `container`, or flat where that is None. The file appears complete or not at all:
    it is written beside its name and renamed.

    Raises:
        OSError: no such folder, no permission or no space; a file that was there stays as it was.
    """
    path = Path(path).expanduser()
    if not path.parent.is_dir():
        raise FileNotFoundError(f"Cannot write {path}: the folder {path.parent} does not exist.")
    remove_abandoned(path)
    state = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    # torch and safetensors raise their own on a full disk
    with whole_file(path, sync=True, fails_with=(RuntimeError, SafetensorError)) as temporary:
        if path.suffix == ".safetensors":
            save_sealed(state, temporary, {"format": "pt", **(metadata or {})})
        else:
            torch.save(state if container is None else {container: state}, temporary)
    return path
