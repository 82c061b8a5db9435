"""Ink told from paper: the light evened out, noise measured, ruled lines removed.

Lengths are relative to the picture, so that a crop of one digit works as does a page of a hundred.
"""

from itertools import pairwise

import cv2
import numpy as np

from apps.classify.operations import MIRROR, closing, label, mean, rim, steepness

WINDOWS = (0.1, 0.4)  # of the light's correction, in long sides; the wider one for thick strokes
LEAST_CONTRAST = 0.12  # of ink against its paper, as a share of the paper's brightness
NOISE = 10  # ink is so many standard deviations of the noise darker than the palest paper around
DARKEST_PAPER = 0.25  # of white: dividing by less would amplify the noise of a dark table
TILT = 8  # degrees by which ruled lines may be off the horizontal and the vertical


def ink_contrast(picture: np.ndarray, other: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """By how much each pixel is darker (or lighter) than its paper, as a share of the paper.

    The paper is what remains of the picture when all dark structures narrower than a window are
    filled (grey closing). Ink is what covers less of the picture than its opposite.

    Args:
        picture: grey, float32 in [0, 1], shape (height, width).
        other: the opposite is ink.

    Returns:
        contrast: float32, shape as the picture's, 0 on paper.
        level: what the contrast of ink exceeds there, and noise does not; the same shape.
    """
    picture = cv2.GaussianBlur(picture, (7, 7), 0.7, borderType=MIRROR)
    long = max(picture.shape)
    residual = picture - mean(picture, 2 * (long // 8) + 1)
    if ((residual * np.square(residual)).sum() > 0) != other:  # light ink
        picture = picture.max() - picture
    thick = has_thick_strokes(picture)
    half = int(long * (WINDOWS[1] if thick else WINDOWS[0])) // 2
    if thick:  # under a wide window the light matters beyond the border: it goes on as it did
        margin = [min(half, side - 1) for side in picture.shape]
        wider = np.pad(
            picture, [(each, each) for each in margin], mode="reflect", reflect_type="odd"
        )
        rows, columns = (
            slice(each, each + side) for each, side in zip(margin, picture.shape, strict=True)
        )
        paper = closing(wider, 2 * half + 1)[rows, columns]
    else:
        paper = closing(picture, 2 * half + 1)
    contrast = paper - picture
    contrast /= np.maximum(paper, DARKEST_PAPER)
    level = NOISE * local_noise(picture)
    level /= np.maximum(paper, DARKEST_PAPER)
    contrast = np.maximum(contrast - 0.4 * level, 0)  # the closing follows the palest grains
    level *= 0.6
    return contrast, np.maximum(level, LEAST_CONTRAST, out=level)


def local_noise(picture: np.ndarray) -> np.ndarray:
    """The standard deviation around each pixel of what is finer than a stroke.

    Taken from the quarter of the pixels in a square block that deviate least from their
    surroundings, so that ink and its edges count for nothing; linear between the blocks' centres.
    """
    values = np.abs(picture - mean(picture, 9))
    side = max(8, max(values.shape) // 16)
    counts = [max(1, length // side) for length in values.shape]
    rows, columns = (
        np.linspace(0, length, count + 1).astype(int)
        for length, count in zip(values.shape, counts, strict=True)
    )
    blocks = np.array(
        [
            [
                np.percentile(values[top:bottom:2, left:right:2], 25) / 0.3186
                for left, right in pairwise(columns)
            ]
            for top, bottom in pairwise(rows)
        ],
        np.float32,
    )
    blocks = cv2.medianBlur(blocks, 3)  # one block may be full of edges
    return cv2.resize(blocks, values.shape[::-1], interpolation=cv2.INTER_LINEAR)


def has_thick_strokes(picture: np.ndarray) -> bool:
    """Whether sharp-edged strokes are so wide that the narrow window would take them for paper."""
    step = max(1, max(picture.shape) // 200)
    small = picture[::step, ::step]
    narrow, wide = (int(max(small.shape) * share) | 1 for share in WINDOWS)
    contrast = closing(small, wide) - small
    side = narrow * 2 // 3 | 1
    thick = cv2.morphologyEx(contrast, cv2.MORPH_OPEN, np.ones((side, side), np.uint8))
    if (peak := thick.max()) < 2 * LEAST_CONTRAST:
        return False
    labels, boxes = label(contrast > peak / 2, 4)
    edge = steepness(contrast)
    for number, (left, top, right, bottom) in enumerate(boxes, 1):
        place = slice(top, bottom), slice(left, right)
        inside = labels[place] == number
        if not (thick[place][inside] > peak / 2).any():
            continue
        touches = top == 0 or left == 0
        touches |= bottom == small.shape[0] or right == small.shape[1]
        sharp = np.median(edge[place][rim(inside)]) > peak / 16
        if sharp and not touches:
            return True
    return False


def remove_lines(contrast: np.ndarray, level: float, long: int) -> None:
    """Take ruled lines that run along the rows out of `contrast`, and leave what crosses them.

    A line is thin, and longer than half of the picture; it may be tilted by TILT degrees.
    """
    height, width = contrast.shape
    run = max(9, long // 16) | 1
    if height < 15 or width <= 2 * run:
        return
    shift = np.rint(np.arange(width) * np.tan(np.radians(tilt_of(contrast, level)))).astype(int)
    places = (np.arange(height)[:, None] + shift) % height, np.arange(width)
    upright = contrast[places]
    # What is taller than lines are wide is set aside: strokes that cross them, the table's edge.
    widest = int(max(6, long / 120)) | 1
    tall = cv2.morphologyEx(upright, cv2.MORPH_OPEN, np.ones((widest, 1), np.uint8))
    spread = cv2.dilate(upright - tall, np.ones((5, 1), np.uint8))  # they drift by two pixels
    gap = np.ones((1, run // 3 | 1), np.uint8)  # where they are crossed, or too faint
    spread = cv2.morphologyEx(spread, cv2.MORPH_CLOSE, gap)
    lines = cv2.morphologyEx(spread, cv2.MORPH_OPEN, np.ones((1, run), np.uint8))
    labels, boxes = label(lines > level / 2, 4)
    spans = np.append(0, boxes[:, 2] - boxes[:, 0])
    areas = np.bincount(labels[upright > level / 2], minlength=len(spans))
    thickness = areas / np.maximum(spans, 1)
    ruled = (spans > width / 2) & (thickness < widest)
    if not ruled.any():
        return
    mask, size = ruled[labels], int(np.ceil(thickness[ruled].max())) + 2 | 1
    falling = np.eye(size, dtype=np.uint8)
    crossing = [
        cv2.morphologyEx(upright, cv2.MORPH_OPEN, stroke)
        for stroke in (np.ones((size, 1), np.uint8), falling, np.ascontiguousarray(falling[::-1]))
    ]
    upright[mask] = np.maximum.reduce(crossing)[mask]
    contrast[places] = upright


def tilt_of(contrast: np.ndarray, level: float) -> float:
    """The angle in degrees at which lines run along the rows: their profile has the most peaks."""
    step = max(1, contrast.shape[1] // 200)
    rows, columns = np.nonzero(contrast[:, ::step] > level / 2)
    ink = np.minimum(contrast[rows, columns * step], 2 * level)
    best, angle = 0, 0.0
    for degrees in np.arange(-TILT, TILT + 0.5, 0.5):
        shift = np.rint(columns * step * np.tan(np.radians(degrees))).astype(int)
        profile = np.bincount((rows - shift) % len(contrast), ink, len(contrast))
        sharpness = np.square(np.diff(profile)).sum()
        if sharpness > best:
            best, angle = sharpness, degrees
    return angle
