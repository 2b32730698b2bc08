"""What a training run is: frozen dataclasses, no behaviour.

A recipe is a function that returns a `Recipe` (`litevit.recipes`). Everything that decides the result stands in it; the
resolved one is saved beside the checkpoints as JSON, and enough to run again. pydantic reads and checks it: fields,
types and ranges, from the annotations below and those of the data's dataclass.
"""

import dataclasses
import difflib
import functools
import json
import typing
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from litevit.data.ranges import Above0, AtLeast0, Count, Positive, ShareAbove0, ShareBelow1

Precision = Literal["fp32", "bf16", "fp16"]
IMAGENET = "imagenet"  # ModelConfig.weights: the backbone's published ImageNet weights


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What `litevit.create_model` is called with."""

    name: str  # of `litevit.list_models()`, or a task that takes any backbone
    weights: str | None = None  # to start from: None, "official", "imagenet" (a dense model's backbone), or a file
    overrides: dict[str, Any] = field(default_factory=dict)  # fields of the family's or the task's Config
    drop_head: bool | None = None  # dense tasks: weights of other classes lose what depends on the classes, and say so


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """What turns gradients into steps."""

    name: Literal["adamw", "sgd"] = "adamw"  # of PyTorch
    lr: Above0 = 1e-3  # the highest rate of the schedule
    lr_batch: Positive | None = None  # the total batch `lr` is meant for; the rate follows it linearly. None: as is
    weight_decay: AtLeast0 = 0.05  # of classifiers on matrices and kernels alone; dense tasks: `decay`
    offset_lr_ratio: AtLeast0 | None = None  # offset convolutions of deformable merging learn at ratio x lr
    decay: Literal["all", "no_norms"] = "all"  # dense tasks: what weight decay acts on
    head_lr_ratio: AtLeast0 = 1.0  # dense tasks: what is neither backbone nor pyramid learns at ratio x lr
    betas: tuple[ShareBelow1, ShareBelow1] = (0.9, 0.999)  # adamw only
    eps: Above0 = 1e-8  # adamw only
    momentum: ShareBelow1 = 0.9  # sgd only
    clip_grad: Above0 | None = None  # L2 norm over all gradients
    freeze: Count | None = None  # so many stages, from the image on, stay as they are
    layer_decay: ShareAbove0 | None = None  # every layer learns at this share of the rate of the next one


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The learning rate as a function of the step alone; `litevit.engine.schedule` has the formulas."""

    kind: Literal["cosine", "poly", "step", "constant"] = "cosine"  # what the rate follows after the warm-up
    epochs: Positive | None = 300  # None: from the number of training images, `epochs_for`
    steps: Positive | None = None  # length in optimizer steps, instead of epochs
    per: Literal["step", "epoch"] = "step"  # how often the rate changes
    late: bool = False  # the published off-by-one: a step (epoch) uses the rate of the one before it
    warmup_epochs: AtLeast0 = 0  # in which the rate rises linearly
    warmup_steps: Count | None = None  # instead of warmup_epochs
    warmup_lr: AtLeast0 = 0.0  # the rate every group starts from
    warmup_ratio: AtLeast0 | None = None  # instead of warmup_lr: start from this share of the scheduled rate
    min_lr: AtLeast0 = 0.0  # cosine and poly end there
    scale_bounds: bool = False  # warmup_lr and min_lr follow the batch like lr does
    cooldown_epochs: Count = 0  # epochs at min_lr after the schedule's end
    power: AtLeast0 = 1.0  # poly
    milestones: tuple[Positive, ...] = ()  # step: epochs after which the rate is multiplied by gamma
    gamma: AtLeast0 = 0.1  # step


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How a run goes: batch, precision, device, what is kept and shown."""

    batch_size: Positive = 1024  # total: over processes and accumulated micro-batches
    accumulate: Positive = 1  # micro-batches of a step
    precision: Precision | Literal["auto"] = "fp32"  # auto: bf16 where the device multiplies it, else fp32
    seed: Count = 0  # of fresh weights, the order of the images and their augmentation
    ema_decay: ShareBelow1 | None = None  # evaluates and keeps the moving average of the weights
    grad_checkpointing: bool = False  # recomputes blocks in the backward pass, which saves memory
    compile: bool = False  # torch.compile
    optimize: Literal["auto", "off"] = "auto"  # litevit.optimize_for_training: the same function to rounding
    channels_last: bool = False  # memory layout of images and maps, for convolutions on CUDA
    sync_batchnorm: bool = False  # CUDA only; otherwise every process normalises with its own share of the batch
    fsdp: bool = False  # shard parameters and optimizer over processes (FSDP2)
    find_unused_parameters: bool = False  # several processes: for models of which a step may leave parts out
    max_steps: Positive | None = None  # stop early, without changing the schedule
    eval_every: Positive = 1  # epochs; the last one is always evaluated
    eval_steps: Positive | None = None  # instead of epochs
    # What follows changes no result.

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: CUDA, else MPS, else the CPU
    workers: Count = 4  # loader processes per training process
    checkpoint_every: Positive | None = None  # optimizer steps; None: at every evaluation
    keep: Positive = 2  # checkpoints kept to resume from
    log_every: Positive = 50  # optimizer steps
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()  # where else to log
    root: str = "runs"  # where a new folder is made
    dir: str | None = None  # this folder; continued when it holds an unfinished run. None: a new one under root
    data_changed: bool = False  # continue although the data are not what they were at the checkpoint


D = TypeVar("D")


@dataclass(frozen=True, kw_only=True)
class Recipe(Generic[D]):
    """A whole training run. `data` is the task's own dataclass (`ClassificationData`, ...)."""

    name: str  # of the run's folder
    task: str  # classification, token_labeling, detection, panoptic or segmentation
    model: ModelConfig  # what is trained, and from which weights
    data: D  # on what
    optim: OptimConfig = OptimConfig()  # by which steps
    schedule: ScheduleConfig = ScheduleConfig()  # at which learning rates
    run: RunConfig = RunConfig()  # where, and how


# Fields a run may be continued with although they differ from the checkpoint's.
FREE_TO_CHANGE = {
    "run.device", "run.workers", "run.checkpoint_every", "run.keep", "run.log_every", "run.trackers", "run.root",
    "run.dir", "run.data_changed", "run.max_steps", "data.path", "data.eval_path",
}  # fmt: skip


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain JSON types (tuples become lists)."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


C = TypeVar("C")


def from_dict(cls: type[C], values: dict[str, Any], where: str = "recipe") -> C:
    """Builds a dataclass from `to_dict`'s result.

    Raises:
        ValueError: a field that does not exist or is missing, a value of another type or out of its range.
    """
    from pydantic import ValidationError

    try:
        # As JSON, where a list is a tuple and 1 is a float, but nothing else is turned into what it is not.
        return _reader(cls).validate_json(json.dumps([values]), strict=True)[0]  # type: ignore[arg-type]
    except ValidationError as error:
        found = [_explain(entry, cls, where) for entry in error.errors()]
        raise ValueError("; ".join(found[:3]) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")) from None


def check(recipe: Recipe) -> None:
    """Raises ValueError where a number is out of its range or a value of another type than its field."""
    from_dict(_class_of(recipe), to_dict(recipe), "")


def override(config: C, path: str, value: Any) -> C:
    """A copy of `config` with one field replaced, addressed as `optim.lr`.

    Dictionary fields (`model.overrides.alpha`) take any key. Raises ValueError as `from_dict` does.
    """
    values = to_dict(config)
    *groups, name = path.split(".")
    place = values
    for group in groups:
        place = place.setdefault(group, {})
        if not isinstance(place, dict):
            raise ValueError(f"{path} does not exist: {group} is a value, not a group of fields")
    if isinstance(place.get(name), dict) and not isinstance(value, dict):
        raise ValueError(f"{path} is a group; give one of its fields: {', '.join(place[name])}")
    place[name] = value
    read: Any = from_dict(_class_of(config), values)
    return _replace(config, groups, name, read)


def _replace(config: Any, groups: list[str], name: str, read: Any) -> Any:
    """`config` with the one field taken from `read`; all others stay what they are (tuples in `model.overrides`)."""
    ours = name if not groups else groups[0]
    get: Any = dict.__getitem__ if isinstance(config, dict) else getattr
    new = get(read, name) if not groups else _replace(get(config, ours), groups[1:], name, get(read, ours))
    return {**config, ours: new} if isinstance(config, dict) else dataclasses.replace(config, **{ours: new})


def _class_of(config: Any) -> Any:
    return Recipe[type(config.data)] if isinstance(config, Recipe) else type(config)  # type: ignore[misc]


@functools.cache
def _reader(cls: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    # In a tuple, because pydantic takes no settings for what may have its own, as a dataclass may.
    return TypeAdapter(tuple[cls], config=ConfigDict(extra="forbid", allow_inf_nan=False))  # type: ignore[valid-type]


def _explain(error: Any, cls: Any, where: str) -> str:
    """What pydantic found, as one says it."""
    *outer, last = (where, *map(str, error["loc"][1:])) if where else map(str, error["loc"][1:])
    group, path = ".".join(outer), ".".join((*outer, last))
    kind, got = error["type"], f"got {error['input']!r:.100}"
    if kind == "unexpected_keyword_argument":
        known = _fields(cls, error["loc"][1:-1])
        near = difflib.get_close_matches(last, known, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"It has: {', '.join(known)}."
        return f"{path}: no field '{last}' in the {group or 'recipe'}. {hint}"
    if kind == "missing":
        return f"{path} is missing"
    if kind == "literal_error":
        return f"{path} must be {error['ctx']['expected']}, {got}"
    if kind == "dataclass_type":
        fields = ", ".join(_fields(cls, error["loc"][1:]))
        return f"{path or 'recipe'} must be an object with the fields {fields}, {got}"
    return f"{path} {error['msg'].replace('Input should', 'must')}, {got}"


def _fields(cls: Any, path: typing.Iterable[Any]) -> list[str]:
    """The fields of the dataclass that lies at `path` in `cls`."""
    for name in path:
        cls = field_types(cls)[name]
    return list(field_types(cls))


def field_types(cls: Any) -> dict[str, Any]:
    """Field name -> type, with the type variables of a `Recipe[ClassificationData]` filled in."""
    origin, arguments = typing.get_origin(cls) or cls, typing.get_args(cls)
    names = {item.name for item in dataclasses.fields(origin)}
    filled = dict(zip(getattr(origin, "__parameters__", ()), arguments))
    return {k: filled.get(v, v) for k, v in typing.get_type_hints(origin).items() if k in names}


def differences(
    mine: Any, theirs: dict[str, Any], *, but: Collection[str] = (), only: Collection[str] | None = None
) -> list[str]:
    """The fields, as `optim.lr: 0.001, checkpoint 0.002`, in which a recipe differs from a saved one so that they are
    two different runs.

    Args:
        but: fields that may differ as well.
        only: nothing but these fields.
    """
    ours, saved = flat(to_dict(mine)), flat(theirs)
    return [
        f"{name}: {ours.get(name)!r}, checkpoint {saved.get(name)!r}"
        for name in sorted(ours.keys() | saved.keys() if only is None else only)
        if name not in FREE_TO_CHANGE and name not in but and ours.get(name) != saved.get(name)
    ]


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, its keys joined by dots."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found
