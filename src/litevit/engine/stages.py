"""A backbone by its depth: stages that stay as they are, and learning rates that fall towards the image."""

import re
from collections.abc import Sequence
from typing import Any

from torch import nn

OF_A_STAGE = re.compile(r"(?:embeds|stages|positions|stage_norms)\.(\d+)\.")
OF_A_BLOCK = re.compile(r"stages\.(\d+)\.blocks\.(\d+)\.")
AFTER_THE_STAGES = ("norm.", "class_blocks.", "cls_token")  # of a classifier: frozen with its last stage


def stage_depths(model: nn.Module, option: str) -> list[int]:
    """Blocks of every stage of the model's backbone.

    Args:
        option: what asks for them, for the message.
    """
    stages = getattr(getattr(model, "backbone", None), "stages", None)
    if stages is None:
        raise ValueError(f"{option} needs a model with a backbone of ours, whose stages are known: leave it out")
    return [len(stage.blocks) for stage in stages]


def stage_of(name: str, stages: int) -> int | None:
    """The stage, from 0, of a parameter or module of a model; None: of the head, the pyramid, or its input norms."""
    inside = name.removeprefix("backbone.")
    if name != inside:
        if inside.startswith("out_norms."):
            return None
        found = OF_A_STAGE.match(inside)
        return int(found[1]) if found else stages - 1
    return stages - 1 if name.startswith(AFTER_THE_STAGES) else None


def freeze_stages(model: nn.Module, count: int | None) -> tuple[list[nn.Module], str]:
    """Takes the first stages out of training, with their embeddings.

    Args:
        count: of stages; all of them leave the head, and a dense model's pyramid.

    Returns:
        The frozen modules, which `nn.Module.train` must not reach, and one line about it; ([], ""): nothing is frozen.

    Raises:
        ValueError: more stages than the model has.
    """
    if not count:
        return [], ""
    stages = len(stage_depths(model, f"optim.freeze {count}"))
    if count > stages:
        raise ValueError(f"optim.freeze is {count}, but the model has {stages} stages: give 0 to {stages}")

    def frozen(name: str) -> bool:
        stage = stage_of(name, stages)
        return stage is not None and stage < count

    for name, parameter in model.named_parameters():
        if frozen(name):
            parameter.requires_grad_(False)
    # A module's own name lacks the dot that ends a prefix; containers of all stages are of none.
    modules = [m for name, m in model.named_modules() if re.search(r"\d", name) and frozen(f"{name}.")]
    if count == stages:
        modules.append(model.backbone)  # type: ignore[arg-type]
    every = sum(parameter.numel() for parameter in model.parameters())
    left = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    which = "stage 1 is" if count == 1 else f"stages 1 to {count} are"
    return modules, f"{which} frozen, embeddings and statistics included: {left:,} of {every:,} parameters train"


def decay_by_layer(model: nn.Module, groups: Sequence[dict[str, Any]], decay: float | None) -> list[dict[str, Any]]:
    """The groups, each split by depth: `lr_scale` multiplies the rate of every step.

    BEiT's rule, as timm has it: the first embedding is layer 0, the blocks are layers 1 to B from the image on, the
    other embeddings belong to the block that follows them, and head, pyramid and last norms are layer B + 1, which
    trains at the full rate. Layer i gets decay ** (B + 1 - i).

    Args:
        decay: None leaves the groups as they are.
    """
    if decay is None:
        return list(groups)
    depths = stage_depths(model, f"optim.layer_decay {decay}")
    last = sum(depths) + 1

    def layer(name: str) -> int:
        inside = name.removeprefix("backbone.")
        found = OF_A_STAGE.match(inside) if name != inside else None
        if found is None:
            return 0 if inside.startswith("cls_token") else last
        stage = int(found[1])
        if block := OF_A_BLOCK.match(inside):
            return sum(depths[:stage]) + int(block[2]) + 1
        before = inside.startswith(("embeds.", "positions."))
        if before:
            return sum(depths[:stage]) + 1 if stage else 0
        return sum(depths[: stage + 1])  # a stage's closing norm

    layers = {id(parameter): layer(name) for name, parameter in model.named_parameters()}
    split = []
    for group in groups:
        members: dict[int, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            members.setdefault(layers[id(parameter)], []).append(parameter)
        for i in sorted(members):
            name = f"{group['name']}, layer {i}"
            split.append({**group, "name": name, "params": members[i], "lr_scale": decay ** (last - i)})
    return split
