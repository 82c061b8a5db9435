"""Scenes the finder learns from, drawn by code: pages, tables, single digits, and what is none.

Digits are MNIST's training images, redrawn with pens of every width (its own strokes look like no
ballpoint's), those of fonts, and of plotters' single strokes; letters, signs, words, scribbles,
shapes, lines and photographs are what is no digit. All chance is the generator's.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib
import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFont
from skimage import data
from skimage.morphology import skeletonize
from sklearn.datasets import load_sample_image

FONTS = "DejaVuSans DejaVuSans-Oblique DejaVuSans-Bold DejaVuSansMono DejaVuSansMono-Bold "
FONTS += "DejaVuSerif DejaVuSerif-Bold DejaVuSerif-Italic STIXGeneral STIXGeneralBol "
FONTS = (FONTS + "STIXGeneralItalic cmr10 cmss10 cmb10 cmtt10 cmti10").split()
LETTERS = "ABCDEFGHJKLMNPQRTUVWXYabcdefhjkmnprtuvwxyz"  # none that alone looks like a digit
SIGNS = "+-=(){}[]<>%&?#*@+-=(){}/\\^~$"
WORDS = "abcdefghijklmnopqrstuvwxyz" * 3 + "eetaoinsoil" * 4 + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# Photographs without a digit; benchmarks.pages tries others.
PHOTOS = "astronaut coffee gravel hubble_deep_field horse retina immunohistochemistry "
PHOTOS = (PHOTOS + "microaneurysms page text cell").split()
LARGE = 112  # pixels in which a digit of 28×28 is redrawn
TOUCH = 0.4  # of full ink: the outline of a digit


class Scene(NamedTuple):
    """A picture, uint8, shape (height, width), and where its digits are.

    owner: the number of the digit that each pixel is ink of, from 1, uint16; 0 elsewhere.
    labels: of the digits 1, 2, …; shape (N,).
    """

    picture: np.ndarray
    owner: np.ndarray
    labels: np.ndarray


class Sheet:
    """What is on a sheet: its ink, in [0, 1], and of which digit it is."""

    def __init__(self, height: float, width: float):
        self.ink = np.zeros((max(4, int(height)), max(4, int(width))), np.float32)
        self.owner = np.zeros(self.ink.shape, np.uint16)
        self.labels: list[int] = []

    def put(self, ink: np.ndarray, x: float, y: float, digit: int | None = None) -> None:
        """Add a piece of ink with its upper left corner there, cut at the sheet's edge."""
        x, y = int(x), int(y)
        left, top = max(0, -x), max(0, -y)
        place = slice(y + top, y + ink.shape[0]), slice(x + left, x + ink.shape[1])
        area = self.ink[place]
        piece = ink[top : top + area.shape[0], left : left + area.shape[1]]
        np.maximum(area, piece, out=area)
        if digit is not None:
            self.labels.append(digit)
            self.owner[place][piece > TOUCH] = len(self.labels)


class Writer:
    """One hand with one pen, or one font, for a whole scene.

    Args:
        images, labels: of training digits, uint8, shape (N, 28, 28) and (N,).
    """

    def __init__(self, rng: Generator, images: np.ndarray, labels: np.ndarray):
        self.rng, self.images, self.labels = rng, images, labels
        self.kind = rng.choice(("pen", "pen", "pen", "edge", "soft", "pixels", "plotted", "font"))
        self.pen = LARGE * spread(rng, 0.014, rng.choice([0.08, 0.26]))
        self.softness = LARGE * rng.uniform(0.01, 0.08)
        by_font = self.kind == "font" or rng.random() < 0.3
        self.font = FONTS[rng.integers(len(FONTS))] if by_font else int(rng.integers(8))
        self.warp = rng.choice([0, 0, 0.03] if by_font else [0.02, 0.04, 0.06])

    def digit(self, size: float) -> tuple[np.ndarray, int]:
        """A digit `size` pixels high or wide, and which one."""
        rng, kind = self.rng, self.kind
        label = int(rng.integers(10))
        if kind == "font":
            return fitted(self.text(str(label)), size), label
        if kind == "plotted":
            lines = plotted(str(label), cv2.FONT_HERSHEY_SIMPLEX, 1)
            return fitted(self.redrawn(warped(lines, rng, 0.03) > 0.3), size), label
        number = rng.integers(len(self.images))
        image, label = self.images[number], int(self.labels[number])
        if kind == "pixels":  # enlarged without smoothing
            large = cv2.resize(image, (LARGE, LARGE), interpolation=cv2.INTER_NEAREST)
            return fitted(large / np.float32(255), size), label
        large = cv2.resize(image, (LARGE, LARGE), interpolation=cv2.INTER_CUBIC)
        large = cv2.GaussianBlur(large / np.float32(255), (0, 0), 1.5)
        if kind == "pen":
            return fitted(self.redrawn(skeletonize(large > 0.5)), size), label
        if kind == "edge":
            large = np.clip((large - rng.uniform(0.25, 0.6)) / rng.uniform(0.05, 0.4) + 0.5, 0, 1)
        return fitted(large, size), label

    def redrawn(self, line: np.ndarray, widest: float = LARGE) -> np.ndarray:
        """A thin line, bool, drawn with the pen, which is at most so wide."""
        distance = cv2.distanceTransform(1 - np.pad(line, 16).view(np.uint8), cv2.DIST_L2, 5)
        width = min(self.pen, widest) * self.rng.uniform(0.85, 1.15)
        return np.clip((width / 2 - distance) / max(1, self.softness) + 0.5, 0, 1)

    def text(self, text: str) -> np.ndarray:
        """In the writer's font, or by hand in single strokes."""
        if isinstance(self.font, int):
            ink = warped(plotted(text, self.font, 2), self.rng, self.warp)
            return self.redrawn(ink > 0.3, LARGE / 8)
        face = font(self.font)
        left, top, right, bottom = face.getbbox(text)
        image = Image.new("L", (right - left + 20, bottom - top + 20))
        ImageDraw.Draw(image).text((10 - left, 10 - top), text, 255, font=face)
        ink = np.asarray(image) / np.float32(255)
        return warped(ink, self.rng, self.warp) if self.warp else ink

    def other(self, size: float) -> np.ndarray:
        """Something on a line `size` pixels high that is no digit."""
        rng = self.rng
        draw = rng.random()
        if draw < 0.08:
            return scribble(rng, size)
        if draw < 0.3:
            ink = self.text("".join(rng.choice(list(WORDS), rng.integers(2, 9))))
            return fitted(ink, size * max(1, ink.shape[1] / ink.shape[0]))
        if draw < 0.4:
            return fitted(self.text(rng.choice(list(".,-'\""))), max(2, size * 0.2))
        if draw < 0.48:
            return fitted(self.text(rng.choice(list("(){}[]|"))), size * rng.uniform(1.1, 3))
        return fitted(self.text(rng.choice(list(LETTERS if draw < 0.8 else SIGNS))), size)


def spread(rng: Generator, low: float, high: float) -> float:
    """A number between both, small ones as likely as large ones."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


@cache
def font(name: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf", f"{name}.ttf"), 72)


@cache
def photos() -> list[np.ndarray]:
    """Photographs without a digit in them, grey."""
    found = [getattr(data, name)() for name in PHOTOS] + [load_sample_image("china.jpg")]
    sample = Path(matplotlib.get_data_path(), "sample_data/grace_hopper.jpg")
    return [
        np.asarray(
            Image.fromarray(np.uint8(each * 255) if each.dtype == bool else each).convert("L")
        )
        for each in [*found, np.asarray(Image.open(sample)), *data.stereo_motorcycle()[:1]]
    ]


def plotted(text: str, face: int, thickness: int) -> np.ndarray:
    """A text in one of OpenCV's fonts of lines."""
    (width, height), below = cv2.getTextSize(text, face, 3, thickness)
    image = np.zeros((height + below + 40, width + 40), np.uint8)
    cv2.putText(image, text, (20, height + 20), face, 3, 255, thickness, cv2.LINE_AA)
    return image / np.float32(255)


def fitted(ink: np.ndarray, size: float) -> np.ndarray:
    """Cut to its ink, the longer side scaled to `size` pixels."""
    inked = ink > TOUCH
    rows, columns = (np.flatnonzero(inked.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return np.zeros((2, 2), np.float32)
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = size / max(ink.shape)
    shape = [max(1, round(length * scale)) for length in reversed(ink.shape)]
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(np.float32(ink), shape, interpolation=how).clip(0, 1)


def smooth(rng: Generator, shape: tuple[int, ...], cell: float) -> np.ndarray:
    """Smooth noise of deviation 1, its grains being `cell` pixels large."""
    coarse = rng.standard_normal([int(length / cell) + 2 for length in shape], np.float32)
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)


def warped(ink: np.ndarray, rng: Generator, amount: float) -> np.ndarray:
    """Slanted, turned and bent a little, as by hand."""
    ink = np.pad(ink, max(4, min(ink.shape) // 4))
    side, (height, width) = min(ink.shape), ink.shape
    y, x = np.float32(np.indices(ink.shape)) - np.float32([[[height / 2]], [[width / 2]]])
    slant, turn = rng.normal(0, 0.15), rng.normal(0, 0.06)
    across, down = (amount / 2 * side * smooth(rng, ink.shape, side / 3) for _ in range(2))
    from_x = width / 2 + x * np.cos(turn) - y * np.sin(turn) + slant * y + across
    from_y = height / 2 + x * np.sin(turn) + y * np.cos(turn) + down
    return cv2.remap(ink, np.float32(from_x), np.float32(from_y), cv2.INTER_LINEAR)


def scribble(rng: Generator, size: float) -> np.ndarray:
    """A smooth random line, or a blob."""
    count = rng.integers(3, 14)
    points = rng.uniform(8, 104, (count, 2))
    if rng.random() < 0.5:
        points = 56 + rng.normal(0, 14, (count, 2)).cumsum(axis=0)
    curve = cv2.resize(points, (2, 10 * count), interpolation=cv2.INTER_CUBIC)
    curve = np.int32(np.rint(8 * curve))
    image = np.zeros((LARGE, LARGE), np.uint8)
    if rng.random() < 0.1:
        cv2.fillPoly(image, [curve], 255, cv2.LINE_AA, 3)
    else:
        cv2.polylines(image, [curve], False, 255, int(rng.integers(2, 22)), cv2.LINE_AA, 3)
    return fitted(image / np.float32(255), size)


def shapes(ink: np.ndarray, rng: Generator, count: int) -> None:
    """Draw circles, boxes, arcs, stars and lines, full or not, one over the other."""
    height, width = ink.shape
    mask = np.uint8(255 * ink)
    for _ in range(count):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        size, value = int(spread(rng, 0.02, 0.5) * min(ink.shape)) + 2, int(rng.integers(256))
        line = int(rng.choice([-1, -1, 1, 2, 4, max(1, size // 6)]))
        match rng.integers(4):
            case 0:
                axes, arc = (size, max(1, int(size * rng.uniform(0.2, 1)))), rng.uniform(90, 360)
                turn = rng.uniform(0, 180)
                arc = 360 if rng.random() < 0.5 else arc
                cv2.ellipse(mask, (x, y), axes, turn, 0, arc, value, line, cv2.LINE_AA)
            case 1:
                corner = x + size, y + int(size * rng.uniform(0.3, 2))
                cv2.rectangle(mask, (x, y), corner, value, line)
            case 2:
                angles = 2 * np.pi * np.arange(points := int(rng.integers(3, 11))) / points
                reach = size * np.where(np.arange(points) % 2, rng.uniform(0.4, 1), 1)
                star = np.stack([x + reach * np.sin(angles), y - reach * np.cos(angles)], axis=1)
                star = [np.int32(np.rint(star))]
                if line < 0:
                    cv2.fillPoly(mask, star, value, cv2.LINE_AA)
                else:
                    cv2.polylines(mask, star, True, value, line, cv2.LINE_AA)
            case _:
                end = int(rng.integers(width)), int(rng.integers(height))
                cv2.line(mask, (x, y), end, value, max(1, line), cv2.LINE_AA)
    ink[:] = mask / np.float32(255)


def ruled(sheet: Sheet, rng: Generator, step: float) -> None:
    """Lines across the sheet, or squares."""
    dark, lines = rng.uniform(0.2, 0.9), np.zeros_like(sheet.ink)
    for across in [lines, lines.T][: rng.integers(1, 3)]:
        for at in np.arange(rng.uniform(0, step), len(across), step):
            across[int(at) : int(at) + rng.integers(1, 3)] = dark
    sheet.ink = np.maximum(sheet.ink, lines)


def page(rng: Generator, writer: Writer, share: float | None = None, large: bool = False) -> Sheet:
    """Rows of digits, of other things, or of both; perhaps on ruled or squared paper."""
    sheet = Sheet(*rng.uniform(150, 300, 2))
    height, width = sheet.ink.shape
    size = rng.uniform(0.25, 0.7) * min(height, width) if large else rng.uniform(12, 50)
    share = rng.choice([0.2, 0.4, 0.7, 1, 1]) if share is None else share
    gap = size * rng.choice([0.05, 0.15, 0.4, 0.8])
    x, y = rng.integers(1, 20, size=2)
    pitch = size * rng.uniform(1.15, 2.2)
    while y + 0.7 * size < height:
        own = max(8, size * rng.uniform(0.85, 1.1))
        ink, label = writer.digit(own) if rng.random() < share else (writer.other(own), None)
        if x + ink.shape[1] > width - 1:
            if x < 30:
                break
            x, y = rng.integers(1, 20), y + pitch
            continue
        low = label is None and ink.shape[0] < size / 2
        sheet.put(ink, x, y + (size - ink.shape[0]) * (1 if low else rng.uniform(0.3, 0.7)), label)
        x += ink.shape[1] + max(1, gap * rng.uniform(0.4, 1.6)) + (rng.random() < 0.06) * width / 5
    if rng.random() < 0.3:
        ruled(sheet, rng, rng.uniform(0.6, 1.8) * size)
    if rng.random() < 0.2:
        with_print(sheet, rng, size)
    return sheet


def printed(rng: Generator, shape: tuple[int, int], size: float) -> np.ndarray:
    """Lines of text `size` pixels high, in one font: small print, a heading."""
    ink, face = np.zeros(shape, np.float32), font(FONTS[rng.integers(len(FONTS))])
    image = Image.new("L", (int(shape[1] * 50 / size) + 1, 90))
    line = max(2, round(90 * size / 50))
    for y in range(0, shape[0] - line + 1, round(line * rng.uniform(0.9, 1.4))):
        words = (
            "".join(rng.choice(list(WORDS), rng.integers(1, 11))) for _ in range(image.width // 150)
        )
        image.paste(0, (0, 0, *image.size))
        ImageDraw.Draw(image).text((0, 0), " ".join(words), 255, font=face)
        row = cv2.resize(np.asarray(image), (shape[1], line), interpolation=cv2.INTER_AREA)
        ink[y : y + line] = np.maximum(ink[y : y + line], row / np.float32(255))
    return ink * rng.uniform(0.5, 1)


def with_print(sheet: Sheet, rng: Generator, size: float) -> None:
    """Lines of small text beside everything else, on a part of the sheet without a digit."""
    height, width = sheet.ink.shape
    size = max(3, size * spread(rng, 0.15, 1))
    above = int(rng.uniform(1.5, 8) * size)
    ink = printed(rng, (above, width), size)
    if rng.random() < 0.3:
        ink = 1 - ink  # light on a dark bar
    parts = [ink, sheet.ink], [np.zeros_like(ink, np.uint16), sheet.owner]
    order = 1 if rng.random() < 0.5 else -1
    sheet.ink, sheet.owner = (np.vstack(part[::order]) for part in parts)


def strip(rng: Generator, writer: Writer) -> Sheet:
    """Some digits cut close, close together; perhaps with what is left of a line at an edge."""
    size, gap = spread(rng, 14, 60), rng.choice([0.03, 0.1, 0.3])
    pieces = []
    for _ in range(rng.integers(2, 9)):
        pieces.append(writer.digit(size * rng.uniform(0.9, 1.1)))
        if rng.random() < 0.15:
            sign = fitted(writer.text(rng.choice(list(".,-"))), max(2, size * 0.15))
            pieces.append((sign, None))
    width = sum(ink.shape[1] + size * gap + 1 for ink, _ in pieces)
    above, below, left, right = size * rng.choice([0.02, 0.1, 0.5]) * rng.random(4)
    height = 1.1 * size + above + below
    sheet, x = Sheet(height, width + left + right), left
    for ink, label in pieces:
        low = 1 if label is None else rng.random()
        sheet.put(ink, x, above + low * (1.1 * size - ink.shape[0]), label)
        x += ink.shape[1] + 1 + size * gap * rng.uniform(0.5, 1.5)
    if rng.random() < 0.3:
        start, stop = np.sort(rng.integers(sheet.ink.shape[1] + 1, size=2))
        sheet.ink[-rng.integers(1, 3) if rng.random() < 0.7 else 0, start:stop] = rng.uniform(
            0.3, 1
        )
    return sheet


def table(rng: Generator, writer: Writer) -> Sheet:
    """Cells with a digit in some of them, written by two hands."""
    across, down = rng.integers([2, 1], [8, 7])
    cell = rng.uniform(16, 50) if max(across, down) > 3 else rng.uniform(24, 110)
    wide = cell * rng.uniform(1, 1.3)
    left, top = rng.integers(0, 12, 2)
    sheet = Sheet(down * cell + top + rng.integers(6, 18), across * wide + left + rng.integers(18))
    thin, thick, dark = rng.integers(1, 3), rng.integers(1, 5), rng.uniform(0.3, 1)
    for ink, count, step, start in (
        (sheet.ink, down, cell, top),
        (sheet.ink.T, across, wide, left),
    ):
        for line in range(count + 1):
            at = int(start + line * step)
            ink[at : at + (thin if line % 3 else thick)] = dark
    other = Writer(rng, writer.images, writer.labels) if rng.random() < 0.5 else writer
    full, fill, off = rng.uniform(0.2, 1), rng.uniform(0.4, 0.85), rng.choice([0.03, 0.1])
    for place in range(across * down):
        if rng.random() < full:
            hand = (writer, other)[rng.integers(2)]
            ink, label = hand.digit(max(8, min(cell, wide) * fill * rng.uniform(0.85, 1.1)))
            x, y = place % across + 0.5, place // across + 0.5
            x, y = (x, y) + rng.normal(0, off, 2)
            corner = left + x * wide - ink.shape[1] / 2, top + y * cell - ink.shape[0] / 2
            sheet.put(ink, *np.maximum(corner, 0), label)
    if rng.random() < 0.3:
        with_print(sheet, rng, cell / 2)
    return sheet


def single(rng: Generator, writer: Writer) -> Sheet:
    """One digit, cut close or not, perhaps in a frame."""
    ink, label = writer.digit(spread(rng, 16, 150))
    most = rng.choice([0.03, 0.12, 0.3, 1.2])
    left, top, right, bottom = rng.uniform(0, most, 4) * max(ink.shape)
    sheet = Sheet(ink.shape[0] + top + bottom, ink.shape[1] + left + right)
    sheet.put(ink, left, top, label)
    if rng.random() < 0.1:
        for edge in (sheet.ink[0], sheet.ink[-1], sheet.ink[:, 0], sheet.ink[:, -1]):
            edge[:] = 1
    return sheet


def nothing(rng: Generator, writer: Writer) -> Sheet:
    """A page without a digit."""
    if rng.random() < 0.15:
        return Sheet(*rng.uniform(130, 250, 2))
    if rng.random() < 0.25:
        sheet = Sheet(*rng.uniform(100, 250, 2))
        sheet.ink = printed(rng, sheet.ink.shape, spread(rng, 6, 40))
        return sheet
    sheet = page(rng, writer, 0, large=rng.random() < 0.2)
    if rng.random() < 0.5:
        shapes(sheet.ink, rng, rng.integers(1, 8))
    return sheet


def things(rng: Generator, writer: Writer) -> Sheet:
    """Shapes that cover one another, in shades: what most edges in photographs are."""
    sheet = Sheet(*rng.uniform(100, 250, 2))
    shapes(sheet.ink, rng, int(spread(rng, 1, 150)))
    shade = cv2.GaussianBlur(sheet.ink, (0, 0), rng.uniform(0.5, 6))
    sheet.ink = np.clip(shade + 0.1 * smooth(rng, shade.shape, spread(rng, 2, 60)), 0, 1)
    return sheet


def photograph(rng: Generator, shape: tuple[int, int]) -> np.ndarray:
    """A part of one, some turned or as a negative, float32 in [0, 1]."""
    whole = photos()[rng.integers(len(photos()))]
    scale = max(np.divide(shape, whole.shape)) * spread(rng, 1, 3)
    size = [int(np.ceil(length * scale)) + 1 for length in reversed(whole.shape)]
    whole = cv2.resize(whole, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    y, x = (rng.integers(a - b + 1) for a, b in zip(whole.shape, shape, strict=True))
    part = whole[y : y + shape[0], x : x + shape[1]] / np.float32(255)
    part = np.rot90(part, 2) if rng.random() < 0.3 else part
    part = part[:, ::-1] if rng.random() < 0.5 else part
    return 1 - part if rng.random() < 0.3 else part


def on_photograph(rng: Generator, writer: Writer) -> Sheet:
    sheet = Sheet(*rng.uniform(100, 250, 2))
    sheet.ink = photograph(rng, sheet.ink.shape)
    return sheet


KINDS: list[tuple[float, Callable[[Generator, Writer], Sheet]]] = [
    (0.22, page),
    (0.10, strip),
    (0.15, table),
    (0.13, single),
    (0.08, lambda rng, writer: page(rng, writer, large=True)),
    (0.14, nothing),
    (0.06, things),
    (0.12, on_photograph),
]


def draw_scene(rng: Generator, images: np.ndarray, labels: np.ndarray) -> Scene:
    """A scene with digits or without.

    Args:
        rng: all chance in it.
        images, labels: of training digits, uint8, shape (N, 28, 28) and (N,).
    """
    kind = KINDS[rng.choice(len(KINDS), p=[share for share, _ in KINDS])][1]
    sheet = kind(rng, Writer(rng, images, labels))
    scene, owner = sheet.ink, sheet.owner
    clean = rng.random() < 0.25  # as drawn on a screen
    if kind not in (on_photograph, things):
        scene = on_paper(sheet.ink, rng, clean)
        if rng.random() < 0.25 and min(scene.shape) > 60:
            scene, owner = seen_from_aside(scene, owner, rng)
    if rng.random() < 0.3:
        scene = 1 - scene
    if rng.random() < 0.6:
        softness = rng.uniform(0.3, 1.6) * min(1, len(scene) / 300 + 0.3)
        scene = cv2.GaussianBlur(scene, (0, 0), softness)
    if not clean:
        grain = rng.choice([0.002, 0.006, 0.015, 0.04])
        scene = scene + grain * rng.standard_normal(scene.shape, np.float32)
    if rng.random() < 0.3:
        low, high = rng.uniform(0, 0.3), rng.uniform(0.5, 1)
        scene = low + (high - low) * scene
    picture = np.uint8(255 * np.clip(scene, 0, 1))
    if rng.random() < 0.6:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 96))]
        picture = cv2.imdecode(cv2.imencode(".jpg", picture, quality)[1], cv2.IMREAD_GRAYSCALE)
    return Scene(picture, owner, np.array(sheet.labels, int))


def on_paper(ink: np.ndarray, rng: Generator, clean: bool) -> np.ndarray:
    """Ink of a pen on paper, in some light; float32, 0 is black."""
    uneven = rng.choice([0, 0.15, 0.4, 0.6])
    density = 1 - uneven * np.abs(smooth(rng, ink.shape, rng.uniform(2, 12)))
    contrast = rng.uniform(0.7, 1) if rng.random() < 0.5 else spread(rng, 0.06, 0.9)
    scene = 1 - contrast * ink * np.clip(density, 0.15, 1)
    if rng.random() < 0.7:
        scene *= rng.uniform(0.45, 1)
    if clean:
        return scene
    for roughness, cell in ((0.03, rng.uniform(1.5, 8)), (0.05, rng.uniform(20, 80))):
        roughness *= rng.random() * min(1, 2 * contrast)
        scene *= 1 + roughness * smooth(rng, ink.shape, cell)
    rows, columns = np.float32(np.indices(ink.shape)) / max(ink.shape)
    angle = rng.uniform(0, 2 * np.pi)
    along = np.cos(angle) * columns + np.sin(angle) * rows
    along = (along - along.min()) / max(np.ptp(along), 1e-6)
    scene *= 1 - rng.uniform(0, 0.5) * (rng.random() < 0.5) * along
    if rng.random() < 0.15:  # the edge of a shadow
        behind = 1 / (1 + np.exp(-(along - rng.random()) / rng.uniform(0.003, 0.08)))
        scene *= 1 - rng.uniform(0.2, 0.6) * behind
    return np.float32(scene)


def seen_from_aside(
    scene: np.ndarray, owner: np.ndarray, rng: Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A sheet in perspective on something."""
    height, width = scene.shape
    corners = np.float32([(0, 0), (width, 0), (width, height), (0, height)])
    margin = int(rng.uniform(0, 0.25) * max(scene.shape))
    turn, middle = rng.normal(0, 0.06), corners[2] / 2
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    moved = (corners - middle) @ rotation.T + middle + margin
    moved += rng.uniform(0, 0.12) * min(scene.shape) * rng.uniform(-1, 1, (4, 2))
    matrix = cv2.getPerspectiveTransform(corners, np.float32(moved))
    shape = height + 2 * margin, width + 2 * margin
    ground = np.full(shape, rng.uniform(0, 0.8), np.float32)
    if rng.random() < 0.6:
        ground = photograph(rng, shape)
    sheet = cv2.warpPerspective(np.ones_like(scene), matrix, shape[::-1])
    seen = cv2.warpPerspective(scene, matrix, shape[::-1], borderMode=cv2.BORDER_REPLICATE)
    owner = cv2.warpPerspective(owner, matrix, shape[::-1], flags=cv2.INTER_NEAREST)
    return ground * (1 - sheet) + seen * sheet, owner
