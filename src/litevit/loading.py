"""`load_weights`: any published or own checkpoint into a model, strictly, with an account of every tensor.

A checkpoint is first brought to one form: litevit's keys of a whole model, `backbone.*` and the task's own. Then it is
fitted to the model: a backbone is taken out of a classifier, a head is left at its initialisation, tables of another
size are resized, and whatever does not fit raises before the model is touched.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isqrt
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litevit.checkpoints import Pathlike, read_state_dict
from litevit.convert import lit

Shape = tuple[int, ...]


@dataclass(kw_only=True)
class LoadReport:
    """What became of every tensor of a checkpoint (source keys) and of the model (our keys)."""

    source: str
    layout: str  # "litevit", "official LIT", ...
    wrapping: tuple[str, ...] = ()  # taken off around the tensors, outermost first
    used: tuple[str, ...] = ()  # our keys that were set
    converted: int = 0  # how many source tensors came under another name than ours
    resized: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)  # our key -> shape in the file, in the model
    dropped: tuple[str, ...] = ()  # source keys left out on purpose
    missing: tuple[str, ...] = ()  # our keys that stayed at their initialisation
    unexpected: tuple[str, ...] = ()  # source keys nobody knows; only with strict=False

    def __str__(self) -> str:
        inside = f" inside {' > '.join(self.wrapping)}" if self.wrapping else ""
        lines = [f"{self.source}: {self.layout} layout{inside}", f"  used {len(self.used)} ({self.converted} renamed)"]
        for key, (old, new) in self.resized.items():
            lines.append(f"  resized {key}: {old} -> {new}")
        for name in ("dropped", "missing", "unexpected"):
            if keys := getattr(self, name):
                lines.append(f"  {name} {len(keys)}: {_some(keys)}")
        return "\n".join(lines)


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
    """The tensor in the wanted shape if it is a position table of another size, else None."""
    if key.endswith("relative_position_bias_table") and value.ndim == 2 and value.shape[1] == shape[1]:
        return resize_relative_table(value, shape[0])
    if ".pos_embeds." in key and value.ndim == 3 and value.shape[2] == shape[2]:
        return resize_pos_embed(value, shape[1], class_row=key.endswith(".3"))
    return None


# ------------------------------------------------- to litevit's keys


class Canonical(NamedTuple):
    """A checkpoint under litevit's keys of a whole model."""

    layout: str
    tensors: dict[str, Tensor]
    converted: int
    dropped: tuple[str, ...]  # source keys the key maps name as not needed
    unexpected: tuple[str, ...]  # source keys the key maps do not know


OURS = ("stages.", "trunk.", "backbone.stages.", "backbone.trunk.")
CLASSIFIER_HEAD = ("norm.", "head.")


def is_ours(state: Mapping[str, Any]) -> bool:
    """Whether the keys are litevit's."""
    return any(key.startswith(OURS) for key in state)


def canonical(state: Mapping[str, Tensor]) -> Canonical:
    """Brings bare keys of any known layout to litevit's keys of a whole model."""
    if is_ours(state):
        bare = not any(key.startswith("backbone.") for key in state)
        return Canonical("litevit", {f"backbone.{k}" if bare else k: v for k, v in state.items()}, 0, (), ())
    prefix = "backbone." if any(key.startswith("backbone.patch_embed") for key in state) else ""
    if any(key.startswith((prefix + "patch_embed.", prefix + "patch_embed1.")) for key in state):
        inner = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        result = lit.to_ours(inner)
        ours = {k if k.startswith(CLASSIFIER_HEAD) else f"backbone.{k}": v for k, v in result.state.items()}
        beside = tuple(key for key in state if not key.startswith(prefix))
        dropped = tuple(prefix + key for key in result.dropped)
        unexpected = tuple(prefix + key for key in result.unexpected) + beside
        return Canonical("official LIT", ours, len(inner) - len(dropped), dropped, unexpected)
    raise ValueError(
        f"No known layout has these keys: {_some(state)}. LIT, LITv2, PVT, LVT and litevit's own are read."
    )


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

    Args:
        model: a model of `create_model` or a backbone of `create_backbone`.
        source: `.pth` or `.safetensors` file, or its contents: official or ours, in any wrapping. A classifier or
            backbone checkpoint fits a dense model, and a whole model's checkpoint fits a backbone.
        drop_head: leave out head tensors whose shape differs (another number of classes); they keep their
            initialisation. Without it they raise.
        ema: take the moving average where the checkpoint holds both.
        strict: raise when a tensor is missing or unknown. What `LoadReport.dropped` and `missing` list under
            strict=True was left out on purpose.

    Returns:
        What was used, resized, dropped and left at its initialisation.

    Raises:
        ValueError: the checkpoint is damaged, malicious, or of another model; the model is as it was.
    """
    name = "state dict" if isinstance(source, Mapping) else str(source)
    state = read_state_dict(source, ema=ema)
    found = canonical(state.tensors)
    whole = isinstance(getattr(model, "backbone", None), nn.Module)
    target = {key if whole else f"backbone.{key}": value for key, value in model.state_dict().items()}

    report = LoadReport(source=name, layout=found.layout, wrapping=state.wrapping, converted=found.converted)
    fitted, dropped, missing, unknown, misfits = _fit(found.tensors, target, report, drop_head=drop_head)
    unexpected = [*found.unexpected, *unknown]
    if misfits or (strict and (missing.problem or unexpected)):
        raise ValueError(_explain(name, found, target, missing.problem, unexpected, misfits))

    own = fitted if whole else {key.removeprefix("backbone."): value for key, value in fitted.items()}
    model.load_state_dict(own, strict=False)
    report.used = tuple(own)
    report.dropped = (*state.dropped, *found.dropped, *dropped)
    report.missing = tuple(key if whole else key.removeprefix("backbone.") for key in missing.all)
    report.unexpected = tuple(unexpected)
    return report


class Missing(NamedTuple):
    all: list[str]
    problem: list[str]  # those that should have been there


def _kind(keys: Mapping[str, Any]) -> str:
    heads = [key for key in keys if not key.startswith("backbone.")]
    if not heads:
        return "backbone"
    return "classifier" if all(key.startswith(CLASSIFIER_HEAD) for key in heads) else "dense"


def _fit(
    found: Mapping[str, Tensor], target: Mapping[str, Tensor], report: LoadReport, *, drop_head: bool
) -> tuple[dict[str, Tensor], list[str], Missing, list[str], dict[str, tuple[Shape, Shape]]]:
    """Takes from a checkpoint what a model has. Both under litevit's keys of a whole model."""
    source_kind, target_kind = _kind(found), _kind(target)
    same_kind = source_kind == target_kind
    # A head may go when the model has none, or has another task's while the checkpoint is a classifier.
    head_may_go = target_kind == "backbone" or (source_kind == "classifier" and target_kind == "dense")
    head_may_stay_fresh = source_kind == "backbone" or head_may_go
    # The class token belongs to the classifier, the output norms to the dense task.
    flavour = ("backbone.cls_token", "backbone.out_norms.")
    flavour_may_differ = not same_kind or source_kind == "backbone"

    fitted: dict[str, Tensor] = {}
    dropped, unknown = [], []
    misfits: dict[str, tuple[Shape, Shape]] = {}
    for key, value in found.items():
        in_head = not key.startswith("backbone.")
        if key not in target:
            no_head = target_kind == "classifier" and key.startswith("head.") and "head.weight" not in target
            if (in_head and (head_may_go or no_head)) or (key.startswith(flavour) and flavour_may_differ):
                dropped.append(key)
            else:
                unknown.append(key)
            continue
        if in_head and head_may_go:
            dropped.append(key)  # another task's head that happens to share a name
            continue
        wanted = tuple(target[key].shape)
        if tuple(value.shape) != wanted:
            resized = _resized(key, value, wanted) if len(wanted) == value.ndim else None
            if resized is not None:
                report.resized[key] = (tuple(value.shape), wanted)
                value = resized
            elif in_head and drop_head:
                dropped.append(key)
                continue
            else:
                misfits[key] = (tuple(value.shape), wanted)
                continue
        fitted[key] = value
    absent = [key for key in target if key not in fitted and key not in misfits]
    problem = [
        key
        for key in absent
        if not (
            (not key.startswith("backbone.") and (head_may_stay_fresh or key in dropped))
            or (key.startswith(flavour) and flavour_may_differ)
        )
    ]
    return fitted, dropped, Missing(absent, problem), unknown, misfits


def _explain(
    name: str,
    found: Canonical,
    target: Mapping[str, Tensor],
    missing: list[str],
    unexpected: list[str],
    misfits: Mapping[str, tuple[Shape, Shape]],
) -> str:
    """One message for a checkpoint that does not fit."""
    heads = {key: shapes for key, shapes in misfits.items() if not key.startswith("backbone.")}
    if heads and len(heads) == len(misfits) and not missing and not unexpected:
        key, (theirs, ours) = next(iter(heads.items()))
        return (
            f"{name}: the head is for another number of classes ({key} is {theirs} in the file, {ours} in the model). "
            "Create the model with the file's num_classes, or pass drop_head=True to keep a fresh head."
        )
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
    advice = ""
    source_kind, target_kind = _kind(found.tensors), _kind(target)
    if source_kind == "dense" and target_kind != "backbone":
        advice = " To take its backbone alone: load_weights(model.backbone, ...)."
    fits = models_that_fit(found.tensors)
    if fits:
        advice += f" Its backbone fits {', '.join(fits)}."
    return f"{name} ({found.layout} layout) is not a checkpoint of this model: {'; '.join(parts)}.{advice}"


def models_that_fit(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the backbones whose tensors have these names and shapes (keys as `canonical` gives them)."""
    from litevit import zoo  # here, because zoo loads through this module

    tables = ("relative_position_bias_table", "cls_token")
    skip = ("backbone.out_norms.", "backbone.pos_embeds.")

    def signature(state: Mapping[str, Tensor]) -> dict[str, Shape]:
        return {
            key: tuple(value.shape)
            for key, value in state.items()
            if key.startswith("backbone.") and not key.startswith(skip) and not key.endswith(tables)
        }

    wanted = signature(tensors)
    fits = []
    for name in zoo.BACKBONES:
        with torch.device("meta"):
            backbone = zoo.create_backbone(name)
        if signature({f"backbone.{key}": value for key, value in backbone.state_dict().items()}) == wanted:
            fits.append(name)
    return fits
