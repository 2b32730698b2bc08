"""Draws what dense models find over the image, so that a person can read it at a glance.

Line widths and fonts follow the size of the picture, and small images are enlarged first. H x W is the image, h x w the
picture.
"""

import colorsys
import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from litevit.jobs.fonts import drawable, font_for, load_font

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]

LEAST_SIDE = 640  # a picture's long side is at least this
GOLDEN = 0.61803398875  # of the circle of hues: neighbours in a list are far apart
VOID_COLOUR: Colour = (0, 0, 0)


def colour(index: int, *, soft: bool = False) -> Colour:
    """The first dozens are told apart by hue, then by lightness too; `soft` ones are paler than all others."""
    shade = index // 12 % 3
    saturation, value = ((0.85, 0.95), (0.55, 1.0), (0.95, 0.65))[shade]
    if soft:
        saturation, value = ((0.35, 0.9), (0.3, 0.7), (0.5, 0.8))[shade]
    red, green, blue = colorsys.hsv_to_rgb(index * GOLDEN % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def to_picture(image: Image.Image | Tensor) -> Image.Image:
    """Args: image: PIL, or (3, H, W) RGB floats in [0, 1]. Returns: RGB, enlarged to `LEAST_SIDE` if smaller."""
    if isinstance(image, Tensor):
        pixels = (image.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8)
        image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    scale = max(LEAST_SIDE / max(image.size), 1.0)
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    return image.convert("RGB").resize(size, Image.Resampling.BICUBIC) if size != image.size else image.convert("RGB")


def draw_detections(
    image: Image.Image | Tensor,
    boxes: Tensor,
    labels: Sequence[str],
    *,
    masks: Tensor | None = None,
    colours: Sequence[Colour] | None = None,
) -> Image.Image:
    """Boxes, outlined masks, and a label on a filled box each.

    Args:
        boxes: (N, 4) xyxy, in pixels of the image, best first: the best is drawn last and has its label placed first.
        labels: what is written on each.
        masks: (N, H, W) bool.
        colours: one per object; the default is all different.
    """
    picture = to_picture(image)
    N = len(labels)
    if boxes.shape != (N, 4) or (masks is not None and len(masks) != N):
        raise ValueError(f"{N} labels need {N} boxes and masks, got boxes {tuple(boxes.shape)}")
    colours = colours or [colour(i) for i in range(N)]
    if masks is not None:
        picture = _paint(picture, masks.flip(0), list(colours)[::-1], outline=line_width(picture))
    _, H, W = image.shape if isinstance(image, Tensor) else (3, image.height, image.width)
    scaled: list[Box] = [
        (x1 * picture.width / W, y1 * picture.height / H, x2 * picture.width / W, y2 * picture.height / H)
        for x1, y1, x2, y2 in boxes.tolist()
    ]
    pen = ImageDraw.Draw(picture)
    for box, fill in reversed(list(zip(scaled, colours))):
        pen.rectangle(_inside(box, picture.size), outline=fill, width=line_width(picture))
    taken: list[Box] = []
    for box, text, fill in zip(scaled, labels, colours):
        _write_label(pen, box, text, fill, picture.size, taken)
    return picture


def draw_map(
    image: Image.Image | Tensor,
    classes: Tensor,
    names: Sequence[str],
    *,
    colours: Sequence[Colour] | None = None,
    panel_width: int | None = None,
) -> Image.Image:
    """A class map over the image, and beside it the classes that are present, the largest first.

    Args:
        classes: (H, W) integers; a value outside 0..K-1 is void and darkened.
        names: K names.
        colours: of the K classes.
        panel_width: of the legend in pixels; None fits the names.
    """
    picture = to_picture(image)
    classes = classes.detach().cpu()
    K = len(names)
    colours = colours or [colour(i) for i in range(K)]
    known = torch.where((classes >= 0) & (classes < K), classes.long(), K)
    share = torch.bincount(known.flatten(), minlength=K + 1)[:K].double() / max(classes.numel(), 1)
    present = [k for k in share.argsort(descending=True).tolist() if share[k] > 0]
    picture = _blend_map(picture, known, [*colours, VOID_COLOUR])
    rows = [(names[k], f"{100 * share[k]:.0f} %" if share[k] >= 0.01 else "< 1 %", colours[k]) for k in present]
    return beside_legend(picture, rows, width=panel_width)


def draw_panoptic(
    image: Image.Image | Tensor,
    panoptic: Tensor,
    segments_info: Sequence[dict],
    names: Sequence[str],
    *,
    panel_width: int | None = None,
) -> Image.Image:
    """Stuff in its class's pale colour, every thing in a strong one with its name on it; a legend of all beside.

    Args:
        panoptic: (H, W) segment ids, 0 = void.
        segments_info: `id`, `category_id` (a label of `names`), `isthing`, and where known `score` of each.
    """
    picture = to_picture(image)
    ids = panoptic.detach().cpu()
    segments = sorted(segments_info, key=lambda s: (not s["isthing"], -s.get("score", 0.0)))
    things = sum(bool(s["isthing"]) for s in segments)
    index = torch.full_like(ids, len(segments))
    colours = [colour(n) if n < things else colour(s["category_id"], soft=True) for n, s in enumerate(segments)]
    for n, segment in enumerate(segments):
        index[ids == segment["id"]] = n
    picture = _blend_map(picture, index, [*colours, VOID_COLOUR])
    taken: list[Box] = []
    pen = ImageDraw.Draw(picture)
    rows = []
    x_scale, y_scale = picture.width / ids.shape[1], picture.height / ids.shape[0]
    for n, segment in enumerate(segments):
        name = names[segment["category_id"]]
        rows.append((name, f"{segment['score']:.2f}" if "score" in segment else "", colours[n]))
        if segment["isthing"] and (point := _innermost((index == n).numpy())) is not None:
            x, y = point[0] * x_scale, point[1] * y_scale
            _write_label(pen, (x, y, x, y), name, colours[n], picture.size, taken, centred=True)
    return beside_legend(picture, rows, width=panel_width)


def beside_legend(
    picture: Image.Image, rows: Sequence[tuple[str, str, Colour]], *, width: int | None = None
) -> Image.Image:
    """The picture with a panel at its right: a square of colour, a name and a figure per row, as many as fit."""
    font = text_font(font_size(picture.size))
    height = round(font.size * 1.5)
    pad = height // 3
    width = width or legend_width(picture, [name for name, _, _ in rows])
    page = Image.new("RGB", (picture.width + width, picture.height), "white")
    page.paste(picture)
    pen = ImageDraw.Draw(page)
    fit = max((picture.height - pad) // height, 1)
    shown = list(rows) if len(rows) <= fit else list(rows[: fit - 1])
    left = picture.width + pad
    for n, (name, figure, fill) in enumerate(shown):
        top = pad + n * height
        side = height - pad
        pen.rectangle((left, top, left + side, top + side), fill=fill, outline="black")
        right = page.width - pad - pen.textlength(figure, font=font)
        pen.text((right, top + side / 2), figure, fill=(90, 90, 90), font=font, anchor="lm")
        room = right - pad - (left + side + pad)
        name, own = drawable(name), text_font(font.size, name)
        pen.text((left + side + pad, top + side / 2), _cut(pen, name, own, room), fill="black", font=own, anchor="lm")
    if len(shown) < len(rows):
        more = f"and {len(rows) - len(shown)} more"
        pen.text((left, pad + len(shown) * height + (height - pad) / 2), more, fill="black", font=font, anchor="lm")
    return page


def legend_width(picture: Image.Image, names: Sequence[str]) -> int:
    """Pixels that a legend of these names needs, up to 45 % of the picture's long side."""
    font = text_font(font_size(picture.size))
    longest = max((text_font(font.size, name).getlength(drawable(name)) for name in names), default=0)
    wanted = longest + font.getlength("100 %") + 4 * font.size
    return int(min(max(wanted, 8 * font.size), 0.45 * max(picture.size)))


def font_size(size: tuple[int, int]) -> int:
    return max(13, round(math.sqrt(size[0] * size[1]) / 42))


def line_width(picture: Image.Image) -> int:
    return max(2, round(max(picture.size) / 400))


def text_font(size: float, text: str = "") -> ImageFont.FreeTypeFont:
    """A font that has the characters of a text."""
    return load_font(round(size), font_for(text))


def _cut(pen: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    if pen.textlength(text, font=font) <= room:
        return text
    while text and pen.textlength(text + "…", font=font) > room:
        text = text[:-1]
    return text + "…"


def _paint(picture: Image.Image, masks: Tensor, colours: Sequence[Colour], *, outline: int) -> Image.Image:
    """Masks half transparent, later ones above earlier ones, each with an outline of its full colour."""
    canvas = np.array(picture).astype(np.float32)
    for mask, fill in zip(masks.cpu(), colours):
        small = Image.fromarray(mask.to(torch.uint8).numpy() * 255)
        area = np.asarray(small.resize(picture.size, Image.Resampling.BILINEAR)) >= 128
        rows, columns = np.flatnonzero(area.any(1)), np.flatnonzero(area.any(0))
        if not len(rows):
            continue
        window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        inside, part = area[window], canvas[window]
        part[inside] = 0.55 * part[inside] + 0.45 * np.asarray(fill, np.float32)
        part[inside & ~_eroded(inside, outline)] = fill
    return Image.fromarray(canvas.round().astype(np.uint8))


def _eroded(mask: np.ndarray, steps: int) -> np.ndarray:
    """Without its outermost `steps` pixels; what touches the border of the array counts as the outside too."""
    for _ in range(steps):
        grown = np.pad(mask, 1)
        mask = mask & grown[:-2, 1:-1] & grown[2:, 1:-1] & grown[1:-1, :-2] & grown[1:-1, 2:]
    return mask


def _innermost(mask: np.ndarray) -> tuple[float, float] | None:
    """x and y of a pixel far from the mask's edge, to a 64th of its size; None for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    step = max(math.ceil(max(rows[-1] - rows[0], columns[-1] - columns[0]) / 64), 1)
    small = mask[rows[0] : rows[-1] + 1 : step, columns[0] : columns[-1] + 1 : step]
    if not small.any():  # hatched: the samples missed it
        small, step = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], 1
    while (smaller := _eroded(small, 1)).any():
        small = smaller
    ys, xs = np.nonzero(small)
    middle = len(ys) // 2
    return float(columns[0] + xs[middle] * step) + 0.5, float(rows[0] + ys[middle] * step) + 0.5


def _blend_map(picture: Image.Image, index: Tensor, colours: Sequence[Colour]) -> Image.Image:
    """Every pixel in the colour of its index, half transparent, with a light line between different ones."""
    table = np.asarray(colours, np.float32).reshape(-1, 3)
    # Nearest neighbour by hand: indices may be larger than a byte.
    rows = (np.arange(picture.height) + 0.5) * (index.shape[0] / picture.height)
    columns = (np.arange(picture.width) + 0.5) * (index.shape[1] / picture.width)
    values = index.numpy()[rows.astype(int)[:, None], columns.astype(int)[None, :]]
    # Over the greys of the image, so that hues are those of the legend.
    out = 0.45 * np.asarray(picture.convert("L"), np.float32)[..., None] + 0.55 * table[values]
    edge = np.zeros(values.shape, bool)
    edge[:, 1:] |= values[:, 1:] != values[:, :-1]
    edge[1:] |= values[1:] != values[:-1]
    out[edge] = 255
    return Image.fromarray(out.round().clip(0, 255).astype(np.uint8))


def _inside(box: Box, size: tuple[int, int]) -> Box:
    """Cut to the picture, at least a pixel wide."""
    x1, y1 = min(max(box[0], 0), size[0] - 1), min(max(box[1], 0), size[1] - 1)
    return x1, y1, max(min(box[2], size[0] - 1), x1), max(min(box[3], size[1] - 1), y1)


def _write_label(
    pen: ImageDraw.ImageDraw,
    box: Box,
    text: str,
    fill: Colour,
    size: tuple[int, int],
    taken: list[Box],
    *,
    centred: bool = False,
) -> None:
    """Text on a filled box where no label is yet: at a corner of `box`, above it if possible, or at its middle."""
    text, font = drawable(text), text_font(font_size(size), text)
    pad = max(2, round(font.size) // 6)
    text = _cut(pen, text, font, size[0] - 2 * pad)
    width, height = pen.textlength(text, font=font) + 2 * pad, font.size + 2 * pad
    x1, y1, x2, y2 = _inside(box, size)
    corners = [(x1, y1 - height), (x2 - width, y1 - height), (x1, y2), (x2 - width, y2),
               (x1, y1), (x2 - width, y1), (x1, y2 - height), (x2 - width, y2 - height)]  # fmt: skip
    if centred:
        x, y = (x1 + x2 - width) / 2, (y1 + y2 - height) / 2
        corners = [(x, y), (x, y - height), (x, y + height), (x - width / 2, y), (x + width / 2, y)]
    places = [_moved_inside(x, y, width, height, size) for x, y in corners]
    place = next((p for p in places if not any(_overlap(p, other) for other in taken)), places[0])
    taken.append(place)
    pen.rectangle(place, fill=fill)
    dark = 0.299 * fill[0] + 0.587 * fill[1] + 0.114 * fill[2] > 140
    middle = ((place[0] + place[2]) / 2, (place[1] + place[3]) / 2)
    pen.text(middle, text, fill="black" if dark else "white", font=font, anchor="mm")


def _moved_inside(x: float, y: float, width: float, height: float, size: tuple[int, int]) -> Box:
    x, y = max(min(x, size[0] - width), 0), max(min(y, size[1] - height), 0)
    return x, y, x + width, y + height


def _overlap(a: Box, b: Box) -> bool:
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])
