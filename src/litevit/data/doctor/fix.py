"""A mended copy of a data set: what can be mended mechanically is, the rest stays as it is.

| what | becomes |
|---|---|
| ids, sizes, boxes, areas, flags of another type | numbers, 0 and 1 |
| repeated annotation ids; image ids of several files | new ids; those images are left out: nothing says whose objects they have |
| categories with other ids in a split; one that only names a group | those of the training split; left out |
| empty boxes, boxes outside, annotations of images or categories that are not listed | left out |
| boxes partly outside | clipped |
| pictures that EXIF turns, that have 16 bits, alpha, CMYK, a palette, or another format than JPEG and PNG | upright RGB PNG, the annotations turned with them |
| missing and broken pictures | left out |
| masks of any values, colours or palettes | grey PNGs of 0..K-1, 255 ignored, with classes.json |
| YOLO, Pascal VOC | COCO JSON |

The copy is in a layout that `litevit.data.layouts` knows; the data set itself is not touched.
"""  # noqa: E501  a row of a table is one line

import shutil
from collections.abc import Sequence
from pathlib import Path

from litevit.data.class_folders import ClassFolders
from litevit.data.doctor.fix_coco import mend_coco
from litevit.data.doctor.fix_masks import mend_masks
from litevit.data.doctor.fix_pictures import Mended, copy_picture
from litevit.data.layouts import ALL, Layout, layouts_of
from litevit.data.mask_labels import IGNORE
from litevit.files import behind_links, put_in_place, remove_abandoned, temporary_name


def mend(
    path: str | Path, out: str | Path, *, reduce_zero_label: bool | None = None, ignore_index: int = IGNORE
) -> Mended:
    """Writes the copy.

    Args:
        path: a data set, see `examine`.
        out: a folder that is not there yet, or empty.
        reduce_zero_label, ignore_index: of masks, see `litevit.data.mask_labels`.

    Returns:
        What was done, how often, with the first example of each.

    Raises:
        ValueError: `out` is not empty or lies in the data set; tars; masks that nobody can read without being told.
    """
    path, out = Path(path), behind_links(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--fix writes a new data set: {out} is there already. Give another folder")
    if out.resolve().is_relative_to(path.resolve()):
        raise ValueError(f"--fix writes a new data set: {out} lies in {path}. Give a folder outside of it")
    layouts = layouts_of(path)
    if path.suffix.lower() == ".tar":
        raise ValueError(f"{path} is a tar: unpack it, then --fix can write a mended copy")
    mended = Mended()
    staged = temporary_name(out.absolute())  # a copy that is not finished must not look like a data set
    try:
        _mend(mended, layouts, staged, reduce_zero_label, ignore_index)
        if out.is_dir():
            out.rmdir()  # empty
        if staged.is_dir():
            put_in_place(staged, out)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    remove_abandoned(out.absolute())
    return mended


def _mend(
    mended: Mended, layouts: Sequence[Layout], out: Path, reduce_zero_label: bool | None, ignore_index: int
) -> None:
    for layout in layouts:
        if layout.task == "classification":
            _mend_folders(mended, layout, out)
        elif layout.task == "semantic":
            mend_masks(mended, layout, out, reduce_zero_label, ignore_index)
        else:
            mend_coco(mended, layout, out, panoptic=layout.task == "panoptic")


# ------------------------------------------------------------------ pictures


def _mend_folders(mended: Mended, layout: Layout, out: Path) -> None:
    for split, part in layout.parts.items():
        if part.images.is_file():
            raise ValueError(f"{part.images} is a tar: unpack it, then --fix can write a mended copy")
        reader = ClassFolders(part.images)
        folder = out if split == ALL else out / split
        for key in reader.keys:
            copy_picture(mended, part.images / key, folder / key)
        for reason, left in reader.part.left_out.items():
            for _ in range(left.files):
                mended.add(f"files left out: {reason}", left.example)
