"""Test material with known truth: pages of digits on many kinds of paper.

Drawn by code, since photographs with labels are not at hand: digits of the dataset, of fonts and of
single strokes, by pens of several widths, on papers and in light of several kinds.
"""

import io
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from PIL import Image
from scipy import ndimage
from skimage import data

from benchmarks.drawn.glyphs import drawn, handwritten, printed


class Page(NamedTuple):
    """A page and its truth: the digits in reading order, the row and centre (x, y) of each."""

    picture: np.ndarray  # uint8, shape (height, width)
    labels: np.ndarray
    rows: np.ndarray
    centres: np.ndarray


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
