"""The picture loader: modes, orientation, formats, and what is no picture."""

import builtins
import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision import tv_tensors

from litevit.data import images
from litevit.data.images import (
    ImageError,
    exif_warning,
    is_image,
    read_annotated,
    read_header,
    read_image,
    turn_boxes,
    turn_pixels,
    turn_target,
)


@pytest.fixture
def save(tmp_path):
    def save(name, image, **options):
        image.save(tmp_path / name, **options)
        return tmp_path / name

    return save


def exif(orientation):
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def noise(mode="RGB", size=(7, 5)):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize(
    ("mode", "colour", "rgb"),
    [
        ("L", 200, (200, 200, 200)),
        ("1", 1, (255, 255, 255)),
        ("P", 0, (0, 0, 0)),
        ("LA", (100, 255), (100, 100, 100)),
        ("LA", (100, 0), (255, 255, 255)),
        ("RGBA", (255, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (255, 0, 0, 255), (255, 0, 0)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("I;16", 200 * 256 + 255, (200, 200, 200)),
        ("YCbCr", (255, 128, 128), (255, 255, 255)),
        ("F", 0.4, (102, 102, 102)),
        ("I", 65535, (255, 255, 255)),
    ],
)
def test_any_mode_becomes_rgb(save, mode, colour, rgb):
    suffix = "tif" if mode in ("CMYK", "YCbCr", "F", "I") else "png"
    image = read_image(save(f"a.{suffix}", Image.new(mode, (5, 4), colour)))
    assert (image.mode, image.size, image.getpixel((2, 2))) == ("RGB", (5, 4), rgb)


def test_sixteen_bits_of_grey_and_of_colour_are_scaled_alike(save, tmp_path):
    """Pillow keeps the upper byte of 16-bit colours; greys would be clipped to white by its own conversion."""
    values = np.array([[0, 255, 256, 32767], [32768, 40000, 65279, 65535]], dtype=np.uint16)
    grey = read_image(save("grey.png", Image.fromarray(values)))
    rows = b"".join(v.astype(">u2").tobytes() for v in np.repeat(values[..., None], 3, -1))
    (tmp_path / "colour.ppm").write_bytes(b"P6 4 2 65535\n" + rows)
    (tmp_path / "grey.pgm").write_bytes(b"P5 4 2 65535\n" + values.astype(">u2").tobytes())
    assert np.array_equal(np.asarray(grey)[..., 0], values >> 8)
    assert np.array_equal(np.asarray(grey), np.asarray(read_image(tmp_path / "grey.pgm")))
    colour = np.asarray(read_image(tmp_path / "colour.ppm")).astype(int)
    assert np.abs(colour - np.asarray(grey)).max() <= 1  # Pillow rounds PPM, and cuts PNG


def test_a_transparent_grey_of_sixteen_bits(save):
    values = np.array([[1000, 1001]], dtype=np.uint16)
    image = read_image(save("a.png", Image.fromarray(values), transparency=1000))
    assert [image.getpixel((x, 0))[0] for x in (0, 1)] == [255, 1001 >> 8]


def test_a_transparent_colour_of_a_palette_lies_on_white(save):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    for name in ("a.png", "a.gif"):
        read = read_image(save(name, image, transparency=0))
        assert [read.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (40, 50, 60)]


@pytest.mark.parametrize(("mode", "colour"), [("I", 70000), ("I", -1), ("F", 1.5), ("F", float("nan"))])
def test_numbers_that_say_no_brightness_are_refused(save, mode, colour):
    path = save("a.tif", Image.new(mode, (3, 3), colour))
    with pytest.raises(ImageError, match=r"a\.tif has .*values from"):
        read_image(path)


def test_cmyk_jpeg_and_the_first_frame_of_an_animation(save):
    assert read_image(save("a.jpg", Image.new("CMYK", (9, 9), (0, 0, 0, 0)))).getpixel((4, 4)) == (255, 255, 255)
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for name in ("b.gif", "b.webp", "b.png", "b.tif", "b.avif"):
        options = {"quality": 100} if name == "b.avif" else {"lossless": True} if name == "b.webp" else {}
        path = save(name, frames[0], save_all=True, append_images=frames[1:], **options)
        assert np.abs(np.array(read_image(path).getpixel((0, 0))) - (255, 0, 0)).max() <= 3, name


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif", "a.avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_every_format(save, name, orientation):
    stored = noise(size=(3, 2)).resize((48, 32), Image.Resampling.BICUBIC)
    lossy = name in ("a.jpg", "a.avif")
    path = save(name, stored, exif=exif(orientation), **({"lossless": True} if name == "a.webp" else {}))
    upright = read_image(path)
    with Image.open(path) as file:
        theirs = ImageOps.exif_transpose(file).convert("RGB")
    assert np.array_equal(np.asarray(upright), np.asarray(theirs))
    assert read_header(path) == ((32, 48), orientation)
    assert read_header(path).upright_size == np.asarray(upright).shape[:2]
    turned = turn_pixels(torch.from_numpy(np.array(stored)).permute(2, 0, 1), orientation).permute(1, 2, 0).numpy()
    error = np.abs(turned.astype(int) - np.asarray(upright)).mean()
    assert error < 8 if lossy else error == 0  # the turn of annotations is the turn of the picture
    assert np.array_equal(np.asarray(read_image(upright)), np.asarray(upright))  # and it happens once


def test_an_image_that_somebody_else_opened_is_turned_too(save):
    path = save("a.png", noise(), exif=exif(6))
    with Image.open(path) as file:
        assert np.array_equal(np.asarray(read_image(file)), np.asarray(read_image(path)))
        assert file.size == (7, 5)


def test_a_broken_exif_block_does_not_hide_a_picture(save):
    path = save("a.jpg", noise(size=(40, 40)), exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff\x12\x01")
    assert read_image(path).size == (40, 40)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_and_masks_turn_with_the_picture(save, orientation):
    """Annotations of the stored pixels: the box of an object stays the box of its pixels."""
    stored = np.zeros((16, 24), dtype=np.uint8)
    stored[3:7, 5:16] = 255
    path = save("a.png", Image.fromarray(stored), exif=exif(orientation))
    image, turn = read_annotated(path, (16, 24))
    assert turn == orientation
    target = {
        "boxes": tv_tensors.BoundingBoxes(torch.tensor([[5.0, 3, 16, 7]]), format="XYXY", canvas_size=(16, 24)),
        "masks": tv_tensors.Mask(torch.from_numpy(stored > 0)[None]),
        "labels": torch.tensor([1]),
    }
    turned = turn_target(target, turn)
    rows, columns = torch.nonzero(image[0] == 255, as_tuple=True)
    assert turned["boxes"].tolist() == [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]
    assert turned["boxes"].canvas_size == tuple(image.shape[1:])
    assert torch.equal(turned["masks"][0], image[0] == 255)
    assert turn_boxes(torch.zeros(0, 4), orientation, (16, 24)).shape == (0, 4)


def test_annotations_that_state_the_upright_size_are_not_turned(save):
    path = save("a.png", noise(size=(24, 16)), exif=exif(6))
    assert read_annotated(path, (24, 16))[1] == 1
    assert read_annotated(path, (16, 24))[1] == 6
    assert "taken as they are" in exif_warning(path, (24, 16))
    assert "turned with it" in exif_warning(path, (16, 24))
    assert "turned with it" in exif_warning(save("b.png", noise(size=(24, 24)), exif=exif(6)), (24, 24))
    assert exif_warning(save("c.png", noise())) is None
    with pytest.raises(ValueError, match=r"a\.png is 24 x 16 \(width x height\), its annotation says 30 x 16"):
        read_annotated(path, (16, 30))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif", "gif", "avif", "ppm"])
def test_truncated_files_of_every_format(save, suffix):
    path = save(f"a.{suffix}", noise(size=(200, 150)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=rf"a\.{suffix} is (damaged or truncated|not an image)") as error:
        read_image(path)
    assert str(error.value).count("a.") == 1


def test_what_is_no_picture(tmp_path):
    for name, content in (("text.jpg", b"hello"), ("empty.png", b""), ("print.png", b"%!PS-Adobe-3.0 EPSF-3.0\n")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=rf"{name} is not an image that can be read \({len(content)} bytes\)"):
            read_image(tmp_path / name)
        with pytest.raises(ImageError, match="it is called so is not an image"):
            read_image(content, name="it is called so")
        with pytest.raises(ImageError, match="is not an image"):
            read_image(io.BytesIO(content))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_image(tmp_path / "nowhere.png")
    with pytest.raises(IsADirectoryError):
        read_image(tmp_path)


def test_a_decompression_bomb_has_one_message_and_a_large_picture_none(save, monkeypatch):
    path = save("a.png", Image.new("L", (100, 100)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match=r"a\.png is too large an image"):
        read_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 6000)  # Pillow warns from here on
    images._formats.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        read_image(path)
    assert not caught


def test_heic_is_read_or_named(tmp_path, monkeypatch):
    heic = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic"
    (tmp_path / "a.heic").write_bytes(heic)
    real = builtins.__import__

    def without(name, *rest):
        if name == "pillow_heif":
            raise ImportError(name)
        return real(name, *rest)

    images.has_heic.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    try:
        with pytest.raises(ImageError, match=r"HEIC is read with pillow-heif: pip install 'litevit\[heic\]'"):
            read_image(tmp_path / "a.heic")
        assert not is_image("a.heic")
    finally:
        images.has_heic.cache_clear()


def test_a_heic_picture(tmp_path):
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    heif.register_heif_opener()
    noise(size=(64, 48)).save(tmp_path / "a.heic", quality=-1, chroma=444, exif=exif(6).tobytes())
    assert is_image("a.HEIC")
    assert read_image(tmp_path / "a.heic").size == (48, 64)


def test_which_names_are_pictures():
    assert all(map(is_image, ("a.JPG", "b/a.jfif", "a.b.Avif", "x.pgm", "C:\\x\\a.tiff")))
    assert not any(map(is_image, ("a.txt", "._a.jpg", "b/.hidden.png", "jpg", "a.svg", "a.jpg.txt")))


def test_what_is_no_source_of_a_picture_is_named_as_such():
    for array, shown in ((np.zeros((4, 5, 3), np.uint8), "ndarray"), (torch.zeros(3, 4, 5), "Tensor")):
        with pytest.raises(TypeError, match=rf"got a {shown} of shape .*: PIL.Image.fromarray makes one of"):
            read_image(array)
    with pytest.raises(TypeError, match="got a NoneType"):
        read_image(None)
