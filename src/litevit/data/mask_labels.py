"""What the values of a mask mean: one rule for training, evaluation and the doctor.

A mask is a PNG of class indices (grey or palette; of a palette the indices count), or a colour picture with a
`labelmap.txt` that gives every class its colour. `data.reduce_zero_label` and `data.ignore_index` say, in the field's
words, which value is no class:

* `reduce_zero_label` True (ADE20K): 0 is ignored, 1..K are the classes. False: 0..K-1 are the classes.
* `ignore_index` (255): pixels of this value count for nothing; -1: there is none.
* A class list that numbers its classes itself (`classes.json` as {"0": "ground", "255": "road"}, Roboflow's
  `_classes.csv`) decides without either; what it does not name and neither ignores is refused.

Left to itself (None), `reduce_zero_label` is True for ADE20K's layout and lists, else False. `check_values` stops a
setting that the masks contradict, before it costs a training.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from litevit.data.config import IGNORE as IGNORE
from litevit.data.images import open_stored
from litevit.files import parse_json, read_text

MAX_VALUE = 65_535
Colour = tuple[int, int, int]
ZERO, VOID = "--data.reduce_zero_label", "--data.ignore_index"
BORDER = 0xE0E0C0  # VOC's, between objects
STRIP = 2**20  # pixels
MOST_LOOKED_AT, MOST_SHOWN = 20, 12  # masks and values, to say what a class list could be


@dataclass(frozen=True)
class MaskLabels:
    """Names of the classes 0..K-1, and what stands for each of them in the files."""

    names: tuple[str, ...]
    values: tuple[int, ...]  # of the classes in the files
    ignore_index: int = IGNORE
    reduce_zero_label: bool = False  # 0 is ignored
    numbered: bool = False  # the class list gives the values
    colours: tuple[Colour, ...] = ()  # of colour masks

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= IGNORE:
            raise ValueError(f"classes needs 1 to {IGNORE} names, got {len(self.names)}")
        if self.ignore_index != IGNORE and self.ignore_index in self.values:
            name = self.names[self.values.index(self.ignore_index)]
            raise ValueError(
                f"{VOID} {self.ignore_index} would ignore the class {name!r}, whose value it is: leave it out of the "
                "class list, which may give the values itself (classes.json), or ignore another value"
            )

    @property
    def ignored(self) -> set[int]:
        """Values that count for nothing. A class whose value is 255 comes before the default."""
        zero = {0} if self.reduce_zero_label else set()
        return ({self.ignore_index} | zero) - set(self.values) - {-1}

    def read(self, path: str | Path) -> np.ndarray:
        """Returns: (H, W) int16, classes 0..K-1 and 255."""
        indices = read_index_mask(path, self.colours)
        table = np.full(max(int(indices.max(initial=0)), *self.values, *self.ignored, 0) + 1, -1, dtype=np.int16)
        table[list(self.ignored)] = IGNORE
        table[list(self.values)] = np.arange(len(self.values))
        labels = table[indices]
        if (labels < 0).any():
            value = int(indices[labels < 0].max())
            raise ValueError(
                f"mask {path} has the value {value}; {len(self.names)} classes allow {self.allowed()}."
                f"{_fits(self, {value})}"
            )
        return labels

    def to_values(self, labels: Tensor) -> Tensor:
        """Classes 0..K-1 as the files have them."""
        return torch.tensor(self.values, device=labels.device)[labels]

    def allowed(self) -> str:
        low, high = self.values[0], self.values[-1]
        run = f"{low}..{high}" if self.values == tuple(range(low, high + 1)) else ", ".join(map(str, self.values[:20]))
        ignored = sorted(self.ignored)
        return run + (f" and {', '.join(map(str, ignored))} (ignored)" if ignored else "")


def read_index_mask(path: str | Path, colours: Sequence[Colour] = ()) -> np.ndarray:
    """Returns: (H, W) indices, uint8 or int32. A palette PNG gives its indices, not its colours.

    Args:
        colours: of the classes: a colour picture becomes their numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"mask {path} does not exist")
    with open_stored(path, "mask") as file:
        mode, pixels = file.mode, np.array(file)
        if colours and mode in ("RGB", "RGBA", "P"):
            pixels = np.array(file.convert("RGB"))
    if colours and mode in ("RGB", "RGBA", "P"):
        return _by_colour(path, pixels, colours)
    if mode in ("RGB", "RGBA") and _is_grey(pixels):
        return pixels[..., 0]
    if mode not in ("L", "P", "I", "I;16", "1"):
        raise ValueError(
            f"mask {path} is a colour picture (mode {mode}); a PNG of class indices (mode L or P) is needed, or a "
            "labelmap.txt with a line 'name:red,green,blue' per class beside the folders"
        )
    if pixels.size and not 0 <= pixels.min() <= pixels.max() <= MAX_VALUE:
        raise ValueError(
            f"mask {path} has values from {pixels.min()} to {pixels.max()}; 0 to {MAX_VALUE} can be classes"
        )
    return pixels.astype(np.uint8 if mode in ("L", "P", "1") else np.int32, copy=False)


def _is_grey(pixels: np.ndarray) -> bool:
    return bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all())


def _by_colour(path: Path, pixels: np.ndarray, colours: Sequence[Colour]) -> np.ndarray:
    """In strips of rows: what is made on the way takes many times the bytes of the picture."""
    known = np.array([r << 16 | g << 8 | b for r, g, b in colours], dtype=np.int32)
    order = np.argsort(known)
    known = known[order]
    indices = np.empty(pixels.shape[:2], dtype=np.int32)
    rows = max(1, STRIP // max(1, pixels.shape[1]))
    for top in range(0, len(pixels), rows):
        strip = pixels[top : top + rows].astype(np.int32)
        codes = strip[..., 0] << 16 | strip[..., 1] << 8 | strip[..., 2]
        place = np.minimum(np.searchsorted(known, codes), len(known) - 1)
        strange = known[place] != codes
        border = codes == BORDER
        if (strange & ~border).any():
            code = int(codes[strange & ~border][0])
            raise ValueError(
                f"mask {path} has the colour {code >> 16},{code >> 8 & 255},{code & 255}, which the labelmap does not "
                "list"
            )
        indices[top : top + rows] = np.where(strange & border, IGNORE, order[place])
    return indices


# -------------------------------------------------------------- class lists


def read_labels(
    path: str | Path, *, reduce_zero_label: bool | None = None, ignore_index: int = IGNORE, ade: bool = False
) -> MaskLabels:
    """The labels of a class list: `classes.json`, `objectInfo150.txt`, `labelmap.txt`, `_classes.csv`, names by line.

    Args:
        reduce_zero_label: None: as the list or the layout has it.
        ade: the data are in ADE20K's layout.
    """
    path = Path(path)
    names, values, colours, from_one = _read_list(path)
    if not 1 <= len(names) <= IGNORE:
        raise ValueError(f"class list {path} has {len(names)} names, 1 to {IGNORE} are possible")
    if values is not None:
        if reduce_zero_label and 0 in values:
            raise ValueError(f"{path} calls 0 {names[0]!r}, and {ZERO} True ignores it: one of both has to go")
        zero = 0 not in values and reduce_zero_label is not False
        return MaskLabels(names, values, ignore_index, zero, numbered=True, colours=colours)
    reduce = reduce_zero_label if reduce_zero_label is not None else not colours and (from_one or ade)
    labels = labels_of(names, reduce_zero_label=reduce, ignore_index=ignore_index)
    return replace(labels, colours=colours)


def labels_of(names: Sequence[str], *, reduce_zero_label: bool = False, ignore_index: int = IGNORE) -> MaskLabels:
    first = int(reduce_zero_label)
    values = tuple(range(first, first + len(names)))
    return MaskLabels(tuple(names), values, ignore_index, reduce_zero_label=bool(reduce_zero_label))


def _read_list(path: Path) -> tuple[tuple[str, ...], tuple[int, ...] | None, tuple[Colour, ...], bool]:
    """Names, values, colours, and whether the list is one of ADE20K's, whose classes begin at 1."""
    if not path.is_file():
        raise FileNotFoundError(f"class list {path} does not exist")
    text = read_text(path, "class list")
    if path.suffix == ".json":
        return (*_read_json(path, text), (), False)
    lines = [line for line in text.splitlines() if line.strip()]
    if path.suffix == ".csv":  # Roboflow: Pixel Value, Class
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines)][1:]
        if any(len(row) < 2 or not row[0].isdecimal() for row in rows):
            raise ValueError(f"class list {path} must have lines 'value, name' below its head")
        return tuple(row[1] for row in rows), tuple(int(row[0]) for row in rows), (), False
    if lines and lines[0].split("\t")[0].strip() == "Idx":  # ADE20K: Idx  Ratio  Train  Val  Stuff  Name, with tabs
        return tuple(line.split("\t")[-1].strip() for line in lines[1:]), None, (), True
    entries = [line.strip() for line in lines if not line.lstrip().startswith("#")]
    if path.name == "labelmap.txt" or (entries and all(":" in entry for entry in entries)):
        return _read_labelmap(path, entries)
    return tuple(entries), None, (), False


def _read_labelmap(path: Path, entries: list[str]) -> tuple[tuple[str, ...], None, tuple[Colour, ...], bool]:
    """CVAT's: `name:red,green,blue:parts:actions`."""
    names, colours = [], []
    for entry in entries:
        name, _, rest = entry.partition(":")
        numbers = rest.split(":")[0].replace(" ", "").split(",")
        if len(numbers) != 3 or not all(n.isdecimal() and int(n) < 256 for n in numbers):
            raise ValueError(f"{path}: every line must be 'name:red,green,blue:...', got {entry[:60]!r}")
        names.append(name.strip())
        colours.append((int(numbers[0]), int(numbers[1]), int(numbers[2])))
    if len(set(colours)) != len(colours):
        raise ValueError(f"{path} gives one colour to two classes")
    return tuple(names), None, tuple(colours), False


def _read_json(path: Path, text: str) -> tuple[tuple[str, ...], tuple[int, ...] | None]:
    content = parse_json(text, f"class list {path}")
    if isinstance(content, list):
        return tuple(str(name) for name in content), None
    if isinstance(content, dict) and content and all(key.isdecimal() for key in content):
        ordered = sorted(content, key=int)
        values = tuple(int(key) for key in ordered)
        if len(set(values)) == len(values) and values[-1] <= MAX_VALUE:
            return tuple(str(content[key]) for key in ordered), values
    raise ValueError(
        f"class list {path} must be a list of names, or an object with the masks' values for keys: {{'1': 'wall', ...}}"
    )


def palette_labels(
    masks: Sequence[Path], *, ignore_index: int = IGNORE, reduce_zero_label: bool | None = None
) -> MaskLabels:
    """Classes of palette PNGs without a class list: the indices in use up to the largest, named by their colours.

    Raises:
        ValueError: the masks are no palette PNGs.
    """
    largest, colours = 0, None
    for path in masks:
        with open_stored(path, "mask") as file:
            palette = file.getpalette() if file.mode == "P" else None
            values = np.unique(np.array(file)) if palette is not None else np.empty(0, np.uint8)
        if palette is None:
            raise ValueError(
                f"no class list: put classes.json (a list of names, or {{value: name}}), labelmap.txt or ADE20K's "
                f"objectInfo150.txt beside the folders. {path} is no palette PNG either, whose colours would do"
                f"{_classes_json(masks[:MOST_LOOKED_AT])}"
            )
        colours = colours or palette
        values = values[values != ignore_index]
        largest = max(largest, int(values.max(initial=0)))
    assert colours is not None
    names = []
    for index in range(largest + 1):
        rgb = (colours + [0] * 768)[3 * index : 3 * index + 3]
        names.append("#{:02x}{:02x}{:02x}".format(*rgb))
    if reduce_zero_label:
        names = names[1:]
    # Two indices of one colour are two classes.
    names = [name if names.count(name) == 1 else f"{name} ({k})" for k, name in enumerate(names)]
    return labels_of(names, reduce_zero_label=bool(reduce_zero_label), ignore_index=ignore_index)


def _classes_json(masks: Sequence[Path]) -> str:
    """What could be written, of the values that masks have; "": nothing is known of them."""
    values: set[int] = set()
    for path in masks:
        try:
            values.update(np.unique(read_index_mask(path)).tolist())
        except (OSError, ValueError):  # colours
            return ""
    if len(values) > MOST_SHOWN:
        return f". The first {len(masks)} masks have values from {min(values)} to {max(values)}"
    shown = ", ".join(f'"{value}": "name of {value}"' for value in sorted(values))
    return f". By the values of the first {len(masks)} masks, classes.json could be {{{shown}}}"


# ------------------------------------------------------------------ judging


def check_values(
    labels: MaskLabels, counts: dict[int, int], where: str, *, whole: bool = True, trusted: bool = False
) -> list[str]:
    """Stops when the values of masks cannot mean what the setting says.

    Args:
        counts: pixels of each value.
        where: which masks, for messages.
        whole: these are all masks, not a sample.
        trusted: what 0 means is known, from training or because a person insists.

    Returns: what is odd but possible.
    """
    seen = {value for value, pixels in counts.items() if pixels}
    K = len(labels.names)
    known = set(labels.values) | labels.ignored
    if strangers := sorted(seen - known):
        shown = ", ".join(map(str, strangers[:8])) + (", ..." if len(strangers) > 8 else "")
        raise ValueError(f"{where} hold the values {shown}; {K} classes allow {labels.allowed()}.{_fits(labels, seen)}")
    if not seen & set(labels.values):
        found = ", ".join(map(str, sorted(seen)))
        raise ValueError(f"{where} have no labelled pixel: their values are {found}, all ignored.{_fits(labels, seen)}")
    if labels.ignore_index not in labels.values and seen - {labels.ignore_index} == {0} and labels.ignore_index in seen:
        raise ValueError(
            f"{where} hold only 0 and {labels.ignore_index}, and {labels.ignore_index} is ignored "
            f"({VOID} {labels.ignore_index}), so one class is left. If {labels.ignore_index} is the other class, say "
            f'so in classes.json: {{"0": "{labels.names[0]}", "{labels.ignore_index}": '
            f'"{labels.names[1] if K > 1 else "..."}"}}, or rewrite the masks with `litevit doctor --fix OUT`'
        )
    shifted = (
        labels.reduce_zero_label and not labels.numbered and K > 1 and seen - {labels.ignore_index} == set(range(K))
    )
    if shifted and not trusted:
        first, *_, last = labels.names
        numbers = ", ".join(f'"{value}": "{name}"' for value, name in enumerate(labels.names[:2], start=1))
        raise ValueError(
            f"{where} hold the values 0..{K - 1} for {K} names, and 0 would be ignored, so that 1 is called {first!r} "
            f"and nothing {last!r}. If 0 is {first!r}, give {ZERO} False. If 0 is no class, give {ZERO} True and "
            f"a class list without a name for it, or a classes.json "
            f"that gives the values: {{{numbers}{', ...' * (K > 2)}}}"
        )
    present = [name for name, value in zip(labels.names, labels.values) if value in seen]
    notes = []
    if len(present) == 1 and K > 1:
        notes.append(f"{where} hold a single class, {present[0]!r}: there is nothing to tell apart")
    elif whole and len(present) < K:
        absent = [name for name in labels.names if name not in present]
        shown = ", ".join(absent[:6]) + (", ..." if len(absent) > 6 else "")
        notes.append(f"{where} have no pixel of {len(absent)} of {K} classes: {shown}")
    return notes


def _fits(labels: MaskLabels, seen: set[int]) -> str:
    """The setting under which the values would make sense."""
    K = len(labels.names)
    rest = seen - {labels.ignore_index}
    if labels.numbered:
        return " The class list must name every value that is a class"
    if not labels.reduce_zero_label and rest and max(rest) == K:
        return f" Give {ZERO} True if 0 is no class and 1..{K} are the classes"
    if labels.reduce_zero_label and rest and max(rest) < K:
        return f" Give {ZERO} False if 0..{K - 1} are the classes"
    if seen == {0, IGNORE} or rest == {IGNORE}:
        return ' If 255 is a class, say so in classes.json: {"0": ..., "255": ...}'
    if len(rest) > K + 1:
        return " Are these masks of other classes, or of instances?"
    return " Name as many classes as there are values, or give the value that is no class as " + VOID
