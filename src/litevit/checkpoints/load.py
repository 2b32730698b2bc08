"""`load_weights`: any published or own checkpoint into a model, strictly, with an account of every tensor.

A checkpoint is first brought to one form: litevit's keys of a whole model, `backbone.*` and the task's own. Then it is
fitted to the model: a backbone is taken out of a classifier, a head is left at its initialisation, tables of another
size are resized, and whatever does not fit raises before the model is touched.
"""

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litevit import zoo
from litevit.checkpoints import layouts
from litevit.checkpoints.files import Pathlike, read_state_dict
from litevit.checkpoints.layouts import Converted
from litevit.checkpoints.recorded import class_counts_of, weights_file

Shape = tuple[int, ...]
# Tensors whose shapes follow the number of classes.
OF_THE_CLASSES = re.compile(
    r"(aux_)?head\.(weight|bias)|head\.(cls_logits|classifier)\.\w+|semantic_head\.classifier\.\w+"
    r"|roi_heads\.box_head\.(cls_logits|deltas)\.\w+|roi_heads\.mask_head\.logits\.\w+"
)
FIRST_LAYER = "embeds.0.proj.weight"


@dataclass(kw_only=True, repr=False)
class LoadReport:
    """What became of every tensor of a checkpoint (source keys) and of the model (our keys)."""

    source: str  # what was loaded: a path, or "state dict"
    layout: str  # "litevit", "official LIT", ...
    wrapping: tuple[str, ...] = ()  # taken off around the tensors, outermost first
    used: tuple[str, ...] = ()  # our keys that were set
    converted: dict[str, str] = field(default_factory=dict)  # source key -> our key, where they differ
    resized: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)  # our key -> shape in the file, in the model
    dropped: tuple[str, ...] = ()  # source keys left out on purpose
    missing: tuple[str, ...] = ()  # our keys that stayed at their initialisation
    unexpected: tuple[str, ...] = ()  # source keys nobody knows; only with strict=False

    def __repr__(self) -> str:  # a notebook shows it, and there are hundreds of keys
        return f"LoadReport({self.line})"

    @property
    def line(self) -> str:
        """What is loaded and what is not, in one line."""
        text = f"starting from {self.source}: {len(self.used)} tensors loaded"
        if self.dropped:
            text += f"; left out, of other classes or another task: {_some(self.dropped)}"
        if self.adapted:
            text += f"; {self.adapted}"
        return text + (f"; fresh: {_some(self.missing)}" if self.missing else "")

    @property
    def adapted(self) -> str | None:
        """What became of a first layer for other channels than the model's, in some words."""
        for key, (old, new) in self.resized.items():
            if key.endswith(FIRST_LAYER):
                channels = "channel" if new[1] == 1 else "channels"
                return f"first layer adapted from {old[1]} to {new[1]} input {channels}: {_how_adapted(old[1], new[1])}"
        return None

    def __str__(self) -> str:
        inside = f" inside {' > '.join(self.wrapping)}" if self.wrapping else ""
        lines = [
            f"{self.source}: {self.layout} layout{inside}",
            f"  used {len(self.used)} ({len(self.converted)} source keys renamed)",
        ]
        for key, (old, new) in self.resized.items():
            lines.append(f"  resized {key}: {old} -> {new}")
        for name in ("dropped", "missing", "unexpected"):
            if keys := getattr(self, name):
                lines.append(f"  {name} {len(keys)}: {_some(keys)}")
        return "\n".join(lines)


def _how_adapted(channels: int, in_chans: int) -> str:
    if in_chans == 1:
        return "their sum"
    kept = f"the first {in_chans}" if in_chans < channels else "repeated"
    return f"{kept}, times {channels}/{in_chans}"


def _some(keys: Any, limit: int = 6) -> str:
    keys = list(keys)
    return ", ".join(keys[:limit]) + (f", ... ({len(keys) - limit} more)" if len(keys) > limit else "")


# ------------------------------------------------------------ tables


def resize_relative_table(table: Tensor, rows: int) -> Tensor:
    """Relative position biases of a square grid for another one, bicubic.

    Args:
        table: ((2 H - 1)^2, N).
        rows: (2 H' - 1)^2.

    Returns:
        (rows, N).
    """
    old, new = isqrt(table.shape[0]), isqrt(rows)
    if old * old != table.shape[0] or new * new != rows:
        raise ValueError(f"A relative position table needs a square number of rows, got {table.shape[0]} and {rows}")
    square = table.T.reshape(1, -1, old, old).float()
    resized = F.interpolate(square, size=(new, new), mode="bicubic", align_corners=False)
    return resized.reshape(-1, rows).T.to(table.dtype)


def resize_pos_embed(table: Tensor, rows: int, *, class_row: bool) -> Tensor:
    """Absolute position embeddings of a square grid for another one, bilinear; a class token's row 0 is kept.

    Args:
        table: (1, H * W, C), or (1, 1 + H * W, C) with `class_row`.
        rows: H' * W', or 1 + H' * W'.

    Returns:
        (1, rows, C).
    """
    first, grid = table[:, : int(class_row)], table[:, int(class_row) :]
    old, new = isqrt(grid.shape[1]), isqrt(rows - int(class_row))
    if old * old != grid.shape[1] or new * new != rows - int(class_row):
        raise ValueError(f"A position table needs a square grid, got {table.shape[1]} and {rows} rows")
    square = grid.reshape(1, old, old, -1).permute(0, 3, 1, 2).float()
    resized = F.interpolate(square, size=(new, new), mode="bilinear", align_corners=False)
    return torch.cat([first, resized.flatten(2).transpose(1, 2).to(table.dtype)], 1)


def _resized(key: str, value: Tensor, shape: Shape) -> Tensor | None:
    """The tensor in the wanted shape if it is a position table of another size or the first layer, else None."""
    if value.ndim != len(shape):
        return None
    if key.endswith("relative_position_bias_table") and value.shape[1] == shape[1]:
        return resize_relative_table(value, shape[0])
    if key.endswith(FIRST_LAYER) and value.shape[:1] + value.shape[2:] == (shape[0], *shape[2:]) and value.shape[1]:
        return other_channels(value, shape[1])
    if ".positions." in key and value.shape[2] == shape[2]:
        return resize_pos_embed(value, shape[1], class_row=key.endswith(".3.table"))
    return None


def other_channels(weight: Tensor, in_chans: int) -> Tensor:
    """A first layer for images of other channels, as timm's `adapt_input_conv` makes it from 1.0.31 on.

    One channel gets the sum, so that grey images count as RGB ones of three equal channels do. Else channels are
    repeated in their order, or the last left out, and scaled by the ratio of the numbers: from one channel to three, an
    image of three equal channels gives what its grey image gave.

    Args:
        weight: (O, I, h, w).

    Returns:
        (O, in_chans, h, w).
    """
    channels = weight.shape[1]
    if in_chans == 1:
        return weight.float().sum(dim=1, keepdim=True).to(weight.dtype)
    repeated = weight.float().repeat(1, -(-in_chans // channels), 1, 1)[:, :in_chans]
    return (repeated * (channels / in_chans)).to(weight.dtype)


# ---------------------------------------------------------------- load


def load_weights(
    model: nn.Module,
    source: Pathlike | Mapping[str, Any],
    *,
    drop_head: bool = False,
    ema: bool = False,
    strict: bool = True,
) -> LoadReport:
    """Loads a checkpoint into a model or a backbone.

    A first layer for another number of input channels is adapted as timm does it (`LoadReport.adapted`).

    Args:
        model: a model of `create_model` or a backbone of `create_backbone`.
        source: `.pth` or `.safetensors` file, or its contents: official or ours, in any wrapping. A classifier or
            backbone checkpoint fits a dense model, and a whole model's checkpoint fits a backbone.
        drop_head: leave out tensors of the classes whose shape differs (another number of classes), and of another
            system (Mask R-CNN's for a RetinaNet) all but the backbone; the model's own keep their initialisation.
            Without it they raise, as all others do.
        ema: take the moving average where the checkpoint holds both.
        strict: raise when a tensor is missing or unknown. What `LoadReport.dropped` and `missing` list under
            strict=True was left out on purpose.

    Returns:
        What was used, resized, dropped and left at its initialisation.

    Raises:
        ValueError: the checkpoint is damaged, malicious, or of another model (`MisfitError`); the model is as it was.
    """
    name = "state dict" if isinstance(source, Mapping) else str(source)
    state = read_state_dict(source, ema=ema)
    found = layouts.to_ours(state.tensors)
    whole = isinstance(getattr(model, "backbone", None), nn.Module)
    target = {key if whole else f"backbone.{key}": value for key, value in model.state_dict().items()}

    fit = _fit(found.state, target, drop_head=drop_head)
    source_keys = {ours: key for key, ours in found.origin.items()}
    unexpected = [*found.unexpected, *(source_keys[key] for key in fit.unknown)]
    if fit.misfits or (strict and (fit.wanting or unexpected)):
        raise _misfit(name, found, target, fit, unexpected)

    def own(key: str) -> str:
        return key if whole else key.removeprefix("backbone.")

    model.load_state_dict({own(key): value for key, value in fit.tensors.items()}, strict=False)
    return LoadReport(
        source=name,
        layout=found.layout,
        wrapping=state.wrapping,
        used=tuple(own(key) for key in fit.tensors),
        converted={key: own(ours) for key, ours in found.origin.items() if ours in fit.tensors and key != own(ours)},
        resized={own(key): shapes for key, shapes in fit.resized.items()},
        dropped=(*state.dropped, *found.dropped, *(source_keys[key] for key in fit.dropped)),
        missing=tuple(own(key) for key in (*fit.fresh, *fit.wanting)),
        unexpected=tuple(unexpected),
    )


def load_and_tell(model: nn.Module, source: Pathlike | Mapping[str, Any], *, drop_head: bool = False) -> LoadReport:
    """`load_weights` for callers that show no report: where the first layer is of other channels, a warning says so."""
    report = load_weights(model, source, drop_head=drop_head)
    if report.adapted:
        warnings.warn(f"{report.source}: {report.adapted}", stacklevel=3)
    return report


@dataclass
class _Fit:
    """A checkpoint against a model, both under the keys of a whole model."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    resized: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)
    misfits: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)  # of another shape
    dropped: list[str] = field(default_factory=list)  # the model has no place for them, as it should be
    unknown: list[str] = field(default_factory=list)  # the model has no place for them
    fresh: list[str] = field(default_factory=list)  # not in the file, as it should be
    wanting: list[str] = field(default_factory=list)  # not in the file


def _kind(keys: Mapping[str, Any]) -> str:
    heads = [key for key in keys if not key.startswith("backbone.")]
    if not heads:
        return "backbone"
    if any(key.startswith(layouts.OURS_MMSEG) for key in heads):  # SegFormer has nothing but its `head.`
        return "dense"
    dense = any(key.startswith((*layouts.OURS_MMSEG, *layouts.OURS_MMDET)) for key in heads)
    return "classifier" if not dense and all(key.startswith(layouts.LVT_HEAD) for key in heads) else "dense"


def _parts_of_the_head(keys: Mapping[str, Any]) -> set[str]:
    """What tells systems apart: `rpn.conv`, `head.cls_logits`."""
    return {".".join(key.split(".")[:2]) for key in keys if not key.startswith("backbone.")}


def _fit(found: Mapping[str, Tensor], target: Mapping[str, Tensor], *, drop_head: bool) -> _Fit:
    """Takes from a checkpoint what a model has."""
    source_kind, target_kind = _kind(found), _kind(target)
    other_system = source_kind == target_kind == "dense" and _parts_of_the_head(found) != _parts_of_the_head(target)
    # A head may go when the model has none, or another task's while the checkpoint is a classifier, or where it may.
    head_may_go = target_kind == "backbone" or (source_kind == "classifier" and target_kind == "dense")
    head_may_go |= drop_head and other_system
    head_may_stay_fresh = source_kind == "backbone" or head_may_go
    # The class token belongs to the classifier, the output norms to the dense task.
    flavour_may_differ = source_kind != target_kind or source_kind == "backbone" or (drop_head and other_system)
    headless = target_kind == "classifier" and "head.weight" not in target  # num_classes=0

    def of_the_head(key: str) -> bool:
        return not key.startswith("backbone.")

    def of_the_flavour(key: str) -> bool:
        return flavour_may_differ and key.startswith(("backbone.cls_token", "backbone.out_norms."))

    fit = _Fit()
    for key, value in found.items():
        if of_the_head(key) and (head_may_go or (headless and key.startswith(("head.", "aux_head.")))):
            fit.dropped.append(key)
        elif key not in target:
            (fit.dropped if of_the_flavour(key) else fit.unknown).append(key)
        elif value.shape == target[key].shape:
            fit.tensors[key] = value
        else:
            shapes = tuple(value.shape), tuple(target[key].shape)
            if (resized := _resized(key, value, shapes[1])) is not None:
                fit.tensors[key] = resized
                fit.resized[key] = shapes
            elif drop_head and OF_THE_CLASSES.fullmatch(key):
                fit.dropped.append(key)
            else:
                fit.misfits[key] = shapes
    for key in target:
        if key not in fit.tensors and key not in fit.misfits:
            expected = of_the_flavour(key) or (of_the_head(key) and (head_may_stay_fresh or key in fit.dropped))
            (fit.fresh if expected else fit.wanting).append(key)
    return fit


class MisfitError(ValueError):
    """A checkpoint that is not of the model. The command line says the advice in its own options.

    Attributes:
        what: the message without advice.
        options: that would give the model the checkpoint's classes, where nothing else differs: `num_classes`, ...
        other_system: of two dense models that share no more than a backbone.
        fits: names of backbones that the checkpoint fits.
    """

    def __init__(
        self, what: str, *, options: Mapping[str, int] | None = None, other_system: bool = False, fits: Any = ()
    ):
        self.what, self.options, self.other_system, self.fits = what, dict(options or {}), other_system, tuple(fits)
        advice = []
        if options is not None:
            same = ", ".join(f"{name}={value}" for name, value in options.items()) or "the file's number of classes"
            advice.append(
                f"Create the model with {same}, or keep a fresh head: litevit.load_weights(model, source, "
                "drop_head=True)."
            )
        if other_system:
            advice.append("To take its backbone alone: load_weights(model.backbone, ...).")
        if fits:
            advice.append(f"Its backbone fits {', '.join(fits)}.")
        super().__init__(" ".join([what, *advice]))


def _misfit(name: str, found: Converted, target: Mapping[str, Tensor], fit: _Fit, unexpected: list[str]) -> MisfitError:
    misfits, missing = fit.misfits, fit.wanting
    heads = {key: shapes for key, shapes in misfits.items() if OF_THE_CLASSES.fullmatch(key)}
    if heads and len(heads) == len(misfits) and not missing and not unexpected:
        key, (theirs, ours) = next(iter(heads.items()))
        what = f"the head is for another number of classes ({key} is {theirs} in the file, {ours} in the model)."
        return MisfitError(f"{name}: {what}", options=class_counts_of(found.state))
    parts = []
    if misfits:
        key, (theirs, ours) = next(iter(misfits.items()))
        parts.append(
            f"{len(misfits)} tensors of another shape (first: {key}, {theirs} in the file, {ours} in the model)"
        )
    if missing:
        parts.append(f"{len(missing)} missing ({_some(missing, 3)})")
    if unexpected:
        parts.append(f"{len(unexpected)} unexpected ({_some(unexpected, 3)})")
    return MisfitError(
        f"{name} ({found.layout} layout) is not a checkpoint of this model: {'; '.join(parts)}.",
        other_system=_kind(found.state) == "dense" and _kind(target) != "backbone",
        fits=models_that_fit(found.state),
    )


def backbones_of(path: Pathlike) -> list[str]:
    """Names of the backbones that a checkpoint may be of."""
    return models_that_fit(layouts.to_ours(read_state_dict(weights_file(path)).tensors).state)


def models_that_fit(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the backbones whose tensors have these names and shapes (keys of a whole model)."""
    tables = ("relative_position_bias_table", "cls_token")
    skip = ("backbone.out_norms.", "backbone.positions.")

    def shape(key: str, value: Tensor) -> Shape:
        return tuple(value.shape[:1] + value.shape[2:] if key.endswith(FIRST_LAYER) else value.shape)  # any channels

    def signature(state: Mapping[str, Tensor]) -> dict[str, Shape]:
        return {
            key: shape(key, value)
            for key, value in state.items()
            if key.startswith("backbone.") and not key.startswith(skip) and not key.endswith(tables)
        }

    blocks = {match[0] for key in tensors if (match := re.match(r"backbone\.stages\.(\d+)\.blocks\.\d+", key))}
    depths = tuple(sum(block.startswith(f"backbone.stages.{i}.") for block in blocks) for i in range(4))
    wanted = signature(tensors)
    fits = []
    for name, config in zoo.BACKBONES.items():
        if tuple(config.depths) != depths:
            continue  # building takes a while
        with torch.device("meta"):
            backbone = zoo.create_backbone(name)
        if signature({f"backbone.{key}": value for key, value in backbone.state_dict().items()}) == wanted:
            fits.append(name)
    return fits


def load_exactly(model: nn.Module, state: Mapping[str, Tensor], path: Pathlike) -> None:
    """A model's own tensors under its own names. Raises ValueError where they are not."""
    try:
        model.load_state_dict(dict(state))
    except RuntimeError as error:
        said = [line.strip() for line in str(error).splitlines()[1:]]
        raise ValueError(
            f"{path} does not hold the weights of {type(model).__name__}: {'; '.join(said)[:300]}"
        ) from None
