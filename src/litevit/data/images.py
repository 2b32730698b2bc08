"""Labelled images that are read by index, and what happens to one that cannot be read or has an impossible label."""

from collections.abc import Callable
from typing import Any, Literal

from PIL import Image
from torch.utils.data import Dataset

from litevit.data.sampling import Unreadable

Policy = Literal["skip", "raise"]


class ClassificationImages(Dataset):
    """Images of a timm reader. One that cannot be read is never silently replaced (timm's own data set would).

    Args:
        reader: timm's reader: `reader[i]` is (file, class), `reader.filename(i)` its name.
        unreadable: "raise" stops with the file's name; "skip" returns an `Unreadable`, which the loop names and counts.
    """

    def __init__(
        self,
        reader: Any,
        *,
        num_classes: int,
        transform: Callable[[Image.Image], Any] | None = None,
        unreadable: Policy = "raise",
    ):
        self.reader = reader
        self.num_classes = num_classes
        self.transform = transform
        self.unreadable: Policy = unreadable
        self.classes = class_names(reader)
        targets = getattr(reader, "targets", None)
        if targets is None and hasattr(reader, "samples"):
            targets = [sample[1] for sample in reader.samples]
        if targets is not None and len(targets):
            check_labels(int(min(targets)), num_classes, "the smallest label")
            check_labels(int(max(targets)), num_classes, "the largest label")

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> Any:
        def read() -> tuple[Any, int]:
            file, target = self.reader[index][:2]
            return file, int(target)

        return load_image(
            read,
            lambda: self.name(index),
            num_classes=self.num_classes,
            transform=self.transform,
            policy=self.unreadable,
        )

    def name(self, index: int) -> str:
        try:
            return str(self.reader.filename(index, absolute=True))
        except (AssertionError, NotImplementedError, KeyError):  # Hugging Face data sets have no file names
            return f"sample {index}"


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
        read: gives a file or a Pillow image, and its label.
    """
    try:
        file, label = read()
        check_labels(label, num_classes, name)
        image = (file if isinstance(file, Image.Image) else Image.open(file)).convert("RGB")
    except LabelError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow raises
        if policy == "skip":
            return Unreadable(name(), str(error))
        raise ValueError(f"Cannot read {name()}: {error}. Remove or repair the file.") from error
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
    mapping = getattr(reader, "class_to_idx", None) or getattr(reader, "class_name_to_idx", None) or {}
    return tuple(name for name, _ in sorted(mapping.items(), key=lambda item: item[1]))
