"""Pictures of a mended copy: as they are where every program reads them alike, else what training would see."""

import shutil
from collections import Counter
from pathlib import Path

from PIL import Image as PILImage

from litevit.data.images import ImageError, decode, read_image

PLAIN = {("RGB", "JPEG"), ("L", "JPEG"), ("RGB", "PNG"), ("L", "PNG")}


class Mended:
    """How often something was done, with the first example."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def add(self, what: str, example: object) -> None:
        self.done[what] += 1
        self.examples.setdefault(what, str(example))

    def rows(self) -> list[tuple[str, str, str]]:
        return [(f"{count:,}", what, self.examples[what]) for what, count in self.done.most_common()]


def copy_picture(mended: Mended, source: Path, target: Path) -> tuple[Path, int] | None:
    """Copies a picture, or writes what training would see of it. Returns: its file and the turn of what lies on it.

    None: it is missing or broken.
    """
    if not source.is_file():  # a device has no end
        mended.add("pictures left out: missing or broken", f"{str(source)[:300]} does not exist, or is no file")
        return None
    try:
        content = source.read_bytes()
        header, mode, frames = decode(content, name=str(source))
        with PILImage.open(source) as image:
            kind = (mode, image.format or "")
            transparent = "transparency" in image.info
    except (ImageError, OSError) as error:
        mended.add("pictures left out: missing or broken", error)
        return None
    if target.exists():  # another layout of the same set has written it
        return target, header.orientation
    if (other := target.with_suffix(".png")).exists() and (header.orientation != 1 or kind not in PLAIN):
        return other, header.orientation
    target.parent.mkdir(parents=True, exist_ok=True)
    named_right = source.suffix.lower() in ((".png",) if kind[1] == "PNG" else (".jpg", ".jpeg", ".jpe", ".jfif"))
    if kind in PLAIN and header.orientation == 1 and frames == 1 and not transparent and named_right:
        shutil.copyfile(source, target)
        return target, 1
    why = "turned upright (EXIF)" if header.orientation != 1 else f"{kind[1]} of the mode {mode}"
    target = target.with_suffix(".png")
    read_image(content, name=str(source)).save(target)
    mended.add(f"pictures written as RGB PNG: {why}", source)
    return target, header.orientation


def safe_name(file_name: str, source: Path, root: Path) -> str:
    """The path below the images where it is one, else the name alone."""
    if source.is_relative_to(root) and ".." not in source.relative_to(root).parts:  # which would lead out of the copy
        return source.relative_to(root).as_posix()
    return file_name.replace("\\", "/").rpartition("/")[2]


# ---------------------------------------------------------------------- COCO
