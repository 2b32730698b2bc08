"""Pascal VOC's folders: `Annotations/*.xml` and `JPEGImages/`, also inside a `VOCdevkit`; or XML files among images."""

from pathlib import Path

from litevit.data.layouts.folders import IMAGE_FOLDERS, child_folder, find_file, has_images, visible
from litevit.data.layouts.image_sets import listed_parts
from litevit.data.layouts.layout import ALL, Layout, Part, split_folders


def voc_layout(root: Path) -> Layout | None:
    for base in (root, *(Path(entry.path) for entry in visible(root) if entry.name == "VOCdevkit" and entry.is_dir())):
        for folder in (base, *(Path(entry.path) for entry in visible(base) if entry.is_dir())):
            xml, images = child_folder(folder, "Annotations"), child_folder(folder, *IMAGE_FOLDERS)
            if xml is not None and images is not None and find_file(xml, (".xml",), 1):
                lists = folder / "ImageSets" / "Main"
                parts = listed_parts(lists, images, xml)
                if not parts and (splits := split_folders(xml)):
                    inner = split_folders(images)
                    parts = {split: Part(inner.get(split, images), place) for split, place in splits.items()}
                return Layout("voc", "Pascal VOC", "instances", root, parts or {ALL: Part(images, xml)})
    splits = {split: folder for split, folder in split_folders(root).items() if find_file(folder, (".xml",), 0)}
    if splits:
        return Layout("voc", "Pascal VOC", "instances", root, {s: Part(folder, folder) for s, folder in splits.items()})
    if find_file(root, (".xml",), 0) and has_images(root, 0):
        return Layout("voc", "Pascal VOC", "instances", root, {ALL: Part(root, root)})
    return None
