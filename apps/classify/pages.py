"""Test material with known truth: pages of digits on many kinds of paper.

Drawn by code, since photographs with labels are not at hand: digits of the dataset, of fonts and of
single strokes, by pens of several widths, on papers and in light of several kinds.
"""

import io
from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from skimage import data

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


class Page(NamedTuple):
    """A page and its truth: the digits in reading order, the row and centre (x, y) of each."""

    picture: np.ndarray  # uint8, shape (height, width)
    labels: np.ndarray
    rows: np.ndarray
    centres: np.ndarray


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


def other_styles(rng: Generator, count: int) -> tuple[list[np.ndarray], np.ndarray]:
    """`count` printed digits and as many of single strokes: the ink of each, and its label."""
    labels = np.arange(2 * count) % 10
    inks = [printed(str(label), 60, rng) for label in labels[:count]]
    inks += [drawn(label, 60, rng, rng.uniform(0.5, 3)) for label in labels[count:]]
    return inks, labels


class Kind(NamedTuple):
    """How a page looks. Lengths are shares of the page's width, brightness is of 1."""

    paper: float = 0.93
    ink: float = 0.15
    size: tuple[float, float] = (0.07, 0.1)  # of the digits
    pen: float = 0.0  # added to the pen's width
    source: str = "handwritten"
    ruled: bool = False
    squared: bool = False
    shadow: float = 0.0  # of the light, taken away towards a corner
    shade: float = 0.0  # of the light, taken away by something between lamp and page
    texture: float = 0.01  # standard deviation of the paper's brightness
    noise: float = 0.01
    blur: float = 0.6  # pixels
    quality: int = 90  # of the JPEG
    tilt: float = 0.0  # degrees either way
    photo: bool = False  # in perspective, on a dark table
    table: tuple[str, ...] = ()  # one of these pictures of scikit-image instead
    inverted: bool = False


KINDS = {
    "plain": Kind(),
    "grey paper": Kind(paper=0.6, ink=0.15),
    "pencil": Kind(ink=0.55, pen=-0.08),
    "thin pen": Kind(pen=-0.2, source="drawn"),
    "thick pen": Kind(pen=0.2),
    "small digits": Kind(size=(0.028, 0.034)),
    "large digits": Kind(size=(0.16, 0.2)),
    "uneven light": Kind(shadow=0.7),
    "shadow": Kind(shade=0.55),
    "ruled": Kind(ruled=True),
    "squared": Kind(squared=True),
    "ruled and tilted": Kind(ruled=True, tilt=4, shadow=0.4),
    "inverted": Kind(inverted=True),
    "blackboard": Kind(inverted=True, paper=0.7, ink=0.15, shadow=0.4, texture=0.03),
    "noise": Kind(noise=0.07, quality=30),
    "blurred": Kind(blur=2.2, quality=50),
    "photo": Kind(photo=True, shadow=0.4, noise=0.02, quality=60),
    "photo, squared": Kind(photo=True, squared=True, shade=0.4, noise=0.02, quality=60),
    "photo, rough table": Kind(photo=True, table=("brick", "gravel", "grass"), shadow=0.4),
    "printed": Kind(source="printed"),
    "single strokes": Kind(source="drawn"),
}


def draw_page(
    kind: Kind, images: np.ndarray, labels: np.ndarray, rng: Generator, shape=(800, 1000)
) -> Page:
    """A page with these digits, in as many rows as they need.

    Args:
        kind: how it looks.
        images: float32 in [0, 1], shape (N, 28, 28), used if the source is "handwritten".
        labels: shape (N,); N may be 0.
        rng: all chance in it.
        shape: of the page, height and width in pixels.
    """
    height, width = shape
    ink = np.zeros(shape, np.float32)
    margin, placed = round(0.06 * width), []
    x, row, pitch = margin, 0, round(kind.size[1] * width * 1.5)
    base = margin
    for image, label in zip(images, labels, strict=True):
        size = round(rng.uniform(*kind.size) * width)
        if kind.source == "handwritten":
            glyph = handwritten(image, size, kind.pen)
        elif kind.source == "printed":
            glyph = printed(str(label), size, rng)
        else:
            glyph = drawn(label, size, rng, max(0.4, 1.6 + 5 * kind.pen))
        if x + glyph.shape[1] > width - margin:
            x, row, base = margin, row + 1, base + pitch
        top = base + (pitch - glyph.shape[0]) // 2 + round(rng.uniform(-0.1, 0.1) * size)
        if top + glyph.shape[0] > height - margin / 2:
            break
        area = ink[top : top + glyph.shape[0], x : x + glyph.shape[1]]
        np.maximum(area, glyph[: area.shape[0], : area.shape[1]], out=area)
        placed.append((label, row, x + glyph.shape[1] / 2, top + glyph.shape[0] / 2))
        x += glyph.shape[1] + round(rng.uniform(0.25, 0.9) * size)
    truth = np.array(placed, float).reshape(-1, 4)
    paper = np.full(shape, kind.paper, np.float32)
    if kind.texture:
        grain = ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), 2)
        paper += kind.texture * grain / grain.std()
    step = width / rng.integers(18, 26)
    step *= 1 if kind.squared else 2.2
    for sheet in [paper] * (kind.ruled or kind.squared) + [paper.T] * kind.squared:
        for at in np.arange(step / 2, len(sheet), step):
            sheet[round(at) : round(at) + rng.integers(1, 3)] *= 0.75
    scene = paper * (1 - ink) + kind.ink * ink
    if kind.inverted:
        scene = 1 - scene
    centres = truth[:, 2:]
    if kind.photo or kind.tilt:
        scene, centres = photographed(scene, centres, kind, rng)
    scene = scene * light(shape, kind, rng)
    scene = ndimage.gaussian_filter(scene, kind.blur)
    scene += kind.noise * rng.standard_normal(shape, np.float32)
    file = io.BytesIO()
    pixels = np.rint(255 * np.clip(scene, 0, 1)).astype(np.uint8)
    Image.fromarray(pixels).save(file, "jpeg", quality=kind.quality)
    picture = np.asarray(Image.open(file))
    return Page(picture, truth[:, 0].astype(int), truth[:, 1].astype(int), centres)


def light(shape: tuple[int, int], kind: Kind, rng: Generator) -> np.ndarray:
    """The light on each pixel: falling off across the page, and behind the edge of a shade."""
    rows, columns = np.indices(shape) / max(shape)
    angle = rng.uniform(0, 2 * np.pi)
    along = np.cos(angle) * columns + np.sin(angle) * rows
    along = (along - along.min()) / np.ptp(along)
    bright = 1 - kind.shadow * along
    if kind.shade:
        angle, soft = rng.uniform(0, 2 * np.pi), rng.uniform(0.002, 0.05)
        across = np.cos(angle) * columns + np.sin(angle) * rows
        across += 0.1 * np.sin(6 * (rows - columns) + angle)
        edge = np.quantile(across, rng.uniform(0.3, 0.7))
        bright = bright * (1 - kind.shade / (1 + np.exp((across - edge) / soft)))
    return bright.astype(np.float32)


def photographed(
    scene: np.ndarray, centres: np.ndarray, kind: Kind, rng: Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The page turned by up to `tilt` degrees, or as a camera above a table sees it."""
    height, width = scene.shape
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], float)
    if kind.photo:
        moved = (
            corners + rng.uniform(0.02, 0.09, (4, 2)) * np.sign(corners[2] / 2 - corners) * width
        )
    else:
        turn = np.radians(rng.uniform(-kind.tilt, kind.tilt))
        rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        moved = (corners - corners[2] / 2) @ rotation + corners[2] / 2
    forward, back = homography(corners, moved), homography(moved, corners)
    rows, columns = np.indices(scene.shape)
    x, y = projected(back, np.stack([columns.ravel(), rows.ravel()], axis=1)).T
    mode = {"mode": "constant", "cval": np.nan} if kind.photo else {"mode": "nearest"}
    warped = ndimage.map_coordinates(scene, [y, x], order=1, **mode).reshape(scene.shape)
    table = np.full(scene.shape, 0.25, np.float32)
    if kind.table:
        texture = Image.fromarray(getattr(data, rng.choice(kind.table))())
        table = np.asarray(texture.resize((width, height)), np.float32) / 255
    return np.where(np.isnan(warped), table, warped), projected(forward, centres)


def homography(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The 3×3 matrix that takes four points to four others."""
    lines, values = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        lines += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return np.append(np.linalg.solve(lines, values), 1).reshape(3, 3)


def projected(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points, shape (N, 2), through a 3×3 matrix."""
    result = np.c_[points, np.ones(len(points))] @ matrix.T
    return result[:, :2] / result[:, 2:]
