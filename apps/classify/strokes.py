"""Strokes of ink, and which of them may be digits: by their size, their shape, and what is around.

Lengths are relative to the picture or to the digits in it.
"""

from typing import NamedTuple

import cv2
import numpy as np

from apps.classify.lines import remove_lines
from apps.classify.operations import SQUARE, framed, label, rim, steepness

MANY = 200  # specks that are too small for a digit make a picture noisy
FAINT = 0.4  # of the other ink's contrast is too little
PARTS = 600  # strokes at most: grouping compares them in pairs
# Of these, 99.9 % of digits on drawn pages have less than 0.06 and 0.15, and a ballpoint's strokes
# up to 0.25 of the latter; half of what looks like a digit in photographs, more than 0.2 and 0.12.
CLUTTER = 0.08  # of the ink's contrast: what is around a digit on paper, at most (root mean square)
UNEVEN = 0.25  # of the ink's contrast: its standard deviation within a pen's strokes, at most


class Strokes(NamedTuple):
    """The connected strokes of a picture, S of them.

    labels: int32, shape as the picture's, from 1; 0 for paper.
    boxes: left, top, right, bottom of each, int, shape (S, 4).
    strength: the highest contrast of each, by its label, uint8, shape (S + 1,).
    mass: the sum of each one's contrast, by its label, float64, shape (S + 1,).
    contrast: of the picture without ruled lines, of 255, uint8.
    ruled: with them.
    """

    labels: np.ndarray
    boxes: np.ndarray
    strength: np.ndarray
    mass: np.ndarray
    contrast: np.ndarray
    ruled: np.ndarray

    def within(self, place: tuple[slice, slice], numbers: np.ndarray) -> np.ndarray:
        """Where these strokes are in a part of the picture, bool, shape as the part's."""
        if len(numbers) == 1:  # a tenth of the time
            return self.labels[place] == numbers[0]
        chosen = np.zeros(len(self.strength), bool)
        chosen[numbers] = True
        return chosen[self.labels[place]]


def find_strokes(ruled: np.ndarray, level: np.ndarray) -> Strokes:
    """The connected strokes, each thresholded at a share of its own contrast.

    Args:
        ruled: the contrast of the picture, of 255, uint8, with ruled lines.
        level: what the contrast of ink exceeds.
    """
    contrast, middle = ruled.copy(), float(np.median(level[::8, ::8]))
    for _ in range(2):
        remove_lines(contrast, middle, max(contrast.shape))
        contrast = cv2.transpose(contrast)
    mask = contrast > level
    places = np.flatnonzero(mask)
    values = contrast.ravel()[places]
    own = cv2.connectedComponents(mask.view(np.uint8))[1].ravel()[places].astype(int)
    strong = values > 0.4 * strengths(own, values)[own]
    mask.ravel()[places[~strong]] = False
    places, values = places[strong], values[strong]
    labels, boxes = label(mask, 8)
    own = labels.ravel()[places].astype(int)
    strength = strengths(own, values)
    mass = np.bincount(own, values, len(strength))
    return Strokes(labels, boxes, strength, mass, contrast, ruled)


def strengths(own: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The highest contrast of each label, whose pixels have these labels and values."""
    strength = np.zeros(own.max(initial=0) + 1, np.uint8)
    np.maximum.at(strength, own, values)
    return strength


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
    mass = strokes.mass[1:] * keep
    keep &= strength[1:] > FAINT * (mass * strength[1:]).sum() / max(mass.sum(), 1e-9)
    keep[keep] = [not goes_on(box, strokes.ruled) for box in boxes[keep]]
    order = np.argsort(-size * keep, kind="stable")[: min(PARTS, keep.sum())]
    return order + 1, least


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
    return touches & ~(alone & (alone.sum() <= 2))  # more are bars, from border to border


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


def is_digit_shape(box: tuple, numbers: np.ndarray, strokes: Strokes) -> bool:
    """Whether the strokes could be a digit: neither a dash nor a blob, sharp-edged, not cut off."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    if width > 2.2 * height:
        return False
    place = slice(top, bottom), slice(left, right)
    inside = framed(strokes.within(place, numbers).view(np.uint8))
    to_edge = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_5)
    thickness = 2 * to_edge.max()
    if thickness > 0.65 * max(width, height):
        return False
    values = framed(strokes.contrast[place])
    # The slope of the edge per pixel, as a share of the stroke's contrast.
    steep = np.median(steepness(values)[rim(inside > 0)]) / strokes.strength[numbers].max()
    return bool(steep > min(0.1, 2 / max(width, height)))


def is_written(box: tuple, numbers: np.ndarray, strokes: Strokes, shapes: np.ndarray) -> bool:
    """Whether the strokes are of one ink on paper, not a part of a picture of something else.

    Args:
        box: left, top, right, bottom.
        numbers: labels of the strokes.
        shapes: labels of all strokes that have a digit's shape, and so are no clutter.
    """
    left, top, right, bottom = box
    side = max(right - left, bottom - top)
    step = max(1, side // 50)  # of larger digits a part of the pixels is enough
    reach = max(4, side // 5 // step)
    place = (
        slice(max(0, top - reach * step), bottom + reach * step, step),
        slice(max(0, left - reach * step), right + reach * step, step),
    )
    own = strokes.within(place, numbers).view(np.uint8)
    edge = cv2.dilate(own, SQUARE, iterations=max(2, side // 12 // step))  # soft, as others' are
    others = strokes.within(place, shapes).view(np.uint8) & (1 - own)
    others = cv2.dilate(others, SQUARE, iterations=-(-3 // step))
    near = cv2.dilate(own, SQUARE, iterations=reach)
    around = strokes.contrast[place][near > np.maximum(edge, others)]
    place = slice(top, bottom), slice(left, right)
    whole = strokes.within(place, numbers)
    inner = whole & ~rim(whole, SQUARE)
    ink = strokes.ruled[place][inner if inner.sum() > 4 else whole]  # lines cross it unseen
    ink = ink[:: len(ink) // 2000 + 1]
    clutter = np.sqrt(np.square(around, dtype=float).sum() / max(len(around), 1)) / np.median(ink)
    return bool(clutter < CLUTTER and ink.std() < UNEVEN * ink.mean())
