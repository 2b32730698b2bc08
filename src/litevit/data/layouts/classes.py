"""Class folders: a folder of images per class, in `train/`, `val/` or without splits."""

from pathlib import Path

from litevit.data.class_folders import splits_of
from litevit.data.layouts.folders import has_images, visible
from litevit.data.layouts.layout import ALL, Layout, Part, split_of


def class_folder_layout(root: Path) -> Layout | None:
    parts: dict[str, Part] = {}
    for name, folder in splits_of(root).items():
        if folder.is_file() or _class_names(folder):
            parts.setdefault(split_of(name) or name, Part(folder, folder))
    if not parts and _class_names(root):
        parts = {ALL: Part(root, root)}
    return Layout("folders", "class folders", "classification", root, parts) if parts else None


def _class_names(folder: Path) -> list[str]:
    return [entry.name for entry in visible(folder) if entry.is_dir() and has_images(Path(entry.path))]
