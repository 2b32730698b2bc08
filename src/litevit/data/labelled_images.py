"""Labelled images that are read by index, and what happens to one that cannot be read or has an impossible label."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from PIL import Image
from torch.utils.data import Dataset

from litevit.data.images import ImageError, read_image
from litevit.data.sampling import Unreadable

Policy = Literal["skip", "raise"]


class ClassificationImages(Dataset):
    """Images of a reader. One that cannot be read is never silently replaced (timm's own data set would).

    Args:
        reader: `reader[i]` is (file, bytes or Pillow image; class), `reader.filename(i)` its name, `reader.key(i)` its
            place below the split: `<class>/<file>`.
        classes: names of the labels; None: the reader's.
        labels: the label of each of the reader's classes, where it is not the same number.
        unreadable: "raise" stops with the file's name; "skip" returns an `Unreadable`, which the loop names and counts.
    """

    def __init__(
        self,
        reader: Any,
        *,
        num_classes: int,
        classes: Sequence[str] | None = None,
        labels: Sequence[int] | None = None,
        transform: Callable[[Image.Image], Any] | None = None,
        unreadable: Policy = "raise",
    ):
        self.reader = reader
        self.num_classes = num_classes
        self.transform = transform
        self.unreadable: Policy = unreadable
        self.classes = class_names(reader) if classes is None else tuple(classes)
        self.labels = None if labels is None else list(labels)
        targets = getattr(reader, "targets", None)
        if targets is not None and len(targets):
            check_labels(self.label(int(min(targets))), num_classes, "the smallest label")
            check_labels(self.label(int(max(targets))), num_classes, "the largest label")

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> Any:
        return load_image(
            lambda: self._read(index),
            lambda: self.name(index),
            num_classes=self.num_classes,
            transform=self.transform,
            policy=self.unreadable,
        )

    def _read(self, index: int) -> tuple[Any, int]:
        file, target = self.reader[index][:2]
        return file, self.label(int(target))

    def label(self, theirs: int) -> int:
        """The label of a class of the reader."""
        if self.labels is None or not 0 <= theirs < len(self.labels):
            return theirs
        return self.labels[theirs]

    def name(self, index: int) -> str:
        return str(self.reader.filename(index, absolute=True))

    def key(self, index: int) -> str:
        """Where the image stands in its split, with `/`: class folder, folders in it, file. Names its label map."""
        return self.reader.key(index)

    def check(self, index: int) -> None:
        """Raises what reading the image would raise, at the cost of decoding it alone."""
        load_image(
            lambda: self._read(index),
            lambda: self.name(index),
            num_classes=self.num_classes,
            transform=None,
            policy="raise",
        )


def load_image(
    read: Callable[[], tuple[Any, int]],
    name: Callable[[], str],
    *,
    num_classes: int,
    transform: Callable[[Image.Image], Any] | None,
    policy: Policy,
) -> Any:
    """(image, label) or, where the policy is "skip" and the image cannot be read, an `Unreadable`.

    Args:
        read: gives what `litevit.data.images.read_image` takes, and the label.
    """
    try:
        file, label = read()
        check_labels(label, num_classes, name)
        try:
            image = read_image(file, name=name())
        finally:
            if hasattr(file, "read"):
                file.close()
    except LabelError:
        raise
    except (OSError, ValueError) as error:
        reason = f"it {error.reason}" if isinstance(error, ImageError) else str(error)
        if policy == "skip":
            return Unreadable(name(), reason)
        raise ValueError(f"Cannot read {name()}: {reason}. Remove or repair the file.") from error
    return (transform(image) if transform else image), label


class LabelError(ValueError):
    """A label that the head has no class for; never skipped as unreadable."""


def check_labels(label: int, num_classes: int, where: str | Callable[[], str]) -> None:
    if not 0 <= label < num_classes:
        raise LabelError(
            f"Labels must lie in 0..{num_classes - 1} for a head of {num_classes} classes, got {label} "
            f"({where() if callable(where) else where}). "
            "Set --data.num_classes to the number of classes of the data."
        )


def class_names(reader: Any) -> tuple[str, ...]:
    mapping = getattr(reader, "class_to_idx", None) or {}
    return tuple(name for name, _ in sorted(mapping.items(), key=lambda item: item[1]))
