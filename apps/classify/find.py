"""Where the digits of a picture are: what a small model, trained by learn.py, sees of it.

It sees the picture at several sizes, evened out: by how much each pixel differs from those around
it. So faint ink and black, on paper in any light, look alike to it; and it needs to know digits of
SIZES pixels only, since large ones are as small where the picture is.
"""

import threading
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter

from apps.classify.ink import ink_of
from stages.base.quiet import silent_stderr

FILE = Path(__file__).with_name("finder.tflite")
SIZES = 11, 36  # pixels of the longer side of digits that the model was trained to find
LONG = 1000  # pixels of the longer side, at most: of 1,600 each second, where 4 mm on A4 are 11
WINDOW = 41  # pixels around each one with which it is compared
GRAIN = 2  # levels of 255: a deviation that is no more than noise
CELL, HALF = 4, 2  # pixels of the picture to one of the model's answers: centres and sides, ink
MULTIPLE = 8  # pixels: sizes that the model takes
UNIT = 16  # pixels: of the sides
LIKELY = 0.2  # the model's score of a digit's centre, at least
OVERLAP = 0.45  # of the smaller of two boxes, from which on they are of the same digit
SAME = 0.6  # of what two boxes cover together, from which on they are as good as one
MOST = 400  # digits in a picture
LOCK = threading.Lock()  # a LiteRT interpreter serves one call at a time


class Found(NamedTuple):
    """What may be the digits of a picture, N of them.

    boxes: left, top, right, bottom, in pixels, float, shape (N, 4).
    scores: how sure the model is that it is one, in [0, 1], shape (N,).
    inks: for each, how much ink a pixel of its box has, float32 in [0, 1].
    """

    boxes: np.ndarray
    scores: np.ndarray
    inks: list[np.ndarray]


def find_digits(picture: np.ndarray) -> Found:
    """Find what may be digits in a picture, grey, uint8, shape (height, width), from 1 pixel."""
    seen, boxes, scores, at = [], [np.zeros((0, 4))], [np.zeros(0)], [np.zeros(0, int)]
    for number, small in enumerate(smaller(picture)):
        centres, sides, ink = ask(small)
        found, sure = digits_of(centres, sides, small.shape)
        boxes.append(found * (max(picture.shape) / max(small.shape)))
        scores.append(sure)
        at.append(np.full(len(sure), number))
        seen.append(ink[: -(-small.shape[0] // HALF), : -(-small.shape[1] // HALF)])
    boxes, scores, at = map(np.concatenate, (boxes, scores, at))
    places, sure, inks = [np.zeros((0, 4))], [], []
    for number in best(boxes, scores):
        box = mean_of_same(boxes[number], boxes, scores)
        ink = ink_of(picture, box, seen[at[number]])
        if ink.any():
            places.append(box[None])
            sure.append(scores[number])
            inks.append(ink)
    return Found(np.concatenate(places), np.array(sure), inks)


def smaller(picture: np.ndarray) -> list[np.ndarray]:
    """The picture halved and halved again, until a digit that fills it is small enough."""
    sizes = [picture]
    while max(picture.shape) > SIZES[1]:
        size = [(length + 1) // 2 for length in reversed(picture.shape)]
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        sizes.append(picture)
    return [size for size in sizes if max(size.shape) <= LONG]


def evened(picture: np.ndarray) -> np.ndarray:
    """By how many deviations each pixel is brighter than those around it: float32, -4 to 4."""
    values = np.float32(picture)
    window, border = (WINDOW, WINDOW), cv2.BORDER_REFLECT
    mean = cv2.blur(values, window, borderType=border)
    values -= mean
    variance = cv2.blur(values * values, window, borderType=border)
    return np.clip(values / np.sqrt(variance + GRAIN**2), -4, 4)


@cache
def finder() -> Interpreter:
    """The model that finds digits; to be loaded before threads start, which write to stderr."""
    with silent_stderr():
        interpreter = Interpreter(str(FILE), num_threads=2)
        interpreter.allocate_tensors()
        return interpreter


def ask(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the model says of a picture, grey, uint8.

    Returns:
        centres: whether a digit's centre is there, in [0, 1], one per CELL pixels.
        sides: left, top, right and bottom of that digit, seen from there, in UNIT pixels.
        ink: whether a digit's ink is there, in [0, 1], one per HALF pixels.
    """
    height, width = picture.shape
    padding = (0, -height % MULTIPLE), (0, -width % MULTIPLE)
    with LOCK:
        runner = finder().get_signature_runner("find")
        answer = runner(picture=np.pad(evened(picture), padding)[None, ..., None])
    return answer["centres"][0, ..., 0], answer["sides"][0], answer["ink"][0, ..., 0]


def digits_of(
    centres: np.ndarray, sides: np.ndarray, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and scores of the digits that the model sees in one size of the picture."""
    highest = cv2.dilate(centres, np.ones((3, 3), np.uint8))
    y, x = np.nonzero((centres >= LIKELY) & (centres == highest))
    middle = CELL * (np.stack([x, y, x, y], axis=1) + 0.5)
    boxes = middle + (-1, -1, 1, 1) * sides[y, x] * UNIT
    height, width = shape
    boxes = np.clip(boxes, 0, (width, height, width, height))
    real = (boxes[:, 2:] - boxes[:, :2] >= 2).all(axis=1)
    return boxes[real], centres[y, x][real]


def area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2:] - boxes[..., :2]).prod(axis=-1)


def shared(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The area that a box shares with each of others."""
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    return np.clip(sides, 0, None).prod(axis=1)


def best(boxes: np.ndarray, scores: np.ndarray) -> list[int]:
    """Of boxes that overlap, the one with the highest score: their numbers, the surest first."""
    order, kept = np.argsort(-scores, kind="stable"), []
    while len(order) and len(kept) < MOST:
        first, order = order[0], order[1:]
        kept.append(first)
        smallest = np.minimum(area(boxes[order]), area(boxes[first]))
        order = order[shared(boxes[first], boxes[order]) < OVERLAP * smallest]
    return kept


def mean_of_same(box: np.ndarray, boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The mean of the boxes that are as good as the same, by their scores."""
    common = shared(box, boxes)
    weights = scores * (common > SAME * (area(boxes) + area(box) - common))
    return weights @ boxes / weights.sum()


def rows_of(boxes: np.ndarray) -> np.ndarray:
    """The row of each digit: a digit follows its nearest neighbour to the left at about its height.

    Returns:
        Numbers from 0, from the top, shape (N,).
    """
    if not len(boxes):
        return np.zeros(0, int)
    left, top, right, bottom = boxes.T
    x, y, height = (left + right) / 2, (top + bottom) / 2, bottom - top
    ahead = x[:, None] - x  # of each digit before every other
    level = np.abs(y[:, None] - y) < 0.5 * np.maximum(height[:, None], height)
    cost = np.where((ahead > 0) & level, ahead + np.abs(y[:, None] - y), np.inf)
    before = cost.argmin(axis=1)
    has = np.isfinite(cost.min(axis=1))
    links = np.zeros((len(boxes), len(boxes)), bool)
    links[np.flatnonzero(has), before[has]] = True
    rows = connected(links)
    tops = [top[rows == row].mean() for row in range(rows.max() + 1)]
    return np.argsort(np.argsort(tops, kind="stable"))[rows]


def connected(links: np.ndarray) -> np.ndarray:
    """Number the groups of things that links connect, bool, shape (N, N): from 0, shape (N,)."""
    links = links | links.T | np.eye(len(links), dtype=bool)
    group = np.arange(len(links))
    while True:
        lowest = np.where(links, group, len(links)).min(axis=1)
        if (lowest == group).all():
            return np.unique(group, return_inverse=True)[1]
        group = lowest
