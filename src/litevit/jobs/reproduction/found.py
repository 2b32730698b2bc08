"""What lies where a user says a data set is: whether it can be measured on, whether it is the whole, and which it is.

Looked at before a model is built or a file downloaded; no image is decoded.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from litevit.data.ade20k import SegmentationFolder
from litevit.data.class_names import ClassList, detection_classes, panoptic_classes, semantic_classes
from litevit.data.classification import ANY, ClassificationData, create_dataset, real_label_sets
from litevit.data.coco_entries import as_flag
from litevit.data.coco_panoptic import CocoPanoptic
from litevit.data.labelled_images import ClassificationImages
from litevit.data.layouts import find_image
from litevit.jobs.dense_models import INSTANCES, PANOPTIC, SEMANTIC
from litevit.jobs.evaluate_dense import check_classes, open_data
from litevit.jobs.reproduction.rows import BENCHMARKS

COCO_OBJECTS = 36_335  # of val2017, crowds left out
PER_CLASS = {"imagenet": 50, "real": 50, "v2": 10}
DENSE: dict[str, tuple[str, ClassList]] = {
    "coco": (INSTANCES, detection_classes(80)),
    "panoptic": (PANOPTIC, panoptic_classes(80, 53)),
    "ade": (SEMANTIC, semantic_classes(150)),
}


class Found(NamedTuple):
    """A data set that can be measured on."""

    path: Path
    images: int
    short: str  # why this is not the whole; "": it is
    digest: str  # of names, sizes and times of all files: another digest, another data set


def look(benchmark: str, path: Path) -> Found:
    """What is there for a benchmark.

    Raises:
        ValueError, OSError: nothing, or in another layout, or with other classes; one line says what.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is nothing at {path}")
    return _look_at_classes(benchmark, path) if benchmark in PER_CLASS else _look_at_dense(benchmark, path)


def _look_at_classes(benchmark: str, path: Path) -> Found:
    from timm.data import ImageNetInfo

    dataset = create_dataset(ClassificationData(path=str(path), num_classes=ANY), "eval")
    assert isinstance(dataset, ClassificationImages)
    if benchmark == "v2":
        known = {str(number) for number in range(1000)}
    else:
        known = set(ImageNetInfo("imagenet-1k").label_names())
    if strange := [name for name in dataset.classes if name not in known]:
        called = "0 to 999" if benchmark == "v2" else "by ImageNet's 1,000 WordNet ids (n01440764, ...)"
        raise ValueError(f"{dataset.reader.part.where} must have folders called {called}; it has {strange[0]!r}")
    names = [dataset.name(index) for index in range(len(dataset))]
    if benchmark == "real":
        real_label_sets(names)  # which says what is wrong with a name
    short = _fewer(benchmark, len(names))
    if not short and set(Counter(dataset.reader.targets).values()) != {PER_CLASS[benchmark]}:
        short = f"not {PER_CLASS[benchmark]} images of each class"
    root = Path(dataset.reader.root)
    files = getattr(dataset.reader, "files", names)  # tars
    return Found(path, len(names), short, _digest(map(Path, files), root))


def _look_at_dense(benchmark: str, path: Path) -> Found:
    task, classes = DENSE[benchmark]
    source = open_data(task, classes, path)
    check_classes(source, task, classes, of=f"the model of {BENCHMARKS[benchmark].title}")
    short = _fewer(benchmark, len(source))
    if isinstance(source, CocoPanoptic):
        pictures = [find_image(source.folder, image["file_name"]) for image in source.images]
        files: list[Path] = [source.file, *pictures, *(source.maps / a["file_name"] for a in source.annotations)]
    elif isinstance(source, SegmentationFolder):
        files = [*source.files, *map(source.mask_path, range(len(source)))]
    else:
        files = [source.file, *(find_image(source.folder, image["file_name"]) for image in source.images)]
        objects = sum(not as_flag(o.get("iscrowd")) for objects in source.objects for o in objects)
        if not short and objects != COCO_OBJECTS:
            short = f"{objects:,} of {COCO_OBJECTS:,} objects"
    return Found(path, len(source), short, _digest(files, path))


def _fewer(benchmark: str, images: int) -> str:
    whole = BENCHMARKS[benchmark].images
    return "" if images == whole else f"{images:,} of {whole:,} images"


def _digest(files: Iterable[Path], root: Path) -> str:
    """A data set that moved as it is (names below the root, sizes, times of change) is the same."""
    listing = hashlib.sha256()
    for file in files:
        facts = file.stat()
        name = file.relative_to(root) if file.is_relative_to(root) else file.name
        listing.update(f"{name}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return listing.hexdigest()
