"""Masks of classes: `images/` and `masks/`, ADE20K's folders, `SegmentationClass/`, `x_mask.png` beside `x.jpg`."""

from pathlib import Path

from litevit.data.images import is_image
from litevit.data.layouts.folders import IMAGE_FOLDERS, child_folder, find_file, has_images, visible
from litevit.data.layouts.image_sets import listed_parts
from litevit.data.layouts.layout import ALL, SPLITS, Layout, Part, split_folders, split_of

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")
JPEG = (".jpg", ".jpeg")
NO_JPEG = "Masks cannot be JPEG, which changes the numbers of the classes at every edge: save them as PNG"
MASK_ENDINGS = ("", "_mask", "_masks", "_label")  # x.jpg -> x_mask.png
PAIR_ENDINGS = ("_masks", "_mask", "_labels", "_label", "_gt", "annot")  # train/ and train_masks/, trainannot/
MASK_FOLDERS = ("annotations", "masks", "mask", "labels", "label", "gt", "annotation", "SegmentationClass")
CLASS_LISTS = ("classes.json", "objectInfo150.txt", "labelmap.txt", "classes.txt", "labels.txt", "_classes.csv")


def mask_layout(root: Path) -> Layout | None:
    parts, name = _mask_parts(root)
    if not parts:
        return None
    places = [root, *(part.images for part in parts.values()), *(part.images.parent for part in parts.values())]
    lists = (file for place in places for name in CLASS_LISTS if (file := place / name).is_file())
    return Layout("masks", name, "semantic", root, parts, next(lists, None))


def _mask_parts(root: Path) -> tuple[dict[str, Part], str]:
    voc, jpeg = child_folder(root, "SegmentationClass"), child_folder(root, *IMAGE_FOLDERS)
    if voc is not None and jpeg is not None:
        listed = listed_parts(root / "ImageSets" / "Segmentation", jpeg, voc)
        return listed or {ALL: Part(jpeg, voc)}, "VOC's masks (SegmentationClass)"
    images = child_folder(root, *IMAGE_FOLDERS)
    masks = next(
        (f for name in MASK_FOLDERS if (f := child_folder(root, name)) and f != images and find_file(f, MASK_SUFFIXES)),
        None,
    )
    if masks is None and images is not None and (f := child_folder(root, "masks", "mask")) and find_file(f, JPEG):
        masks = f  # no class folders: what is wrong is said where they are read
    if images is not None and masks is not None and has_images(images):
        inner, outer = split_folders(images), split_folders(masks)
        ade = masks.name == "annotations" and {f.name for f in inner.values()} <= {"training", "validation"} and inner
        name = "ADE20K's layout" if ade else f"{images.name}/ and {masks.name}/"
        if inner and outer:
            both = {split: Part(inner[split], outer[split]) for split in SPLITS if split in inner and split in outer}
            return both, name
        return {ALL: Part(images, masks)}, name
    parts = {}
    name = ""
    for split, folder in split_folders(root).items():
        inside, beside = child_folder(folder, *IMAGE_FOLDERS), child_folder(folder, *MASK_FOLDERS)
        if inside is not None and beside is not None and find_file(beside, MASK_SUFFIXES) and has_images(inside):
            parts[split], name = Part(inside, beside), f"{inside.name}/ and {beside.name}/ in each split"
        elif _beside(folder):
            parts[split], name = Part(folder, folder), "masks beside the images"
    if not parts and _beside(root):
        return {ALL: Part(root, root)}, "masks beside the images"
    if not parts:
        parts, name = _paired_folders(root)
    return {split: parts[split] for split in (*SPLITS, ALL) if split in parts}, name


def _paired_folders(root: Path) -> tuple[dict[str, Part], str]:
    """`train/` and `train_masks/` (Carvana's), `val/` and `valannot/` (CamVid's), `imgs/` and `imgs_gt/`."""
    parts: dict[str, Part] = {}
    name = ""
    for entry in visible(root):
        masks = child_folder(root, *(entry.name + end for end in PAIR_ENDINGS)) if entry.is_dir() else None
        if masks is None or not _same_names(Path(entry.path), masks):
            continue
        parts.setdefault(split_of(entry.name) or ALL, Part(Path(entry.path), masks))
        name = name or f"{entry.name}/ and {masks.name}/"
    if set(parts) > {ALL}:
        del parts[ALL]
    return parts, name


def _same_names(images: Path, masks: Path) -> bool:
    """Whether a mask is called after an image, so that folders called `cat` and `cat_mask` may be classes."""
    mask = find_file(masks, MASK_SUFFIXES, 0)
    if mask is None:
        return False
    named = {mask.stem.lower().removesuffix(end) for end in MASK_ENDINGS}
    return any(is_image(entry.name) and Path(entry.name).stem.lower() in named for entry in visible(images))


def _beside(folder: Path) -> bool:
    """`x.jpg` and `x_mask.png` in one folder, as Roboflow writes it."""
    files = {entry.name for entry in visible(folder) if entry.is_file()}
    marked = [name for name in files if name.lower().endswith(tuple(f"{end}.png" for end in MASK_ENDINGS if end))]
    stems = {name.rpartition(".")[0] for name in files}
    return bool(marked) and any(name.rpartition(".")[0].rpartition("_")[0] in stems for name in marked)


def is_mask_name(name: str) -> bool:
    """`x_mask.png`: of a folder that holds images and masks together."""
    stem = name.rpartition(".")[0].lower()
    return stem.endswith(tuple(end for end in MASK_ENDINGS if end)) and name.lower().endswith(MASK_SUFFIXES)
