"""Masks of classes, in every layout."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from PIL import Image as PILImage

from litevit.data.ade20k import SAMPLE, count_values, find_mask
from litevit.data.dense import mask_labels
from litevit.data.doctor.objects import note_missing_splits
from litevit.data.doctor.pictures import MISSING, Album, in_threads, note_turned
from litevit.data.doctor.report import Notes
from litevit.data.images import is_image
from litevit.data.layouts import JPEG, MASK_SUFFIXES, NO_JPEG, Layout, Part, is_mask_name, listed_names
from litevit.data.mask_labels import MaskLabels, check_values, read_index_mask


class _Mask(NamedTuple):
    path: Path
    problem: str = ""
    mode: str = ""
    size: tuple[int, ...] = ()
    counts: Mapping[int, int] = MappingProxyType({})


def examine(notes: Notes, album: Album, layout: Layout, *, reduce_zero_label: bool | None, ignore_index: int) -> None:
    labels: MaskLabels | None = None
    try:
        labels = mask_labels(layout, reduce_zero_label=reduce_zero_label, ignore_index=ignore_index)
        if len(labels.names) == 1:
            notes.error("a single class (the loss would be 0)", labels.names[0])
    except (ValueError, OSError) as error:
        notes.error("class list", error)
    learned = layout.parts.get("train") or next(
        iter(layout.parts.values())
    )  # what 0 means is judged by it, as in training
    for split, part in layout.parts.items():
        _examine_part(notes, album, split, part, labels, trusted=part is not learned)
    notes.report.counted = "pixels"
    _note_lost_splits(notes, layout)
    note_missing_splits(notes, layout)


def _note_lost_splits(notes: Notes, layout: Layout) -> None:
    """ADE20K's places: a folder of masks without its images, or the other way round."""
    for name in ("training", "validation"):
        pair = layout.root / "images" / name, layout.root / "annotations" / name
        if pair[0].is_dir() != pair[1].is_dir():
            notes.warning("missing splits", pair[1] if pair[0].is_dir() else pair[0])


def _examine_part(
    notes: Notes, album: Album, split: str, part: Part, labels: MaskLabels | None, *, trusted: bool
) -> None:
    together = part.images == part.annotations
    files = [path for path in sorted(part.images.rglob("*")) if is_image(path)]
    files = [path for path in files if not (together and is_mask_name(path.name))]
    if part.listed is not None:
        names = set(listed_names(part.listed))
        files = [path for path in files if path.relative_to(part.images).with_suffix("").as_posix() in names]
    if not files:
        notes.error("splits without images", part.images)
        return
    there = {path.relative_to(part.annotations).as_posix() for path in part.annotations.rglob("*") if path.is_file()}
    masks = []
    for file in files:
        own = file.relative_to(part.images)
        found = find_mask(own.with_suffix("").as_posix(), there, own.as_posix() if together else None)
        masks.append(part.annotations / (found or f"{own.with_suffix('').as_posix()}.png"))
    pictures = album.look_at(split, files)
    colours = labels.colours if labels else ()
    total: Counter[int] = Counter()
    wrong = 0
    for picture, mask in zip(pictures, in_threads(lambda path: _look(path, colours), masks)):
        if mask.problem:
            kind = "missing masks" if mask.problem == MISSING else "broken masks"
            jpeg = (
                mask.problem == MISSING and any(mask.path.with_suffix(end).is_file() for end in JPEG) and not together
            )
            notes.error(kind, f"{mask.path}: {mask.problem}{f'. {NO_JPEG}' if jpeg else ''}", picture.path)
            continue
        total.update(mask.counts)
        if note_turned(notes, picture, mask.size, "mask"):  # type: ignore[arg-type]
            assert picture.size is not None
            said = f"{mask.path} is {mask.size[1]} x {mask.size[0]}, its image {picture.size[1]} x {picture.size[0]}"
            notes.error("masks of another size than their image", said, picture.path)
        if mask.mode == "P" and not colours:
            notes.warning("palette masks (their indices are read, not their colours)", mask.path)
        if labels is None:
            continue
        strange = sorted(mask.counts.keys() - set(labels.values) - labels.ignored)
        if strange:
            wrong += 1
            said = f"{mask.path}: {strange[:5]}; allowed are {labels.allowed()}"
            notes.error(f"mask values outside the {len(labels.names)} classes", said, picture.path)
        if mask.counts.keys() <= labels.ignored:
            notes.warning("masks that are all ignore", mask.path, picture.path)
    lonely = sorted(there - {path.relative_to(part.annotations).as_posix() for path in masks})
    for name in lonely:
        if name.lower().endswith(MASK_SUFFIXES) and (not together or is_mask_name(name)) and part.listed is None:
            notes.warning("masks without an image", part.annotations / name)
    if labels is None:
        return
    if (total and not wrong) or wrong == len(masks) or wrong > SAMPLE // 2:
        try:
            check_values(labels, dict(total), f"the masks in {part.annotations}", trusted=trusted)
        except ValueError as error:
            notes.error("masks that cannot mean what the setting says", error, files[0])
    used = {name: total[value] for name, value in zip(labels.names, labels.values)}
    for name, pixels in used.items():
        if not pixels:
            notes.warning("classes without a pixel in a split", f"{part.images.name}: {name}")
    notes.count("labelled pixels", sum(used.values()))
    notes.count("ignored pixels", sum(total[value] for value in labels.ignored))
    notes.report.classes[split] = used


def _look(path: Path, colours: tuple[tuple[int, int, int], ...]) -> _Mask:
    """Mode, size, values and their counts, or what is wrong."""
    if not path.is_file():
        return _Mask(path, MISSING)
    try:
        indices = read_index_mask(path, colours)
        with PILImage.open(path) as file:
            mode = file.mode
    except (OSError, ValueError) as error:
        return _Mask(path, str(error))
    return _Mask(path, "", mode, indices.shape, count_values(indices))
