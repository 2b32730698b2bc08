"""What scenes are made of: the shapes of things, the textures of things and grounds. See `litevit.data.scenes`."""

from collections.abc import Callable

import numpy as np
from PIL import Image as PILImage

Array = np.ndarray
Rng = np.random.Generator


# Shapes: (u, v) in units of the radius, turned -> inside. Of about equal area, so that size tells nothing.


def _disc(u: Array, v: Array) -> Array:
    return u**2 + v**2 <= 0.85**2


def _square(u: Array, v: Array) -> Array:
    return np.maximum(abs(u), abs(v)) <= 0.75


def _triangle(u: Array, v: Array) -> Array:
    side = np.sqrt(3) * u
    return (v <= 0.6) & (v >= side - 1.1) & (v >= -side - 1.1)


def _cross(u: Array, v: Array) -> Array:
    return (np.minimum(abs(u), abs(v)) <= 0.3) & (np.maximum(abs(u), abs(v)) <= 0.95)


def _ring(u: Array, v: Array) -> Array:
    squared = u**2 + v**2
    return (squared <= 1) & (squared >= 0.55**2)


SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "disc": _disc,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "ring": _ring,
}


# Textures: a pattern (H, W) in [0, 1] that mixes two colours.


def noise(rng: Rng, height: int, width: int, cell: float) -> Array:
    """Smooth noise with features of about `cell` pixels."""
    grid = rng.random((int(height / cell) + 3, int(width / cell) + 3), dtype=np.float32)
    picture = PILImage.fromarray(grid).resize((width, height), PILImage.Resampling.BICUBIC)
    return np.clip(np.asarray(picture), 0, 1)


def plane(rng: Rng, height: int, width: int) -> tuple[Array, Array]:
    """Pixel coordinates, turned and shifted at random."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    angle, shift = rng.uniform(0, np.pi), rng.uniform(0, 32, size=2)
    return x * np.cos(angle) + y * np.sin(angle) + shift[0], y * np.cos(angle) - x * np.sin(angle) + shift[1]


def _stripes(rng: Rng, height: int, width: int) -> Array:
    u, _ = plane(rng, height, width)
    return 0.5 + 0.5 * np.sin(u * 2 * np.pi / rng.uniform(5, 12))


def _checks(rng: Rng, height: int, width: int) -> Array:
    u, v = plane(rng, height, width)
    cell = rng.uniform(4, 8)
    return ((u // cell + v // cell) % 2).astype(np.float32)


def _dots(rng: Rng, height: int, width: int) -> Array:
    u, v = plane(rng, height, width)
    cell = rng.uniform(5, 9)
    return ((u % cell - cell / 2) ** 2 + (v % cell - cell / 2) ** 2 < (cell / 3) ** 2).astype(np.float32)


def _marble(rng: Rng, height: int, width: int) -> Array:
    return noise(rng, height, width, rng.uniform(4, 16))


def _bars(rng: Rng, height: int, width: int) -> Array:
    u, _ = plane(rng, height, width)
    return (u % 10 < rng.uniform(3, 6)).astype(np.float32)


# The texture that is typical of each shape.
TEXTURES: dict[str, Callable[[Rng, int, int], Array]] = {
    "disc": _dots,
    "square": _checks,
    "triangle": _stripes,
    "cross": _marble,
    "ring": _bars,
}


def _grass(rng: Rng, height: int, width: int) -> Array:
    blades = PILImage.fromarray(rng.random((height // 4 + 1, width), dtype=np.float32))
    return np.asarray(blades.resize((width, height), PILImage.Resampling.BILINEAR))


def _water(rng: Rng, height: int, width: int) -> Array:
    y = np.arange(height, dtype=np.float32)[:, None] + 6 * noise(rng, height, width, 24)
    return 0.5 + 0.5 * np.sin(y * 2 * np.pi / rng.uniform(7, 10))


def _sand(rng: Rng, height: int, width: int) -> Array:
    return rng.random((height, width), dtype=np.float32)


def _brick(rng: Rng, height: int, width: int) -> Array:
    y, x = np.mgrid[0:height, 0:width] + rng.integers(0, 16, size=(2, 1, 1))
    row = y // 6
    return ((y % 6 > 0) & ((x + row % 2 * 6) % 12 > 0)).astype(np.float32)


def _rock(rng: Rng, height: int, width: int) -> Array:
    return 0.5 * noise(rng, height, width, 12) + 0.5 * noise(rng, height, width, 3)


# Pattern and the two colours it mixes, before every scene's own jitter.
GROUNDS: dict[str, tuple[Callable[[Rng, int, int], Array], tuple[int, int, int], tuple[int, int, int]]] = {
    "grass": (_grass, (40, 90, 40), (110, 160, 70)),
    "water": (_water, (40, 80, 140), (110, 150, 190)),
    "sand": (_sand, (150, 125, 80), (215, 195, 140)),
    "brick": (_brick, (190, 180, 170), (150, 70, 55)),
    "rock": (_rock, (70, 70, 75), (160, 160, 165)),
}
