"""A sheet of what a classifier gets wrong, or barely right."""

from pathlib import Path

import torch

from litevit.explain.draw.look import Images, Look
from litevit.explain.errors import sheet
from litevit.explain.figures import Paper, Style, errors_figure, save

# Pictures per row, and letters of a name, that stay apart.
ROOM: dict[Paper | None, tuple[int, int]] = {None: (8, 16), "double": (8, 10), "single": (3, 10)}


def draw_errors(look: Look, images: Images, folder: Path, out: Path, *, style: Style | None = None) -> list[Path]:
    """The surest mistakes, the least certain hits, examples of the worst classes.

    Args:
        images: of `folder`.
        folder: one folder per class.
    """
    style = style or Style()
    if look.task != "classification":
        raise ValueError("errors takes a classifier and a folder with one folder per class")
    if not folder.is_dir():
        raise ValueError(f"errors takes one folder with one folder per class, got {folder}")
    folders = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    order = list(look.classes or folders)
    if unknown := [name for name in folders if name not in order]:
        known = ", ".join(order[:10]) + (", ..." if len(order) > 10 else "")
        raise ValueError(f"{folder}: the weights know no class {unknown[0]!r}; they know {known}")
    labels, probabilities, used = [], [], []
    with torch.no_grad():
        for _, path in images:
            label = path.relative_to(folder).parts[0]
            if label not in order:
                raise ValueError(f"{path} lies in no class's folder")
            p = look.model(look.see(path).batch)[0].float().softmax(-1).cpu()
            if len(order) != len(p):
                raise ValueError(f"{folder} has {len(order)} classes, the model {len(p)}")
            used.append(path)
            labels.append(order.index(label))
            probabilities.append(p)
    names = look.names if look.classes is None and len(look.names) == len(order) else order
    columns, letters = ROOM[style.paper]
    rows, arrays = sheet(torch.stack(probabilities), torch.tensor(labels), names, columns=columns, letters=letters)
    drawn = [(title, [(look.see(used[i]).picture, text) for i, text in items]) for title, items in rows]
    arrays["files"] = [str(path) for path in used]
    return save(errors_figure(drawn, paper=style.paper), out / f"{folder.resolve().name}-errors", arrays, style)
