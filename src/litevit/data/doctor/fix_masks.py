"""Masks of a mended copy; see `litevit.data.doctor.fix`."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image as PILImage

from litevit.data.ade20k import SegmentationFolder, count_values
from litevit.data.dense import mask_labels
from litevit.data.doctor.fix_pictures import Mended, copy_picture
from litevit.data.images import decode, turn_pixels
from litevit.data.layouts import ALL, Layout
from litevit.data.mask_labels import IGNORE, MaskLabels, check_values, read_index_mask
from litevit.files import write_json


def mend_masks(mended: Mended, layout: Layout, out: Path, reduce_zero_label: bool | None, ignore_index: int) -> None:
    labels = mask_labels(layout, reduce_zero_label=reduce_zero_label, ignore_index=ignore_index)
    sources = {
        split: SegmentationFolder(part.images, part.annotations, labels, listed=part.listed)
        for split, part in layout.parts.items()
    }
    labels = _mend_labels(mended, labels, sources)
    if labels.values != tuple(range(len(labels.names))) or labels.ignored != {IGNORE} or labels.colours:
        mended.add("masks written as 0..K-1 and 255", f"{layout.root}: {labels.allowed()}")
    for split, source in sources.items():
        below = Path() if split == ALL else Path(split)
        for index, file in enumerate(source.files):
            mask = source.mask_path(index)
            try:
                values = labels.read(mask)
            except (OSError, ValueError) as error:
                mended.add("images left out: their mask cannot be read", error)
                continue
            name = file.relative_to(source.folder)
            copied = copy_picture(mended, file, out / "images" / below / name)
            if copied is None:
                continue
            target, turn = copied
            header, *_ = decode(file.read_bytes(), name=str(file))
            if values.shape not in (header.size, header.upright_size):
                mended.add("images left out: their mask has another size", mask)
                target.unlink()
                continue
            if turn != 1 and values.shape == header.size:
                values = turn_pixels(torch.from_numpy(values), turn).contiguous().numpy()
                mended.add("masks turned with their picture", mask)
            written = out / "masks" / below / name.with_suffix(".png")
            written.parent.mkdir(parents=True, exist_ok=True)
            PILImage.fromarray(values.astype(np.uint8)).save(written)
    write_json(out / "classes.json", list(labels.names), indent=1)


def _mend_labels(mended: Mended, labels: MaskLabels, sources: dict[str, SegmentationFolder]) -> MaskLabels:
    """0 and 255 for two classes are mended; other values that do not fit are left to a person."""
    counts: Counter[int] = Counter()
    for source in sources.values():
        for index in range(len(source)):
            try:
                counts.update(count_values(read_index_mask(source.mask_path(index), labels.colours)))
            except (OSError, ValueError):  # the image is left out, with the reason
                continue
    try:
        check_values(labels, dict(counts), "the masks")
    except ValueError as error:
        if set(counts) == {0, IGNORE} and len(labels.names) == 2 and not labels.numbered:
            mended.add("masks of 0 and 255: 255 is the second class", f"{labels.names[1]!r}")
            return replace(labels, values=(0, IGNORE), ignore_index=-1, reduce_zero_label=False)
        raise ValueError(f"The masks cannot be mended without knowing what they mean: {error}") from None
    return labels


# ------------------------------------------------------------- class folders
