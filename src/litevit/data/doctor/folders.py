"""Class folders and tars of them."""

from pathlib import Path

from litevit.data.class_folders import ClassFolders, Part, table
from litevit.data.class_tars import ClassTars
from litevit.data.doctor.pictures import Album
from litevit.data.doctor.report import Notes
from litevit.data.images import is_image
from litevit.data.layouts import ALL, Layout


def loose_images(path: Path) -> str:
    """Images without any folder: what a person has who has not sorted them yet."""
    count = sum(is_image(entry) for entry in path.iterdir()) if path.is_dir() else 0
    return f" {count} images lie directly in it, and nothing says what they show." if count else ""


def examine(notes: Notes, album: Album, layout: Layout) -> None:
    parts: dict[str, Part] = {}
    for split, place in layout.parts.items():
        try:
            reader = ClassFolders(place.images) if place.images.is_dir() else ClassTars(place.images)
        except (ValueError, OSError) as error:
            notes.error("splits that cannot be read", error)
            continue
        part = parts[split] = reader.part
        part.name = "images" if split == ALL else split
        if isinstance(reader, ClassFolders):
            album.look_at(split, [Path(reader.filename(k, absolute=True)) for k in range(len(reader))])
        else:
            album.look_into(split, reader)
        for name in getattr(reader, "empty", ()):
            notes.error("classes without an image", place.images / name)
        for reason, left in part.left_out.items():
            for _ in range(left.files):
                notes.warning(f"left out: {reason}", f"{split}: {left.example}")
        notes.count(f"classes in {place.images.name}", len(part.classes))
        notes.report.classes[split] = dict(part.classes)
        if len(part.classes) == 1:
            notes.error(
                "a single class (there is nothing to tell apart)", f"{place.images}: {next(iter(part.classes))}"
            )
    compare(notes, parts)
    notes.report.table = table(list(parts.values()))
    if parts and not {"val", "test", ALL} & parts.keys():
        notes.warning("no split to evaluate on (--data.hold_out holds a share of the images out)", layout)


def compare(notes: Notes, parts: dict[str, Part]) -> None:
    """Evaluation data may have some of the classes, matched by name; a class that training lacks has no label."""
    first = next(iter(parts), None)
    for part in parts.values():
        where = part.where
        for name in part.classes:
            if first is not None and name not in parts[first].classes:
                notes.error("classes that training does not have", f"{name}: in {where} only")
        for name in parts[first].classes if first is not None else ():
            if name not in part.classes:
                notes.warning("classes without an image in a split", f"{where}: {name}")
