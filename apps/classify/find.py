"""Where the digits of a picture are: its ink (see ink.py) thresholded and grouped.

The steps, each in a function below: find strokes, put broken ones together, drop what has no
digit's shape or is no writing, sort into rows. Lengths are relative to the picture or to the
digits in it.
"""

from typing import NamedTuple

import cv2
import numpy as np

from apps.classify.ink import ink_contrast, remove_lines
from apps.classify.operations import CROSS, SQUARE, label, rim, steepness

MANY = 200  # specks that are too small for a digit make a picture noisy
FAINT = 0.4  # of the other ink's contrast is too little
PARTS = 600  # strokes at most: grouping compares them in pairs
# Of these, 99.9 % of digits on drawn pages have less than 0.06 and 0.15; half of what has a digit's
# shape in photographs of other things has more than 0.2 and 0.12.
CLUTTER = 0.08  # of the ink's contrast: what is around a digit on paper, at most (root mean square)
UNEVEN = 0.16  # of the ink's contrast: its standard deviation within a pen's strokes, at most
SMALL, OF_SMALL = 40, 0.25  # pixels: in a smaller digit, blur leaves no part of a stroke as it was


class Found(NamedTuple):
    """The digits of a picture.

    boxes: left, top, right, bottom, in pixels, int, shape (N, 4), in reading order.
    rows: of each digit, from 0, non-decreasing, shape (N,).
    inks: for each digit, how much ink a pixel of its box has, float32 in [0, 1].
    """

    boxes: np.ndarray
    rows: np.ndarray
    inks: list[np.ndarray]


class Strokes(NamedTuple):
    """The connected strokes of a picture, S of them.

    labels: int32, shape as the picture's, from 1; 0 for paper.
    boxes: left, top, right, bottom of each, int, shape (S, 4).
    strength: the contrast of each, by its label, float32, shape (S + 1,).
    contrast: of the picture without ruled lines.
    ruled: with them.
    """

    labels: np.ndarray
    boxes: np.ndarray
    strength: np.ndarray
    contrast: np.ndarray
    ruled: np.ndarray


def find_digits(picture: np.ndarray, single: bool = False) -> Found:
    """Find what has the shape of a digit, in reading order.

    Args:
        picture: grey, float32 in [0, 1], shape (height, width), any sizes from 1.
        single: all ink is one digit, whatever the gaps in it.
    """
    for other in (False, True):
        contrast, level = ink_contrast(picture, other)
        strokes = find_strokes(contrast, level)
        numbers, least = candidates(strokes)
        boxes, groups = group_strokes(numbers, least, strokes, single)
        if groups or not len(numbers):
            break
    rows = rows_of(boxes)
    tops = np.array([boxes[rows == row, 1].mean() for row in range(rows.max(initial=-1) + 1)])
    places = np.argsort(np.argsort(tops))[rows] if len(rows) else rows
    order = np.lexsort((boxes[:, 0], places))
    inks = []
    for number in order:
        left, top, right, bottom = boxes[number]
        part = np.isin(strokes.labels[top:bottom, left:right], groups[number]).view(np.uint8)
        part = cv2.dilate(part, CROSS, iterations=2) > 0  # the soft edge of the stroke
        values = strokes.contrast[top:bottom, left:right]
        peak = np.percentile(values[part], 90)
        inks.append(np.where(part, np.clip(values / peak, 0, 1), 0).astype(np.float32))
    return Found(boxes[order], places[order], inks)


def find_strokes(ruled: np.ndarray, level: np.ndarray) -> Strokes:
    """The connected strokes, each thresholded at a share of its own contrast.

    Args:
        ruled: the contrast of the picture, with ruled lines.
        level: what the contrast of ink exceeds.
    """
    contrast = ruled.copy()
    for turned in (contrast, contrast.T):
        remove_lines(turned, float(np.median(level)), max(contrast.shape))
    mask = contrast > level
    for share in (0.4, 0):
        labels, boxes = label(mask, 8)
        strength = np.zeros(len(boxes) + 1, np.float32)
        np.maximum.at(strength, labels[mask], contrast[mask])
        mask &= contrast > share * strength[labels]
    return Strokes(labels, boxes, strength, contrast, ruled)


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
        every = np.isin(strokes.labels, np.concatenate([[-1], *shapes.values()]))
        drawn = [
            members
            for box, members in shapes.items()
            if not (single or is_written(box, members, strokes, every))
        ]
        if not drawn:
            return np.array([*shapes], int).reshape(-1, 4), [*shapes.values()]
        numbers = numbers[~np.isin(numbers, np.concatenate(drawn))]
    return np.zeros((0, 4), int), []


def candidates(strokes: Strokes) -> tuple[np.ndarray, float]:
    """Which strokes may be (parts of) digits, and how large a digit is at least.

    Returns:
        numbers: labels of the strokes, the largest first.
        least: pixels.
    """
    labels, boxes, strength = strokes[:3]
    size = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    least = max(8, max(labels.shape) // 80)
    specks = size[size < least]
    if len(specks) > MANY:  # noise, whose largest speck must not pass for a digit
        least = max(least, 3 * np.percentile(specks, 95))
    keep = (size >= least / 2) & ~cut_off(boxes, labels)
    # Faint beside the other ink: texture, shadows, print from the other side.
    mass = np.bincount(labels.ravel(), strokes.contrast.ravel())[1:] * keep
    keep &= strength[1:] > FAINT * (mass * strength[1:]).sum() / max(mass.sum(), 1e-9)
    keep[keep] = [not goes_on(box, strokes.ruled) for box in boxes[keep]]
    order = np.argsort(-size * keep, kind="stable")[: min(PARTS, keep.sum())]
    return order + 1, least


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


def cut_off(boxes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which strokes reach the picture's border and so may be a table, a shadow, half a digit.

    A picture that is cut close to its only digit is none of these: little of its border is ink.
    """
    height, width = labels.shape
    sizes = boxes[:, 2:] - boxes[:, :2]
    touches = (boxes[:, :2] == 0).any(axis=1) | (boxes[:, 2:] == (width, height)).any(axis=1)
    rim = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    contact = np.bincount(rim, minlength=len(boxes) + 1)[1:] / len(rim)
    alone = (sizes > 0.6 * np.array([width, height])).any(axis=1) & (contact < 0.1)
    return touches & ~alone


def goes_on(box: np.ndarray, ruled: np.ndarray) -> bool:
    """Whether a narrow stroke is a piece of a longer line, of which `remove_lines` left it over:
    beyond both of its ends there is ink, too, about as dark.
    """
    left, top, right, bottom = box
    height = bottom - top
    if right - left > 0.3 * height:
        return False
    dark = np.median(ruled[top:bottom, left:right].max(axis=1))
    reach = height // 2 + 1
    for end, rows in (
        (top, slice(max(0, top - reach), top)),
        (bottom - 1, slice(bottom, bottom + reach)),
    ):
        middle = left + ruled[end, left:right].argmax()
        beyond = ruled[rows, max(0, middle - 3) : middle + 4].max(axis=1)
        if not len(beyond) or np.percentile(beyond, 20) < 0.5 * dark:
            return False
    return True


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


def is_digit_shape(box: tuple, numbers: np.ndarray, strokes: Strokes) -> bool:
    """Whether the strokes could be a digit: neither a dash nor a blob, sharp-edged, not cut off."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    if width > 2.2 * height:
        return False
    inside = np.pad(np.isin(strokes.labels[top:bottom, left:right], numbers), 1)
    to_edge = cv2.distanceTransform(inside.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    thickness = 2 * to_edge.max()
    if thickness > 0.65 * max(width, height):
        return False
    values = np.pad(strokes.contrast[top:bottom, left:right], 1)
    # The slope of the edge per pixel, as a share of the stroke's contrast.
    steep = np.median(steepness(values)[rim(inside)]) / strokes.strength[numbers].max()
    return bool(steep > min(0.1, 2 / max(width, height)))


def is_written(box: tuple, numbers: np.ndarray, strokes: Strokes, shapes: np.ndarray) -> bool:
    """Whether the strokes are of one ink on paper, not a part of a picture of something else.

    Args:
        box: left, top, right, bottom.
        numbers: labels of the strokes.
        shapes: where anything is that has a digit's shape, and so is no clutter; bool.
    """
    left, top, right, bottom = box
    side = max(right - left, bottom - top)
    reach = max(4, side // 5)
    place = (
        slice(max(0, top - reach), bottom + reach),
        slice(max(0, left - reach), right + reach),
    )
    own = np.isin(strokes.labels[place], numbers).view(np.uint8)
    edge = cv2.dilate(own, SQUARE, iterations=max(2, side // 12))  # soft, as is the others'
    others = cv2.dilate(shapes[place].view(np.uint8) & (1 - own), SQUARE, iterations=3)
    near = cv2.dilate(own, SQUARE, iterations=reach)
    around = strokes.contrast[place][near > np.maximum(edge, others)]
    inner = cv2.erode(own, SQUARE)
    ink = strokes.ruled[place][(inner if inner.sum() > 4 else own) > 0]  # lines cross it unseen
    clutter = np.sqrt(np.square(around).sum() / max(len(around), 1))
    uneven = UNEVEN if side >= SMALL else OF_SMALL
    return bool(clutter < CLUTTER * np.median(ink) and ink.std() < uneven * ink.mean())


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
