"""What a training run is: frozen dataclasses, no behaviour.

A recipe is a function that returns a `Recipe` (`litevit.recipes`). Everything that decides the result stands in it; the
resolved one is printed, saved beside the checkpoints as JSON, and enough to run again.
"""

import dataclasses
import difflib
import json
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar, Union

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What `litevit.create_model` is called with."""

    name: str
    weights: str | None = None  # to start from: "official", or a file
    overrides: dict[str, Any] = field(default_factory=dict)  # fields of the family's or the task's Config


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    lr_batch: int | None = None  # the total batch `lr` is meant for; the rate follows the batch linearly. None: as is
    weight_decay: float = 0.05
    offset_lr_ratio: float | None = None  # offset convolutions of deformable merging learn at ratio x lr
    decay: Literal["all", "no_norms"] = "all"  # dense tasks: what weight decay acts on
    head_lr_ratio: float = 1.0  # dense tasks: what is neither backbone nor pyramid learns at ratio x lr
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum: float = 0.9  # sgd only
    clip_grad: float | None = None  # L2 norm over all gradients


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The learning rate as a function of the step alone; `litevit.engine.schedule` has the formulas."""

    kind: Literal["cosine", "poly", "step", "constant"] = "cosine"
    epochs: int = 300
    steps: int | None = None  # length in optimizer steps, instead of epochs
    per: Literal["step", "epoch"] = "step"  # how often the rate changes
    late: bool = False  # the published off-by-one: a step (epoch) uses the rate of the one before it
    warmup_epochs: float = 0
    warmup_steps: int | None = None  # instead of warmup_epochs
    warmup_lr: float = 0.0  # the rate every group starts from
    warmup_ratio: float | None = None  # instead of warmup_lr: start from this share of the scheduled rate
    min_lr: float = 0.0
    scale_bounds: bool = False  # warmup_lr and min_lr follow the batch like lr does
    cooldown_epochs: int = 0  # epochs at min_lr after the schedule's end
    power: float = 1.0  # poly
    milestones: tuple[int, ...] = ()  # step: epochs after which the rate is multiplied by gamma
    gamma: float = 0.1


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    batch_size: int = 1024  # total: over processes and accumulated micro-batches
    accumulate: int = 1
    precision: Precision = "fp32"
    seed: int = 0
    ema_decay: float | None = None  # evaluates and keeps the moving average of the weights
    grad_checkpointing: bool = False
    compile: bool = False
    optimize: Literal["auto", "off"] = "auto"  # litevit.optimize_for_training: the same function to rounding
    channels_last: bool = False
    sync_batchnorm: bool = False  # CUDA only; otherwise every process normalises with its own share of the batch
    fsdp: bool = False  # shard parameters and optimizer over processes (FSDP2)
    find_unused_parameters: bool = False
    max_steps: int | None = None  # stop early, without changing the schedule
    eval_every: int = 1  # epochs; the last one is always evaluated
    eval_steps: int | None = None  # instead of epochs
    # From here on: nothing that changes the result.
    device: Literal["auto", "cpu"] = "auto"
    workers: int = 4  # loader processes per training process
    checkpoint_every: int | None = None  # optimizer steps; None: at every evaluation
    keep: int = 2  # checkpoints kept to resume from
    log_every: int = 50  # optimizer steps
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    root: str = "runs"
    dir: str | None = None  # this folder; continued when it holds an unfinished run. None: a new one under root


D = TypeVar("D")


@dataclass(frozen=True, kw_only=True)
class Recipe(Generic[D]):
    """A whole training run. `data` is the task's own dataclass (`ClassificationData`, ...)."""

    name: str
    task: str
    model: ModelConfig
    data: D
    optim: OptimConfig = OptimConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    run: RunConfig = RunConfig()


# Fields a run may be continued with although they differ from the checkpoint's.
FREE_TO_CHANGE = {
    "run.device", "run.workers", "run.checkpoint_every", "run.keep", "run.log_every", "run.trackers", "run.root",
    "run.dir", "run.max_steps", "data.path", "data.eval_path",
}  # fmt: skip


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain JSON types (tuples become lists)."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


C = TypeVar("C")


def from_dict(cls: type[C], values: dict[str, Any], where: str = "recipe") -> C:
    """Builds a dataclass from `to_dict`'s result; a field that does not exist, or a wrong type, raises ValueError."""
    hints = field_types(cls)
    if not isinstance(values, dict):
        raise ValueError(f"{where} must be an object with the fields {', '.join(hints)}, got {values!r}")
    for name in values:
        _check_name(name, list(hints), where)
    try:
        return cls(**{name: _coerce(hints[name], value, f"{where}.{name}") for name, value in values.items()})
    except TypeError as error:  # a required field is missing
        raise ValueError(f"{where}: {error}") from None


def field_types(cls: Any) -> dict[str, Any]:
    """Field name -> type, with the type variables of a `Recipe[ClassificationData]` filled in."""
    origin, arguments = typing.get_origin(cls) or cls, typing.get_args(cls)
    names = {item.name for item in dataclasses.fields(origin)}
    filled = dict(zip(getattr(origin, "__parameters__", ()), arguments))
    return {k: filled.get(v, v) for k, v in typing.get_type_hints(origin).items() if k in names}


def override(config: Any, path: str, value: Any) -> Any:
    """A copy of `config` with one field replaced, addressed as `optim.lr`.

    A string value is read as JSON where the field is not a string itself ("1e-3", "[2, 2]", "true", "null"). A name
    that no field has raises ValueError with the nearest one. Dictionary fields (`model.overrides.alpha`) take any key.
    """
    return _override(config, path.split("."), value, path)


def _override(config: Any, names: list[str], value: Any, path: str) -> Any:
    name, rest = names[0], names[1:]
    if isinstance(config, dict):
        if rest:
            raise ValueError(f"{path} does not exist: {name} is a value, not a group of fields")
        return {**config, name: _read(value)}
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise ValueError(f"{path} does not exist: it names a field of {config!r}, which is a value")
    _check_name(name, [item.name for item in dataclasses.fields(config)], "recipe", path)
    current = getattr(config, name)
    if rest:
        return dataclasses.replace(config, **{name: _override(current, rest, value, path)})
    if dataclasses.is_dataclass(current):
        fields = ", ".join(item.name for item in dataclasses.fields(current))
        raise ValueError(f"{path} is a group; give one of its fields: {fields}")
    hint = typing.get_type_hints(type(config)).get(name, Any)
    return dataclasses.replace(config, **{name: _coerce(hint, value, path, text=isinstance(value, str))})


def _read(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return {"True": True, "False": False, "None": None}.get(value, value)


def _check_name(name: str, known: list[str], where: str, path: str | None = None) -> None:
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean '{near[0]}'?" if near else f"It has: {', '.join(known)}."
    raise ValueError(f"{path or f'{where}.{name}'}: no field '{name}' in the {where}. {hint}")


def _coerce(hint: Any, value: Any, where: str, text: bool = False) -> Any:
    """Checks a value against a field's type; JSON's lists become tuples, and with `text` strings are read first."""
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        options = typing.get_args(hint)
        if text and str not in options:
            value, text = _read(value), False
        if text and type(None) in options and value.lower() in ("none", "null"):
            return None
        for option in options:
            try:
                return _coerce(option, value, where, text)
            except ValueError:
                continue
        raise ValueError(f"{where} must be {_spell(hint)}, got {value!r}")
    if dataclasses.is_dataclass(origin or hint):
        return value if dataclasses.is_dataclass(value) else from_dict(hint, value, where)
    if text and hint is not str and not (origin is Literal and value in typing.get_args(hint)):
        value = _read(value)
    if hint is Any or isinstance(hint, TypeVar):
        return value
    if hint is type(None):
        good = value is None
    elif origin is Literal:
        good = value in typing.get_args(hint)
    elif origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where} must be {_spell(hint)}, got {value!r}")
        inner = typing.get_args(hint)
        if len(inner) == 2 and inner[1] is Ellipsis:
            return tuple(_coerce(inner[0], item, where) for item in value)
        if len(inner) != len(value):
            raise ValueError(f"{where} needs {len(inner)} values, got {len(value)}: {value!r}")
        return tuple(_coerce(kind, item, where) for kind, item in zip(inner, value))
    elif origin is dict:
        good = isinstance(value, dict)
    elif hint is float:
        good = isinstance(value, (int, float)) and not isinstance(value, bool)
        value = float(value) if good else value
    elif hint is int:
        good = isinstance(value, int) and not isinstance(value, bool)
    else:
        good = isinstance(value, hint)
    if not good:
        raise ValueError(f"{where} must be {_spell(hint)}, got {value!r}")
    return value


def _spell(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return " or ".join(repr(option) for option in typing.get_args(hint))
    if typing.get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_spell(option) for option in typing.get_args(hint))
    return "null" if hint is type(None) else getattr(hint, "__name__", str(hint))


def differences(mine: Any, theirs: dict[str, Any]) -> list[str]:
    """The fields, as `optim.lr: 0.001, checkpoint 0.002`, in which a recipe differs from a saved one so that they are
    two different runs."""
    ours, saved = _flat(to_dict(mine)), _flat(theirs)
    return [
        f"{name}: {ours.get(name)!r}, checkpoint {saved.get(name)!r}"
        for name in sorted(ours.keys() | saved.keys())
        if name not in FREE_TO_CHANGE and ours.get(name) != saved.get(name)
    ]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
