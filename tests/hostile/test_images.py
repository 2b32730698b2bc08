"""Hostile pictures: refused before they are decoded."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from hostile.kinds.images import chunk
from litevit.data import mask_labels
from litevit.data.coco_masks import read_panoptic_png
from litevit.data.images import ImageError, read_image
from litevit.data.mask_labels import labels_of, palette_labels, read_index_mask


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


def test_masks_are_read_in_the_width_they_need(tmp_path):
    """One of 170 million pixels took 1.3 GiB for its values and as much again for its classes."""
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(pixels % 3).save(tmp_path / "a.png")
    Image.fromarray((pixels % 3).astype(np.uint16)).save(tmp_path / "b.png")
    Image.fromarray(np.repeat((pixels % 3)[..., None], 3, 2)).save(tmp_path / "c.png")
    for name, width in (("a.png", np.uint8), ("b.png", np.int32), ("c.png", np.uint8)):
        assert read_index_mask(tmp_path / name).dtype == width
        labels = labels_of(["a", "b", "c"]).read(tmp_path / name)
        assert labels.dtype == np.int16
        assert (labels == pixels % 3).all()


def test_colours_are_read_in_strips(tmp_path, monkeypatch):
    monkeypatch.setattr(mask_labels, "STRIP", 20)  # three rows
    colours = ((0, 0, 0), (128, 0, 0), (0, 128, 0))
    classes = np.random.default_rng(0).integers(0, 3, (10, 7))
    pixels = np.array(colours, dtype=np.uint8)[classes]
    pixels[9, 6] = (224, 224, 192)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    classes[9, 6] = 255
    assert (read_index_mask(tmp_path / "a.png", colours) == classes).all()
    pixels[9, 5] = (1, 2, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="has the colour 1,2,3, which the labelmap does not list"):
        read_index_mask(tmp_path / "a.png", colours)
