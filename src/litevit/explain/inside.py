"""Running a model so that what happens inside is seen and nothing of it changes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class _Seen(Exception):  # noqa: N818
    """No error: ends a forward whose rest nobody needs."""


def backbone_of(model: nn.Module) -> nn.Module:
    """The backbone of any model of litevit, or the model itself if it is one."""
    backbone = getattr(model, "backbone", model)
    if not isinstance(backbone, nn.Module) or not all(hasattr(backbone, name) for name in ("stages", "embeds")):
        raise ValueError(
            f"litevit.explain looks into litevit's backbones and models, got {type(model).__name__}; "
            "litevit.create_model makes one"
        )
    return backbone


def as_batch(image: Tensor) -> Tensor:
    """One normalised image, (3, H, W) or (1, 3, H, W), as a batch of one."""
    batch = image[None] if image.dim() == 3 else image
    if batch.dim() != 4 or batch.shape[0] != 1 or not batch.is_floating_point():
        raise ValueError(
            f"explain takes one normalised image, floats (3, H, W) or (1, 3, H, W), got {tuple(image.shape)} "
            f"of {image.dtype}"
        )
    return batch


def block_of(model: nn.Module, stage: int, block: int) -> nn.Module:
    """Args: stage: 1-4, as the papers count. block: from 0, as state-dict names count."""
    stages: Any = backbone_of(model).stages
    if not 1 <= stage <= len(stages):
        raise ValueError(f"stage must be 1 to {len(stages)}, got {stage}")
    blocks = stages[stage - 1].blocks
    if not 0 <= block < len(blocks):
        raise ValueError(f"block must be 0 to {len(blocks) - 1} in stage {stage}, got {block}")
    return blocks[block]


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, every module's own mode after it: BatchNorm's averages stay, drop path rests."""
    modes = {module: module.training for module in model.modules()}
    try:
        for module in modes:
            module.training = False
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def watch(
    model: nn.Module,
    image: Tensor,
    *,
    before: dict[nn.Module, Callable[..., None]] | None = None,
    after: dict[nn.Module, Callable[..., None]] | None = None,
    until: nn.Module | None = None,
) -> None:
    """Runs the backbone with hooks that only look, and takes them off again.

    Args:
        model: any model of litevit; it runs in evaluation mode.
        image: one normalised image.
        before: module -> function of its inputs, called as the module is about to run.
        after: module -> function of its output.
        until: the last module of interest: the forward ends as it would run (in `before`) or has run (in `after`).
    """
    backbone = backbone_of(model)
    seen: set[nn.Module] = set()
    handles = []

    def look_before(module: nn.Module, args: tuple, kwargs: dict) -> None:
        (before or {})[module](*args, **kwargs)
        seen.add(module)
        if module is until and module not in (after or {}):
            raise _Seen

    def look_after(module: nn.Module, args: tuple, out: Any) -> None:
        (after or {})[module](out)
        seen.add(module)
        if module is until:
            raise _Seen

    parameter = next(backbone.parameters())
    batch = as_batch(image).to(parameter.device, parameter.dtype)
    try:
        for module in before or {}:
            handles.append(module.register_forward_pre_hook(look_before, with_kwargs=True))
        for module in after or {}:
            handles.append(module.register_forward_hook(look_after))
        with torch.no_grad(), evaluation(backbone):
            backbone(batch)
    except _Seen:
        pass
    finally:
        for handle in handles:
            handle.remove()
    missed = [module for module in (*(before or {}), *(after or {})) if module not in seen]
    if missed:
        raise ValueError(
            f"{type(missed[0]).__name__} was computed without being called, so there was nothing to see: a compiled "
            "or changed model. Look into the plain one, as litevit.create_model gives it"
        )
