"""Where the digits of a picture are: the strokes of its ink (ink.py, lines.py, strokes.py).

Broken strokes are put together, what cannot be a digit is dropped, the rest is sorted into rows.
"""

from typing import NamedTuple

import cv2
import numpy as np

from apps.classify.ink import ink_contrast
from apps.classify.operations import CROSS
from apps.classify.strokes import Strokes, candidates, find_strokes, is_digit_shape, is_written

BAR = 0.25  # of its height, what is narrower is a 1, or the edge of a shadow, a gap between things


class Found(NamedTuple):
    """The digits of a picture.

    boxes: left, top, right, bottom, in pixels, int, shape (N, 4), in reading order.
    rows: of each digit, from 0, non-decreasing, shape (N,).
    inks: for each digit, how much ink a pixel of its box has, float32 in [0, 1].
    """

    boxes: np.ndarray
    rows: np.ndarray
    inks: list[np.ndarray]


def find_digits(picture: np.ndarray, single: bool = False) -> Found:
    """Find what has the shape of a digit, in reading order.

    Args:
        picture: grey, uint8, shape (height, width), any sizes from 1.
        single: all ink is one digit, whatever the gaps in it.
    """
    for other in (False, True):
        contrast, level = ink_contrast(picture, other)
        strokes = find_strokes(contrast, level)
        numbers, least = candidates(strokes)
        boxes, groups = group_strokes(numbers, least, strokes, single)
        if groups or not len(numbers):
            break
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    if other and (width < BAR * height).all():  # bars alone are not believed, then
        boxes, groups = boxes[:0], []
    rows = rows_of(boxes)
    tops = np.array([boxes[rows == row, 1].mean() for row in range(rows.max(initial=-1) + 1)])
    places = np.argsort(np.argsort(tops))[rows] if len(rows) else rows
    order = np.lexsort((boxes[:, 0], places))
    inks = [ink_of(boxes[number], groups[number], strokes) for number in order]
    return Found(boxes[order], places[order], inks)


def ink_of(box: np.ndarray, numbers: np.ndarray, strokes: Strokes) -> np.ndarray:
    """How much ink each pixel of the box has from these strokes, float32 in [0, 1]."""
    left, top, right, bottom = box
    place = slice(top, bottom), slice(left, right)
    part = strokes.within(place, numbers).view(np.uint8)
    part = cv2.dilate(part, CROSS, iterations=2) > 0  # the soft edge of the stroke
    values = strokes.contrast[place]
    peak = np.percentile(values[part][:: part.size // 5000 + 1], 90)
    return np.where(part, np.clip(values / peak, 0, 1), 0).astype(np.float32)


def group_strokes(
    numbers: np.ndarray, least: float, strokes: Strokes, single: bool
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Put strokes together that make one digit, and drop what is none by its shape or looks.

    What is not written is dropped before the rest is grouped again, since how large the digits are
    is judged by all that is there.

    Args:
        numbers, least: of `candidates`.
        strokes: of `find_strokes`.
        single: all strokes make one digit.

    Returns:
        boxes: shape (N, 4).
        groups: the labels of each digit's strokes.
    """
    while len(numbers):
        shapes = digit_shapes(numbers, least, strokes, single)
        every = np.concatenate([numbers[:0], *shapes.values()])
        drawn = [
            members
            for box, members in shapes.items()
            if not (single or is_written(box, members, strokes, every))
        ]
        if not drawn:
            return np.array([*shapes], int).reshape(-1, 4), [*shapes.values()]
        numbers = numbers[~np.isin(numbers, np.concatenate(drawn))]
    return np.zeros((0, 4), int), []


def digit_shapes(
    numbers: np.ndarray, least: float, strokes: Strokes, single: bool
) -> dict[tuple, np.ndarray]:
    """What has the shape and size of a digit: boxes, and the labels of the strokes in each."""
    boxes = strokes.boxes[numbers - 1]
    heights = np.sort(boxes[:, 3] - boxes[:, 1])
    typical = heights[np.searchsorted(heights.cumsum(), heights.sum() / 2)]
    owner = np.zeros(len(boxes)) if single else merged(boxes, typical)
    found = {}
    for number in np.unique(owner):
        members = owner == number
        box = (*boxes[members, :2].min(axis=0), *boxes[members, 2:].max(axis=0))
        if box[3] - box[1] >= max(least, 0.35 * typical) and is_digit_shape(
            box, numbers[members], strokes
        ):
            found[box] = numbers[members]
    return found


def merged(boxes: np.ndarray, typical: float) -> np.ndarray:
    """For each stroke the number of the digit it belongs to.

    A low stroke joins those beside it; two high ones join where one stands close above the other.
    """
    left, top, right, bottom = boxes.T
    across = np.maximum(left[:, None], left) - np.minimum(right[:, None], right)  # < 0: overlap
    down = np.maximum(top[:, None], top) - np.minimum(bottom[:, None], bottom)
    gap = np.hypot(np.maximum(across, 0), np.maximum(down, 0))
    narrow = np.minimum((right - left)[:, None], right - left)
    low = np.minimum((bottom - top)[:, None], bottom - top) < 0.5 * typical
    height = np.maximum(bottom[:, None], bottom) - np.minimum(top[:, None], top)
    stacked = (-across > 0.5 * narrow) & (height < 1.5 * typical)
    near = (low | stacked) & (gap < 0.12 * typical) & (height < 2 * typical)
    return connected(near)


def rows_of(boxes: np.ndarray) -> np.ndarray:
    """The row of each digit: a digit follows its nearest neighbour to the left at about its height.

    Returns:
        Numbers from 0, shape (N,).
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
    return connected(links)


def connected(links: np.ndarray) -> np.ndarray:
    """Number the groups of things that links connect, bool, shape (N, N): from 0, shape (N,)."""
    links = links | links.T | np.eye(len(links), dtype=bool)
    group = np.arange(len(links))
    while True:
        lowest = np.where(links, group, len(links)).min(axis=1)
        if (lowest == group).all():
            return np.unique(group, return_inverse=True)[1]
        group = lowest
