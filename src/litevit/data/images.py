"""The one way of a picture into a model: class folders, tars, shards, COCO, masks, `predict` and the doctor read here.

What every path sees is the picture as a person sees it, in RGB with 8 bits:

* turned upright by its EXIF orientation;
* 16-bit values are scaled to 8 (their upper byte, as Pillow does it for colours), floats in 0..1 by 255;
* what is transparent lies on white;
* palettes, CMYK, grey and bilevel become RGB; of an animation the first frame counts.

Annotations with coordinates (boxes, masks) belong to the pixels whose size they state: of the picture as it is stored,
which is what COCO's own tools mean, or of the upright one, which labelling tools in a browser show. Where both have one
size (squares, half turns), the stored pixels are meant. The picture is upright in either case: `read_annotated` says
whether its annotations have to be turned with it.
"""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision import tv_tensors

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "AVIF", "PPM", "HEIF")  # Pillow's names
READABLE = "JPEG (also .jfif), PNG, WebP, BMP, TIFF, GIF, AVIF, PPM"
SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".avif",
    ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
HEIC_SUFFIXES = (".heic", ".heif", ".hif")
NO_HEIC = "HEIC is read with pillow-heif: pip install 'litevit[heic]', or convert the file to JPEG"
BACKGROUND = "white"  # what transparent pixels show

ORIENTATION = 0x0112  # EXIF's tag
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# The same turns as: first swap rows and columns, then mirror left and right, then top and bottom.
STEPS = {1: (0, 0, 0), 2: (0, 1, 0), 3: (0, 1, 1), 4: (0, 0, 1), 5: (1, 0, 0), 6: (1, 1, 0), 7: (1, 1, 1), 8: (1, 0, 1)}


class ImageError(ValueError):
    """A file that is no picture, or a broken one: `<name> <reason>`."""

    def __init__(self, name: str, reason: str = ""):  # a loader's worker sends it as one string
        super().__init__(f"{name} {reason}" if reason else name)
        self.reason = reason or name


class Header(NamedTuple):
    """What is known of a picture without decoding it."""

    size: tuple[int, int]  # (H, W) of the stored pixels
    orientation: int  # EXIF's, 1 (upright) to 8

    @property
    def upright_size(self) -> tuple[int, int]:
        return self.size[::-1] if STEPS[self.orientation][0] else self.size

    @property
    def is_ambiguous(self) -> bool:
        """Whether a stated size says nothing of which picture is meant: squares, half turns, upright pictures."""
        return self.size == self.upright_size


def suffixes() -> tuple[str, ...]:
    """File name endings, in lower case, of what can be read here."""
    return SUFFIXES + (HEIC_SUFFIXES if has_heic() else ())


def is_image(name: str | Path) -> bool:
    """By the ending of its name; hidden files (`._x.jpg`) are none."""
    base = str(name).replace("\\", "/").rpartition("/")[2]
    return base.lower().endswith(suffixes()) and not base.startswith(".")


@lru_cache(maxsize=1)
def has_heic() -> bool:
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow knows. Others (EPS, PDF: they start other programs) are never opened."""
    has_heic()
    Image.init()
    # Pillow refuses above 179 million pixels; its warning from half of that on says nothing one could act upon.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    return tuple(name for name in FORMATS if name in Image.OPEN)


def read_image(source: Any, *, name: str | None = None) -> Image.Image:
    """A picture as RGB, upright.

    Args:
        source: a path, the bytes of a file, a binary file, or a Pillow image (which stays as it is).
        name: what messages call it, where it is not a path.

    Returns:
        A new Pillow image of the mode RGB, turned as its EXIF says.

    Raises:
        FileNotFoundError: there is no such file.
        ImageError: it is no picture, damaged, truncated, or larger than Pillow's limit of 179 million pixels.
        TypeError: something else than `source` may be, such as an array.
    """
    if isinstance(source, Image.Image):
        try:
            return _upright(source, name or "an image")
        except (OSError, SyntaxError) as error:  # opened by somebody else, decoded here
            raise ImageError(name or "an image", f"is damaged or truncated: {error}") from None
    with _opened(source, name) as image:
        return _upright(image, _name_of(source, name))


def read_annotated(
    path: str | Path,
    size: tuple[int, ...] | None = None,
    *,
    stated_by: str = "its annotation says",
    upright: Callable[[], bool] | None = None,
) -> tuple[tv_tensors.Image, int]:
    """A picture with annotations.

    Args:
        size: (H, W) that the annotations state; another size than the stored or the upright one raises.
        stated_by: how the message begins what it says about `size`.
        upright: whether the annotations of turned photos mean the upright picture, asked where both sizes are the same;
            None: they mean the stored pixels.

    Returns:
        The upright picture (3, H, W) uint8, and the EXIF orientation by which the annotations have to be turned
        (`turn_target`): 1 where they belong to the upright picture already.
    """
    with _opened(path, None) as file:
        header = _header(file)
        pixels = np.array(_upright(file, str(path)))
    turn = header.orientation
    if size is not None and tuple(size) != header.size:
        if tuple(size) != header.upright_size:
            raise ValueError(
                f"image {path} is {header.size[1]} x {header.size[0]} (width x height), "
                f"{stated_by} {size[1]} x {size[0]}"
            )
        turn = 1
    elif turn != 1 and header.is_ambiguous and upright is not None and upright():
        turn = 1
    return tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1).contiguous()), turn


def means_upright(pictures: Iterable[tuple[Header | Path, tuple[Any, Any]]]) -> bool:
    """What a set's annotations mean by its turned squares and half turns, whose size tells nothing: what they mean by
    the first turned photo whose size does; the stored pixels where there is none.

    Args:
        pictures: a picture or its header, and the (H, W) that the annotations state; 0 or None: they do not.
    """
    for picture, size in pictures:
        if isinstance(picture, Path):
            try:
                picture = read_header(picture)
            except (ImageError, OSError):  # said where it is read
                continue
        stated = size if all(size) else picture.upright_size  # as sizes that are not stated are read
        if not picture.is_ambiguous and stated in (picture.size, picture.upright_size):
            return stated == picture.upright_size
    return False


def read_header(source: Any, *, name: str | None = None) -> Header:
    """Size and orientation of a file, without decoding it. Args: as `read_image`, but no Pillow image."""
    with _opened(source, name) as image:
        return _header(image)


def decode(source: Any, *, name: str) -> tuple[Header, str, int]:
    """Decodes a file without converting it, to see whether that goes. Returns: header, Pillow's mode, frames."""
    with _opened(source, name) as image:
        header, mode = _header(image), image.mode
        frames = getattr(image, "n_frames", 1) if image.format in ("GIF", "WEBP", "AVIF", "PNG") else 1
        image.load()
    return header, mode, frames


def exif_warning(path: str | Path, size: tuple[int, int] | None = None) -> str | None:
    """What a person who has annotated a picture should know of its EXIF orientation; None: it is stored upright.

    Args:
        size: (H, W) that the annotations state; None: a mask's own size.
    """
    header = read_header(path)
    if header.orientation == 1:
        return None
    if size is not None and tuple(size) == header.upright_size != header.size:
        meant = "the annotations state the size of the upright picture, so they are taken as they are"
    else:
        meant = "the annotations are taken to mean the stored pixels and are turned with it"
    return f"{path} is turned upright on reading (EXIF orientation {header.orientation}); {meant}"


def turn_pixels(pixels: Tensor, orientation: int) -> Tensor:
    """Args: pixels: (..., H, W) as stored. Returns: the same upright."""
    swap, across, down = STEPS[orientation]
    pixels = pixels.transpose(-1, -2) if swap else pixels
    turned = [axis for axis, flip in ((-1, across), (-2, down)) if flip]
    return pixels.flip(turned) if turned else pixels


def turn_boxes(boxes: Tensor, orientation: int, size: tuple[int, int]) -> Tensor:
    """Args: boxes: (N, 4) xyxy in the stored pixels; size: their (H, W). Returns: the same in the upright picture."""
    swap, across, down = STEPS[orientation]
    (x1, y1, x2, y2), (H, W) = boxes.unbind(-1), size
    if swap:
        x1, y1, x2, y2, H, W = y1, x1, y2, x2, W, H
    if across:
        x1, x2 = W - x2, W - x1
    if down:
        y1, y2 = H - y2, H - y1
    return torch.stack([x1, y1, x2, y2], -1)


def turn_target(target: dict[str, Any], orientation: int) -> dict[str, Any]:
    """Boxes and masks of a target, made for the stored pixels, in the upright picture; everything else stays."""
    if orientation == 1:
        return target
    turned = dict(target)
    for key, value in target.items():
        if isinstance(value, tv_tensors.BoundingBoxes):
            size = value.canvas_size
            boxes = turn_boxes(value.as_subclass(Tensor), orientation, size)
            upright = Header(size, orientation).upright_size
            turned[key] = tv_tensors.BoundingBoxes(boxes, format=value.format, canvas_size=upright)  # type: ignore[call-overload]
        elif isinstance(value, tv_tensors.Mask):
            turned[key] = tv_tensors.Mask(turn_pixels(value.as_subclass(Tensor), orientation).contiguous())
    return turned


# ---------------------------------------------------------------- decoding


@contextlib.contextmanager
def open_stored(path: str | Path, what: str) -> Iterator[Image.Image]:
    """A mask or map as it is stored, with its own mode and palette; of the formats that pictures may have.

    Args:
        what: it is, for messages.

    Raises:
        OSError: it is no picture, damaged, truncated or too large; whatever goes wrong inside the block too.
    """
    try:
        with _opened(path, None) as image:
            yield image
    except ImageError as error:
        raise OSError(f"{what} {path} cannot be decoded: {str(error).removeprefix(str(path)).strip()}") from None


def _name_of(source: Any, name: str | None) -> str:
    return name or (str(source) if isinstance(source, str | Path) else "an image")


@contextlib.contextmanager
def _opened(source: Any, name: str | None) -> Iterator[Image.Image]:
    """An image file with its header read; whatever is wrong with it, then or while it is decoded, has one message."""
    shown = _name_of(source, name)
    if not (isinstance(source, str | bytes | Path) or hasattr(source, "read")):
        raise TypeError(f"a picture is a path, the bytes of a file or a Pillow image, got {_what_else(source)}")
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(file, formats=_formats()) as image:
            yield image
    except ImageError:
        raise
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise type(error)(f"{shown}: {error.strerror}") from None
    except UnidentifiedImageError:
        raise ImageError(shown, _unidentified(source)) from None
    except Image.DecompressionBombError as error:
        raise ImageError(shown, f"is too large an image: {error}") from None
    except Exception as error:  # decoders of damaged files raise OSError, SyntaxError, ValueError, struct.error, ...
        raise ImageError(shown, f"is damaged or truncated: {error}") from None


def _what_else(source: Any) -> str:
    if hasattr(source, "shape"):
        hint = "PIL.Image.fromarray makes one of (H, W, 3) uint8 in RGB"
        return f"a {type(source).__name__} of shape {tuple(source.shape)}: {hint}"
    return f"a {type(source).__name__}"


def _unidentified(source: Any) -> str:
    if isinstance(source, bytes):
        content, length = source, len(source)
    elif isinstance(source, str | Path):
        with open(source, "rb") as file:
            content = file.read(64)
        length = Path(source).stat().st_size
    else:
        source.seek(0)
        content = source.read()
        length = len(content)
    if content[4:8] == b"ftyp":
        brand = content[8:12]
        if brand in (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1") and not has_heic():
            return f"cannot be read: {NO_HEIC}"
        if brand in (b"avif", b"avis") and "AVIF" not in _formats():
            return "cannot be read: AVIF needs Pillow 11.3 or newer"
    return f"is not an image that can be read ({length} bytes); what can: {READABLE}"


def _header(image: Image.Image) -> Header:
    orientation = _orientation(image)
    width, height = image.size
    # Pillow gives a TIFF's size after the turn that it will make on loading.
    turned = image.format == "TIFF" and STEPS[orientation][0]
    return Header((width, height) if turned else (height, width), orientation)


def _orientation(image: Image.Image) -> int:
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # a broken EXIF block raises as many kinds as a broken picture, and the picture may be whole
        return 1
    return found if isinstance(found, int) and found in TURNS else 1


def _upright(image: Image.Image, name: str) -> Image.Image:
    image.load()  # Pillow turns a TIFF here, and forgets its orientation
    rgb = _to_rgb(image, name)
    orientation = _orientation(image)
    if orientation != 1:
        rgb = rgb.transpose(TURNS[orientation])
    if rgb is not image:
        rgb.info.clear()  # the orientation too: it is spent
    return rgb


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    transparent = image.info.get("transparency")
    if image.mode == "RGB" and transparent is None:
        return image
    if image.mode.startswith("I"):
        image = _from_integers(image, transparent, name)
    elif image.mode == "F":
        image = _from_floats(image, name)
    if image.mode == "La":
        image = image.convert("LA")
    palette_alpha = image.mode == "P" and image.palette is not None and image.palette.mode.endswith("A")
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or palette_alpha or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, BACKGROUND), image).convert("RGB")
    try:
        return image.convert("RGB")
    except ValueError:
        raise ImageError(name, f"has pixels of the mode {image.mode}, which has no plain conversion to RGB") from None


def _from_integers(image: Image.Image, transparent: Any, name: str) -> Image.Image:
    values = np.asarray(image)
    if image.mode == "I" and (values.min() < 0 or values.max() > 0xFFFF):  # 32 bits: nothing says what white is
        raise ImageError(
            name, f"has values from {values.min()} to {values.max()}; a picture has 8 or 16 bits: save it so"
        )
    grey = Image.fromarray((values >> 8).astype(np.uint8))
    if isinstance(transparent, int):  # one of the 65,536 greys
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


def _from_floats(image: Image.Image, name: str) -> Image.Image:
    values = np.asarray(image)
    if not (values.min() >= 0 and values.max() <= 1):  # nan is neither
        raise ImageError(
            name,
            f"has float values from {values.min():g} to {values.max():g}; floats must lie in 0..1, "
            "or save it with 8 or 16 bits",
        )
    return Image.fromarray((values * 255).round().astype(np.uint8))
