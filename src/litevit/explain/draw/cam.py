"""Pictures of what a class, or a box, was decided by."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from litevit.explain.cam import Method, Score, box_score, class_activation, class_score, region_score
from litevit.explain.draw.look import Images, Look, Seen
from litevit.explain.figures import Style, cam_figure, save

METHODS: dict[Method, str] = {"gradcam": "Grad-CAM", "layercam": "Layer-CAM"}


class Decision(NamedTuple):
    """What is to be explained."""

    label: int
    name: str
    score: Score
    box: Tensor | None = None  # (4,) xyxy in pixels of the batch


def draw_cam(
    look: Look,
    images: Images,
    out: Path,
    *,
    label: int | None = None,
    box: int | None = None,
    method: Method | None = None,
    stage: int | None = None,
    style: Style | None = None,
) -> list[Path]:
    """Why this class; of detectors and panoptic models, why this box, or why this ground.

    Args:
        label: class; None takes the one the model finds. Panoptic: a thing's for its box, stuff's for its region.
        box: which of the boxes found (of `label`, if given), the surest first; None takes that one.
        method, stage: None: Grad-CAM of stage 4; of a box Layer-CAM of stage 3, because boxes are decided on finer
            maps, where Grad-CAM's mean over the whole picture says little.
    """
    style = style or Style()
    written = []
    for name, path in images:
        seen = look.see(path)
        with torch.no_grad():
            why = _decision(look, seen, path, label, box)
        if why.box is None and box is not None:
            raise ValueError("--box chooses among the boxes of a detector; this is decided without one")
        how = method or ("gradcam" if why.box is None else "layercam")
        where = stage if stage is not None else 4 if why.box is None else 3
        heat = class_activation(look.model, seen.batch, why.score, method=how, stage=where).numpy()
        title = f"{METHODS[how]}, stage {where}: {why.name}" + ("" if heat.any() else "\nnothing here speaks for it")
        corners = None if why.box is None else why.box.tolist()
        figure = cam_figure(seen.picture, heat, title, box=corners, paper=style.paper)
        arrays = {"activation": heat, "label": why.label}
        which = f"class-{why.label}"
        if why.box is not None:
            arrays["box"] = why.box.cpu().numpy()
            which += f"-box-{box or 0}"
        written += save(figure, out / f"{name}-{how}-stage-{where}-{which}", arrays, style)
    return written


def _decision(look: Look, seen: Seen, path: Path, label: int | None, box: int | None) -> Decision:
    model: Any = look.model
    if look.task == "classification":
        logits = model(seen.batch)[0]
        k = int(logits.argmax()) if label is None else label
        return Decision(k, _name(look.names, k, len(logits)), class_score(k))
    if seen.pixels is None or look.task == "semantic segmentation":
        logits = model.forward_raw(seen.batch)["logits"][0]
        k = int(torch.bincount(logits.argmax(0).flatten()).argmax()) if label is None else label
        return Decision(k, _name(look.names, k, len(logits)), region_score(k))
    if look.task == "panoptic segmentation" and label is not None and label >= model.config.num_things:  # no box has it
        return Decision(label, _name(look.names, label, len(look.names)), region_score(label - model.config.num_things))
    (found,) = model([seen.pixels.to(seen.batch.device)])
    objects = found.get("instances", found)
    of_class = "" if label is None else f" of class {label}"
    mine = [i for i, k in enumerate(objects["labels"].tolist()) if label in (None, k)]
    mine.sort(key=lambda i: -float(objects["scores"][i]))
    if not mine:
        grounds = ""
        if look.task == "panoptic segmentation":
            grounds = f"; --label {model.config.num_things} to {len(look.names) - 1} explains a ground"
        raise ValueError(f"{path}: the model finds no box{of_class}, so there is none to explain{grounds}")
    if box is not None and not 0 <= box < len(mine):
        have = f"{len(mine)} boxes{of_class}, 0 to {len(mine) - 1}" if len(mine) > 1 else f"one box{of_class}, 0"
        raise ValueError(f"{path}: the model finds {have}; there is no --box {box}")
    chosen = mine[box or 0]
    x, y = seen.scale
    corners = objects["boxes"][chosen] * torch.tensor([x, y, x, y], device=seen.batch.device)
    k = int(objects["labels"][chosen])
    chance = float(objects["scores"][chosen])
    return Decision(k, f"{_name(look.names, k, len(look.names))} {100 * chance:.0f} %", box_score(corners, k), corners)


def _name(names: Sequence[str], label: int, count: int) -> str:
    if not 0 <= label < count:
        raise ValueError(f"--label must be 0 to {count - 1}, got {label}")
    return names[label] if len(names) == count else f"class {label}"
