"""Every layout a data set can be read in, examined."""

import re
from pathlib import Path

from litevit.data.class_folders import unpack_first
from litevit.data.doctor import folders, masks, objects, panoptic, tables
from litevit.data.doctor.pictures import Album
from litevit.data.doctor.report import Notes, Report
from litevit.data.layouts import LOOKED_FOR, layouts_of
from litevit.data.mask_labels import IGNORE


def examine(
    path: str | Path,
    *,
    examples: int = 3,
    reduce_zero_label: bool | None = None,
    ignore_index: int = IGNORE,
    reader: str = "",
    image_column: str | None = None,
    label_column: str | None = None,
) -> Report:
    """Looks at a data set.

    Args:
        path: a folder in one of the known layouts, one COCO-format JSON, a tar of class folders, or `hfds/NAME`.
        examples: how many of each problem are named.
        reduce_zero_label: of masks, see `litevit.data.mask_labels`.
        ignore_index: of masks.
        reader: as a recipe's `data.reader`: "wds" or "hfds" for what only a reader knows. "": shards and Hugging Face's
            folders are recognised by what lies in them.
        image_column: of a Hugging Face data set, as a recipe's.
        label_column: the same.

    Returns:
        What was found, by severity, with examples; `exit_code` 0 where training would go through.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it is in no layout that is known.
    """
    reader = reader or tables.reader_of(path)
    if reader:
        place = tables.place_of(path)
        report = Report(Path(place), tables.NAMES[reader])
        notes = Notes(report, examples)
        album = Album(notes)
        tables.examine(notes, album, place, reader, image_column=image_column, label_column=label_column)
        album.note_copies()
        return report
    path = Path(path)
    if not path.exists() and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path.as_posix()):
        raise FileNotFoundError(f"{path} does not exist. A data set of the Hugging Face Hub is hfds/{path.as_posix()}")
    if path.is_file() and path.suffix.lower() not in (".json", ".tar"):
        raise ValueError(f"{path} is no data set: give a folder, a COCO-format .json or a .tar.{unpack_first(path)}")
    layouts = layouts_of(path)
    if not layouts:
        known = "; ".join(f"{what}: {layouts}" for what, layouts in LOOKED_FOR.values())
        loose = folders.loose_images(path)
        raise ValueError(f"{path} is in no known layout.{unpack_first(path)}{loose} Looked for {known}")
    report = Report(path, " and ".join(str(layout) for layout in layouts))
    notes = Notes(report, examples)
    album = Album(notes)
    for layout in layouts:
        if layout.task == "instances":
            objects.examine(notes, album, layout)
        elif layout.task == "panoptic":
            panoptic.examine(notes, album, layout)
        elif layout.task == "semantic":
            masks.examine(notes, album, layout, reduce_zero_label=reduce_zero_label, ignore_index=ignore_index)
        else:
            folders.examine(notes, album, layout)
    album.note_copies()
    return report
