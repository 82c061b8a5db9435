"""The ink of one digit, told from its paper and from what is beside it."""

import cv2
import numpy as np

FINE = 56  # pixels of a digit's longer side: twice what is left of it for the model
AROUND = 0.35  # of that side: what is looked at beyond the box
NEAR = 0.08  # of that side: by how much a box may be too small
DARK = 0.45  # of the digit's contrast: what is ink
PALE = 0.2  # of the digit's contrast: what is paper
SPECK = 0.02  # of the digit's ink: less, off the rest, is none of it


def ink_of(picture: np.ndarray, box: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """How much ink each pixel of a digit has, cut to its ink.

    What hangs together is the digit's as a whole if most of it is within the box, as no ruled line
    and no neighbour is; of other ink in the box, what the finder sees as a digit's.

    Args:
        picture: grey, uint8, shape (height, width).
        box: left, top, right, bottom of the digit, in pixels, float.
        seen: whether there is a digit's ink, in [0, 1], of the whole picture, in any size.

    Returns:
        float32 in [0, 1], at most about FINE pixels high and wide.
    """
    height, width = picture.shape
    side = max(box[2:] - box[:2])
    low = np.maximum(np.floor(box[:2] - AROUND * side), 0).astype(int)
    high = np.minimum(np.ceil(box[2:] + AROUND * side), (width, height)).astype(int)
    factor = min(1, FINE / side)
    size = [max(2, round(factor * length)) for length in high - low]
    part = picture[low[1] : high[1], low[0] : high[0]]
    values = np.float32(cv2.resize(part, size, interpolation=cv2.INTER_AREA))
    scale = np.divide(size, high - low)
    left, top, right, bottom = (box.reshape(2, 2) - low).ravel() * np.tile(scale, 2)
    side = max(right - left, bottom - top)
    edge = NEAR * side + 1
    y, x = np.indices(values.shape) + 0.5
    near = (x > left - edge) & (x < right + edge) & (y > top - edge) & (y < bottom + edge)

    steps = np.divide(seen.shape[::-1], (width, height))  # of `seen`, for each of the picture's
    first, last = (low * steps).astype(int), np.ceil(high * steps).astype(int)
    likely = seen[first[1] : max(last[1], first[1] + 1), first[0] : max(last[0], first[0] + 1)]
    likely = cv2.resize(np.ascontiguousarray(likely), size)
    contrast, peak = contrast_of(values, near & (likely > 0.5), near, likely < 0.2)

    ink = contrast > DARK * peak
    count, labels = cv2.connectedComponents(ink.view(np.uint8))
    total, own = (np.bincount(labels[where], minlength=count) for where in (ink, ink & near))
    border = np.zeros(count, bool)
    for line in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        border[line] = True
    whole = np.where(border, own > 0.8 * total, own > 0.5 * total)
    spread = cv2.dilate(likely, np.ones((3, 3), np.uint8))
    digit = ink & (whole[labels] | (near & (spread > 0.4)))
    _, labels, found, _ = cv2.connectedComponentsWithStats(digit.view(np.uint8))
    digit &= (found[:, cv2.CC_STAT_AREA] >= SPECK * digit.sum())[labels]
    if not digit.any():
        return np.zeros((1, 1), np.float32)
    rows, columns = (np.flatnonzero(digit.any(axis=axis)) for axis in (1, 0))
    soft = cv2.dilate(
        digit.view(np.uint8), np.ones((3, 3), np.uint8), iterations=1 + int(side / 50)
    )
    ink = np.clip((contrast / peak - PALE) / (1 - PALE), 0, 1) * soft
    return np.float32(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def contrast_of(
    values: np.ndarray, inked: np.ndarray, near: np.ndarray, paper: np.ndarray
) -> tuple[np.ndarray, float]:
    """By how much each pixel is darker than its paper, or lighter if ink is, and ink mostly is.

    Args:
        values: grey levels, float32, shape (height, width).
        inked, near, paper: where ink, the digit, and paper are likely, bool, shape as `values`.
    """
    level = np.median(values[paper] if paper.mean() > 0.1 else values)
    contrast = values - level
    # Cubes: of thin strokes the model's answers, which are coarse, cover mostly paper.
    if (contrast[inked if inked.any() else near] ** 3).sum() < 0:
        contrast = -contrast
    contrast = np.clip(contrast, 0, None)
    inner = contrast[near]
    peak = np.percentile(inner[inner >= inner.max() / 2], 60)
    if inked.any():
        peak = min(peak, np.percentile(contrast[inked], 90))
    return contrast, max(float(peak), 1.0)
