"""Hostile pictures: refused before they are decoded."""

import io
import struct
import zlib

import pytest
from PIL import Image

from hostile.kinds.images import chunk
from litevit.data.coco_masks import read_panoptic_png
from litevit.data.images import ImageError, read_image
from litevit.data.mask_labels import palette_labels, read_index_mask


def test_a_mask_of_a_format_that_starts_programs_is_no_mask(tmp_path):
    file = tmp_path / "mask.png"
    Image.new("RGB", (4, 4)).save(file, format="EPS")
    for read in (read_index_mask, read_panoptic_png, lambda path: palette_labels([path])):
        with pytest.raises((ValueError, OSError), match=r"mask\.png"):
            read(file)


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
    file = tmp_path / "bomb.png"
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10))) + chunk(b"IEND", b"")
    )
    for read in (read_index_mask, read_panoptic_png, lambda path: palette_labels([path])):
        with pytest.raises(OSError, match="too large"):
            read(file)
    with pytest.raises(ImageError, match="too large"):
        read_image(io.BytesIO(file.read_bytes()), name="bomb.png")
