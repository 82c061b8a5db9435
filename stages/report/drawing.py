"""What all pictures share: their letters, names of classes as these can be drawn, their files.

The font is DejaVu Sans as Matplotlib carries it, whatever a user or a system has: the same inputs
give the same bytes.
"""

import functools
import importlib.util
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageFont
from PIL.ImageFont import FreeTypeFont

from stages.base.files import atomic_output

DPI = 200  # pixels to an inch: what fills the width of a page is fit for print
MANY = 3000  # colours: drawings have fewer, photographs more
LONGEST = 20  # letters of a class's name; of a longer one, both ends


@functools.cache
def font(size: int, bold: bool = False) -> FreeTypeFont:
    """The font in some size; letters stand one after another, on every system."""
    package = Path(importlib.util.find_spec("matplotlib").origin).parent
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    path = package / "mpl-data/fonts/ttf" / name
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


def drawable(name: str, otherwise: str) -> str:
    """A name in one line, of a long one both ends; `otherwise` if the font lacks a letter of it."""
    name = unicodedata.normalize("NFC", " ".join(name.split()))
    lacking = bytes(font(20).getmask("\U0010ffff"))
    if any(bytes(font(20).getmask(letter)) == lacking for letter in set(name)):
        return otherwise
    half = LONGEST // 2
    return name if len(name) <= LONGEST else f"{name[:half].strip()}…{name[1 - half :].strip()}"


def names(classes: Sequence[str]) -> list[str]:
    """The classes' names as they can be drawn; else, for label 3, "class 3"."""
    return [drawable(name, f"class {label}") for label, name in enumerate(classes)]


def save(picture: Image.Image, path: Path) -> None:
    """Write a PNG; the same picture, the same bytes. Unless it shows photographs, it is reduced to
    256 colours, which makes a third of the size."""
    if picture.getcolors(MANY):
        picture = picture.quantize(256, Image.Quantize.FASTOCTREE)  # a fifth of the default's time
    with atomic_output(path) as temporary:
        picture.save(temporary, format="png", optimize=True, dpi=(DPI, DPI))
