"""Ruled lines, found in the contrast of a picture and taken out of it."""

import cv2
import numpy as np

from apps.classify.operations import label

TILT = 8  # degrees by which ruled lines may be off the horizontal and the vertical


def remove_lines(contrast: np.ndarray, level: float, long: int) -> None:
    """Take ruled lines that run along the rows out of `contrast`, and leave what crosses them.

    A line is thin, and longer than half of the picture; it may be tilted by TILT degrees. Lines are
    looked for in some of the columns.

    Args:
        contrast: uint8, of 255, shape (height, width); changed in place.
        level: what the contrast of ink exceeds, of 255.
        long: side of the picture, in pixels.
    """
    height, width = contrast.shape
    run = max(9, long // 16) | 1
    if height < 15 or width <= 2 * run:
        return
    step = max(1, width // 100)
    sample = np.ascontiguousarray(contrast[:, ::step])
    widest = int(max(6, long / 120)) | 1
    slope = np.tan(np.radians(tilt_of(without_tall(sample, widest), level, step)))
    shift = np.rint(np.arange(width) * slope).astype(int)
    sample = sheared(sample, shift[::step])
    spread = cv2.dilate(without_tall(sample, widest), np.ones((5, 1), np.uint8))  # drift: 2 pixels
    gap = np.ones((1, run // step // 3 | 1), np.uint8)  # where they are crossed, or too faint
    spread = cv2.morphologyEx(spread, cv2.MORPH_CLOSE, gap)
    lines = cv2.morphologyEx(spread, cv2.MORPH_OPEN, np.ones((1, run // step | 1), np.uint8))
    labels, boxes = label(lines > level / 2, 4)
    spans = np.append(0, boxes[:, 2] - boxes[:, 0])
    inked = labels[sample > level / 2]
    thickness = np.bincount(inked, minlength=len(spans)) / np.maximum(spans, 1)
    ruled = (spans > sample.shape[1] / 2) & (thickness < widest)
    if not ruled.any():
        return
    mask = np.repeat(ruled[labels], step, axis=1)[:, :width]
    size = int(np.ceil(thickness[ruled].max())) + 2 | 1
    upright, falling = sheared(contrast, shift), np.eye(size, dtype=np.uint8)
    crossing = [
        cv2.morphologyEx(upright, cv2.MORPH_OPEN, stroke)
        for stroke in (np.ones((size, 1), np.uint8), falling, np.ascontiguousarray(falling[::-1]))
    ]
    upright[mask] = np.maximum.reduce(crossing)[mask]
    contrast[:] = sheared(upright, -shift)


def without_tall(contrast: np.ndarray, widest: int) -> np.ndarray:
    """What is taller than lines are wide set to 0: strokes that cross them, the table's edge."""
    return contrast - cv2.morphologyEx(contrast, cv2.MORPH_OPEN, np.ones((widest, 1), np.uint8))


def sheared(values: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Each column moved up by its shift in pixels; what leaves at one end enters at the other."""
    starts = np.flatnonzero(np.diff(shift)) + 1
    parts = np.split(values, starts, axis=1)
    moved = [
        np.roll(part, -by, axis=0)
        for part, by in zip(parts, shift[np.append(0, starts)], strict=True)
    ]
    return np.concatenate(moved, axis=1)


def tilt_of(contrast: np.ndarray, level: float, step: int) -> float:
    """The angle in degrees at which lines run along the rows: their profile has the most peaks.

    Args:
        contrast, level: as those of `remove_lines`, `contrast` of every `step`-th column.
    """
    rows, columns = np.nonzero(contrast > level / 2)
    ink = np.minimum(contrast[rows, columns], 2 * level)
    along = np.arange(contrast.shape[1]) * step
    rows += (reach := int(along[-1] * np.tan(np.radians(TILT))) + 1)
    best, angle = 0, 0.0
    for degrees in np.arange(-TILT, TILT + 0.5, 0.5):
        shift = np.rint(along * np.tan(np.radians(degrees))).astype(int)
        profile = np.bincount(rows - shift[columns], ink, len(contrast) + 2 * reach)
        sharpness = np.square(np.diff(profile)).sum()
        if sharpness > best:
            best, angle = sharpness, degrees
    return angle
