"""Hugging Face data sets: which split and which columns are meant, and images by index (streams: `streaming`)."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from litevit.data.class_folders import Part, natural_key, split_names

NO_DATASETS = "Hugging Face data sets need the datasets package: pip install 'litevit[data]'"
# Where a data set has several columns that could be meant, the first of these.
IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo")
LABEL_COLUMNS = ("label", "labels", "fine_label", "target", "class", "cls", "category")
T = TypeVar("T")


class Columns(NamedTuple):
    """What is read of each row."""

    image: str
    label: str
    names: tuple[str, ...]  # of the labels; empty: they are numbers without names, or words
    words: bool  # the labels are words


def library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ImportError(NO_DATASETS) from error
    return datasets


def find_split(name: str, split: str) -> str:
    """The split of a data set that is called so, or by one of its usual other names.

    What only the library understands (`train[:10%]`) is left to it.
    """
    if not split.replace("_", "").replace("-", "").isalnum():
        return split
    there = splits_there(name)
    for wanted in split_names(split):
        if wanted in there:
            return wanted
    raise ValueError(
        f"{name} has no split '{split}', it has {', '.join(there)}. Name the one that is meant with "
        "--data.train_split or --data.eval_split; --data.hold_out 0.1 evaluates on a share of the training split."
    )


def splits_there(name: str) -> list[str]:
    """The splits of a data set of the Hub, of files in a folder, or of a folder that `save_to_disk` has written."""
    datasets = library()
    if not is_saved(name):
        return ask(name, lambda: datasets.get_dataset_split_names(name))
    saved = ask(name, lambda: datasets.load_from_disk(name))
    return list(saved) if isinstance(saved, Mapping) else ["train"]


def ask(name: str, answer: Callable[[], T]) -> T:
    """What the library says about a data set; what it complains of, and its network libraries, in one line.

    Raises:
        OSError: the data set cannot be opened.
    """
    try:
        return answer()
    except Exception as error:  # of a dozen libraries and as many kinds
        where = "" if Path(name).exists() else " (no folder here, so it was looked for on the Hub)"
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise OSError(f"The Hugging Face data set {name}{where} cannot be opened: {reason}") from error


def is_saved(name: str) -> bool:
    """Whether `Dataset.save_to_disk` or `DatasetDict.save_to_disk` has written this folder."""
    return any((Path(name) / file).is_file() for file in ("dataset_dict.json", "state.json"))


def load_split(name: str, split: str, cache: str | None) -> Any:
    datasets = library()
    if not is_saved(name):
        return ask(name, lambda: datasets.load_dataset(name, split=split, cache_dir=cache))
    saved = ask(name, lambda: datasets.load_from_disk(name))
    return saved[split] if isinstance(saved, Mapping) else saved


def find_columns(name: str, features: Mapping[str, Any] | None, image: str | None, label: str | None) -> Columns:
    """The columns of images and labels: those named, or those whose type or name says so."""
    features = features or {}
    datasets = library()
    for option, column in (("image_column", image), ("label_column", label)):
        if column is not None and column not in features:
            raise ValueError(f"{name} has no column '{column}' (data.{option}); it has {_listed(features)}.")
    pictures = [column for column, kind in features.items() if isinstance(kind, datasets.Image)]
    image = image or _choose(pictures, IMAGE_COLUMNS) or _choose([c for c in features if c in IMAGE_COLUMNS], ())
    if image is None:
        raise ValueError(f"{name}: which column has the images? It has {_listed(features)}. Give --data.image_column.")
    classes = [column for column, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    label = label or _choose(classes, LABEL_COLUMNS)
    label = label or _choose([c for c in LABEL_COLUMNS if c in features], LABEL_COLUMNS)
    if label is None:
        raise ValueError(f"{name}: which column has the labels? It has {_listed(features)}. Give --data.label_column.")
    kind = features[label]
    dtype = str(getattr(kind, "dtype", ""))
    if not isinstance(kind, datasets.ClassLabel) and not dtype.startswith(("int", "uint", "string", "large_string")):
        raise ValueError(
            f"{name}: the column '{label}' has {dtype or kind}, labels are class numbers or words. It has "
            f"{_listed(features)}: give --data.label_column."
        )
    return Columns(image, label, tuple(getattr(kind, "names", None) or ()), "string" in dtype)


def _choose(columns: Sequence[str], preferred: Sequence[str]) -> str | None:
    """The only one, or the first that is preferred."""
    if len(columns) == 1:
        return columns[0]
    return next((column for column in preferred if column in columns), None)


def _listed(features: Mapping[str, Any]) -> str:
    kinds = (f"{name} ({getattr(kind, 'dtype', None) or type(kind).__name__})" for name, kind in features.items())
    return ", ".join(kinds) or "none"


class HuggingFaceImages:
    """A split by index. Labels that are words become classes in natural order."""

    def __init__(self, name: str, split: str, cache: str | None, image: str | None = None, label: str | None = None):
        datasets = library()
        found = find_split(name, split)
        dataset = load_split(name, found, cache)
        self.columns = find_columns(name, dataset.features, image, label)
        self.dataset = dataset.cast_column(self.columns.image, datasets.Image(decode=False))
        self.where = f"{name}, {found}"
        table = dataset.select_columns([self.columns.label]).with_format("arrow")[:]
        labels = table.column(self.columns.label).to_pylist()
        names = self.columns.names
        if self.columns.words:
            names = tuple(sorted(set(labels), key=natural_key))
            numbers = {word: number for number, word in enumerate(names)}
            labels = [numbers[word] for word in labels]
        self.targets: list[int] = labels
        self.class_to_idx = {word: number for number, word in enumerate(names)}
        counts = Counter(labels)
        known = {word: counts[number] for number, word in enumerate(names)}
        self.part = Part("", self.where, len(labels), known)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return cell_content(self.dataset[index][self.columns.image]), self.targets[index]

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        return f"{self.where}: row {index}"

    def key(self, index: int) -> str:
        return f"{self.targets[index]}/{index:08d}"

    def keep(self, indices: Sequence[int]) -> None:
        self.dataset = self.dataset.select(indices)
        self.targets = [self.targets[i] for i in indices]


def cell_content(image: Mapping[str, Any]) -> Any:
    """The bytes of an undecoded cell, or the path of its file."""
    return image["path"] if image["bytes"] is None else image["bytes"]
