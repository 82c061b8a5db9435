"""The ink of single digits, drawn by code: of the dataset, of fonts, and of single strokes."""

from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

FONTS = ("DejaVuSans", "DejaVuSans-Oblique", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSerif")
FONTS += ("DejaVuSerif-Italic", "STIXGeneral", "STIXGeneralItalic", "cmr10", "cmss10")
# Digits in single strokes, as plotters draw them: points in a box of 10 wide and 20 high.
STROKES = {
    0: ["5,0 1,4 0,10 1,16 5,20 9,16 10,10 9,4 5,0"],
    1: ["2,4 6,0 6,20"],
    2: ["0,4 2,1 5,0 8,1 10,4 9,8 0,20 10,20"],
    3: ["1,1 5,0 9,2 9,7 4,9 9,11 10,16 7,19 4,20 0,18"],
    4: ["7,20 7,0 0,14 10,14"],
    5: ["9,0 1,0 1,8 6,7 9,9 10,14 8,18 4,20 0,18"],
    6: ["9,1 5,2 1,8 0,15 3,20 7,20 10,16 9,12 6,10 2,11 0,15"],
    7: ["0,0 10,0 4,20"],
    8: ["5,9 1,6 2,1 5,0 8,1 9,6 5,9 1,12 0,16 3,20 7,20 10,16 9,12 5,9"],
    9: ["10,6 7,10 2,9 0,5 2,1 6,0 9,2 10,6 9,14 5,20"],
}


def handwritten(image: np.ndarray, size: int, pen: float) -> np.ndarray:
    """A 28×28 digit, enlarged to `size` pixels with a pen's sharp edge; pen > 0: a thicker one."""
    rows, columns = (np.flatnonzero((image > 0.2).any(axis=axis)) for axis in (1, 0))
    cut = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = size / max(cut.shape)
    shape = [max(1, round(length * scale)) for length in reversed(cut.shape)]
    large = Image.fromarray(np.pad(cut, 2)).resize(
        [length + round(4 * scale) for length in shape], Image.Resampling.BICUBIC
    )
    soft = ndimage.gaussian_filter(np.asarray(large), scale / 3)
    ink = np.clip((soft - 0.45 + pen) / 0.3 * scale / 2, 0, 1)
    return ink.astype(np.float32)


@cache
def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf", f"{name}.ttf"), size)


def printed(character: str, size: int, rng: Generator) -> np.ndarray:
    """A character of a random font, slightly tilted, `size` pixels high."""
    face = font(FONTS[rng.integers(len(FONTS))], 96)
    box = face.getbbox(character)
    image = Image.new("L", (box[2] - box[0] + 60, box[3] - box[1] + 60))
    ImageDraw.Draw(image).text((30 - box[0], 30 - box[1]), character, 255, font=face)
    return fitted(image.rotate(rng.uniform(-8, 8), Image.Resampling.BICUBIC), size)


def drawn(label: int, size: int, rng: Generator, pen: float) -> np.ndarray:
    """A digit of single strokes, `size` pixels high, its points displaced, slanted, tilted."""
    factor = 8
    slant, width = rng.uniform(-0.15, 0.25), rng.uniform(0.7, 1.1)
    image = Image.new("L", (60 * factor // 2, 60 * factor // 2))
    for line in STROKES[label]:
        points = np.array([pair.split(",") for pair in line.split()], float)
        points += rng.normal(0, 0.25, points.shape)
        curve = ndimage.zoom(points, (12, 1), order=2, mode="nearest")
        x = 10 + curve[:, 0] * width + (20 - curve[:, 1]) * slant
        xy = np.stack([x, 5 + curve[:, 1]], axis=1) * factor
        ImageDraw.Draw(image).line(
            [tuple(each) for each in xy], 255, max(2, round(pen * factor)), "curve"
        )
    return fitted(image.rotate(rng.uniform(-8, 8), Image.Resampling.BICUBIC), size)


def fitted(image: Image.Image, size: int) -> np.ndarray:
    """Cut to its ink and scaled to `size` pixels, float32 in [0, 1]."""
    image = image.crop(image.getbbox())
    scale = size / max(image.size)
    shape = [max(1, round(length * scale)) for length in image.size]
    return np.asarray(image.resize(shape, Image.Resampling.LANCZOS), np.float32) / 255
