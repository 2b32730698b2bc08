"""VOC's lists of the images of a split: `ImageSets/Main/train.txt`, `ImageSets/Segmentation/val.txt`."""

from pathlib import Path

from litevit.data.layouts.layout import SPLITS, Part
from litevit.files import read_text


def listed_parts(lists: Path, images: Path, annotations: Path) -> dict[str, Part]:
    """`ImageSets/*/{train,val,test}.txt`; `trainval.txt` and CVAT's `default.txt` name the same images again."""
    if not lists.is_dir():
        return {}
    parts = {}
    for split in SPLITS:
        for name in SPLITS[split]:
            if (file := lists / f"{name}.txt").is_file() and read_text(file, "list of images").strip():
                parts[split] = Part(images, annotations, file)
                break
    return parts


def listed_names(file: Path) -> list[str]:
    """The lines of such a list; a name may have spaces."""
    return [line.strip() for line in read_text(file, "list of images").splitlines() if line.strip()]
