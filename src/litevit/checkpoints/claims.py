"""Options of a model that a file tells, before it is made: of the right types, and of no larger model than the file.

A training run's recipe and a packed model's configuration come with weights, and may come from anybody. `depths` of a
million blocks would take an hour, `embed_dim` of a million all memory; the weights say what there can be.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from litevit.checkpoints.files import held
from litevit.zoo import GENERIC, MODELS, build_model, model_options

COUNTS = ("depths", "num_convs", "num_class_blocks")  # options that say how many modules there are
LEFT_TO_TIMM = {  # what timm.create_model reads, downloads or compiles by; not of a model
    "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "scriptable",
    "exportable", "no_jit", "device", "dtype",
}  # fmt: skip
LARGEST = 2**31
SPARE = 2**28  # bytes that a model may have beyond twice its file's: tables and heads that are not stored
WITHOUT_FILE = 2**30


def check_options(name: str, options: Mapping[str, Any], where: object, weights: Path | None) -> None:
    """Looks at what a file says a model is made with.

    Args:
        name: as for `litevit.create_model`, or timm's as `timm/NAME`.
        where: named in the error.
        weights: the `.safetensors` file that the options come with; None: there is none.

    Raises:
        ValueError: an option that the model does not have, or of another type or range; or the model is larger than
            the weights.
    """
    if name.startswith("timm/"):
        check_timm(options, where)
        classes = options.get("num_classes", 0)
        if weights is not None and isinstance(classes, int) and 2 * classes > (stored := held(weights)[1]):
            raise ValueError(f"{where}: {stored:,} bytes of weights are not of {classes:,} classes; it is damaged")
        return
    if name not in MODELS and name not in GENERIC:
        return  # whoever builds it says so
    tensors, stored = (10_000, WITHOUT_FILE) if weights is None else held(weights)
    backbone = options.get("backbone")
    if backbone is not None and not isinstance(backbone, str):
        raise ValueError(f"{where}: backbone must be a name, got {backbone!r:.60}")
    _check_types(model_options(name, backbone), options, f"{where}: {name}")
    for key in COUNTS:
        counts = options.get(key, 0)
        if sum(counts if isinstance(counts, tuple | list) else (counts,)) > tensors:
            raise ValueError(f"{where}: {key}={counts!r:.60} are more layers than there are weights; it is damaged")
    try:
        with torch.device("meta"):
            model = build_model(name, **options)
    except (ValueError, ImportError):
        raise
    except Exception as error:  # modules of numbers that are none: whatever their arithmetic raises
        said = str(error).partition("\n")[0][:200] or type(error).__name__
        raise ValueError(f"{where}: no {name} can be made with {dict(options)!r:.200}: {said}") from None
    if (size := _bytes(model)) > 2 * stored + SPARE:
        raise ValueError(
            f"{where}: {name} with {dict(options)!r:.200} has {size / 2**20:,.0f} MiB, its weights "
            f"{stored / 2**20:,.0f}; it is damaged"
        )


def check_timm(options: Mapping[str, Any], where: object) -> None:
    """Raises ValueError for options that make timm read files or ask the network instead of making a model."""
    if wrong := sorted(LEFT_TO_TIMM & set(options)):
        raise ValueError(f"{where}: {', '.join(wrong)} cannot be set for timm's models; model.weights takes a file")


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, tuple | list):
        for one in value:
            yield from _numbers(one)
    elif isinstance(value, int | float):
        yield value


def _check_types(known: Mapping[str, Any], options: Mapping[str, Any], where: str) -> None:
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    for key, value in options.items():
        if key not in known or key == "backbone":
            continue  # `build_model` says what there is
        if not all(abs(number) < LARGEST for number in _numbers(value)):  # nan is not
            raise ValueError(f"{where}: {key} must be of numbers below {LARGEST:,}, got {value!r:.60}")
        try:
            reader = TypeAdapter(tuple[known[key]], config=ConfigDict(allow_inf_nan=False))  # type: ignore[valid-type]
            reader.validate_python((value,), strict=True)
        except ValidationError as error:
            said = error.errors()[0]["msg"].replace("Input should", "must")
            raise ValueError(f"{where}: {key} {said}, got {value!r:.60}") from None


def _bytes(model: nn.Module) -> int:
    return sum(x.numel() * x.element_size() for x in (*model.parameters(), *model.buffers()))
