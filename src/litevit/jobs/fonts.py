"""Fonts that have the characters of class names: umlauts, Greek, Cyrillic, Chinese, Japanese, Korean, ...

Pillow's own font has basic Latin. DejaVu (it comes with matplotlib) has most alphabets, Noto CJK and the systems' own
fonts the rest. What no font here has is written as its Unicode number, so that names can still be told apart.
"""

import importlib.util
import warnings
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

# In this order, and as Pillow finds them in the systems' font folders.
FILES = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "NotoSansSC-Regular.otf", "NotoSansJP-Regular.otf",
    "NotoSansKR-Regular.otf", "SourceHanSans-Regular.ttc", "DroidSansFallbackFull.ttf", "wqy-microhei.ttc",
    "wqy-zenhei.ttc", "ipag.ttf", "unifont.otf",  # Linux
    "PingFang.ttc", "Hiragino Sans GB.ttc", "AppleSDGothicNeo.ttc", "Arial Unicode.ttf",  # macOS
    "msyh.ttc", "YuGothM.ttc", "malgun.ttf", "simsun.ttc",  # Windows
)  # fmt: skip
NOWHERE = "\U0010fffe"  # a character that no font has: it shows what a font draws for a missing one
INSTALL = "Noto Sans CJK (Debian, Ubuntu: fonts-noto-cjk) or another font with them"

Font = ImageFont.FreeTypeFont


@lru_cache(maxsize=1)
def font_files() -> tuple[str, ...]:
    """Those of `FILES` that are on this machine."""
    found = []
    spec = importlib.util.find_spec("matplotlib")
    folders = [Path(place) / "mpl-data" / "fonts" / "ttf" for place in (spec and spec.submodule_search_locations) or ()]
    for name in FILES:
        inside = next((str(folder / name) for folder in folders if (folder / name).is_file()), name)
        try:
            found.append(str(ImageFont.truetype(inside, 12).path))
        except OSError:
            continue
    return tuple(found)


@lru_cache(maxsize=64)
def load_font(size: int, file: str | None = None) -> Font:
    """Args: file: None takes Pillow's own."""
    font = ImageFont.load_default(size) if file is None else ImageFont.truetype(file, size)
    if not isinstance(font, Font):
        raise ImportError("Drawing text needs Pillow with FreeType support: pip install --upgrade pillow")
    return font


@lru_cache(maxsize=4096)
def has(file: str | None, character: str) -> bool:
    """Whether a font draws a character of its own."""
    if character.isspace():
        return True
    font = load_font(20, file)
    return bytes(font.getmask(character)) != bytes(font.getmask(NOWHERE))


@lru_cache(maxsize=1024)
def font_for(text: str) -> str | None:
    """The file of the first font that has all characters of a text, or most of them; None: Pillow's own."""
    files = (None, *font_files())
    return max(files, key=lambda file: sum(has(file, character) for character in text))  # the first of equal ones


def drawable(text: str) -> str:
    """A text with the characters that its font lacks as numbers, `U+732B`."""
    file = font_for(text)
    drawn = "".join(c if has(file, c) else f"U+{ord(c):04X}" for c in text)
    if drawn != text:
        warnings.warn(
            "some names have characters that no font here has; pictures show their Unicode numbers. "
            f"Install {INSTALL}.",
            stacklevel=1,  # once, whoever draws
        )
    return drawn


def families(texts: list[str] | tuple[str, ...]) -> list[str]:
    """For matplotlib: the names of the fonts that all of the texts need, DejaVu first."""
    from matplotlib import font_manager

    names = ["DejaVu Sans"]
    for file in dict.fromkeys(font_for(text) for text in texts):
        if file is None:
            continue
        font_manager.fontManager.addfont(file)
        name = font_manager.FontProperties(fname=file).get_name()
        if name not in names:
            names.append(name)
    return names
