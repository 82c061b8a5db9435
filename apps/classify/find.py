"""Where the digits of a picture are: ink told from paper, ruled lines removed, strokes grouped.

The steps, each in a function below: even out the light, remove ruled lines, threshold, drop what
cannot be a digit by its shape, put broken strokes together, sort into rows. Lengths are relative to
the picture or to the digits in it, so that a crop of one digit works as does a page of a hundred.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

WINDOWS = (0.1, 0.4)  # of the light's correction, in long sides; the wider one for thick strokes
LEAST_CONTRAST = 0.12  # of ink against its paper, as a share of the paper's brightness
NOISE = 10  # ink is so many standard deviations of the noise darker than the palest paper around
DARKEST_PAPER = 0.25  # of white: dividing by less would amplify the noise of a dark table
TILT = 8  # degrees by which ruled lines may be off the horizontal and the vertical
MANY = 200  # specks that are too small for a digit make a picture noisy
FAINT = 0.4  # of the other ink's contrast is too little
PARTS = 600  # strokes at most: grouping compares them in pairs


class Found(NamedTuple):
    """The digits of a picture.

    boxes: left, top, right, bottom, in pixels, int, shape (N, 4), in reading order.
    rows: of each digit, from 0, non-decreasing, shape (N,).
    inks: for each digit, how much ink a pixel of its box has, float32 in [0, 1].
    """

    boxes: np.ndarray
    rows: np.ndarray
    inks: list[np.ndarray]


def find_digits(picture: np.ndarray) -> Found:
    """Find what has the shape of a digit, in reading order.

    Args:
        picture: grey, float32 in [0, 1], shape (height, width), any sizes from 1.
    """
    contrast, level = ink_contrast(picture)
    long = max(contrast.shape)
    for turned in (contrast, contrast.T):
        remove_lines(turned, float(np.median(level)), long)
    strokes, strength = find_strokes(contrast, level)
    boxes, groups = group_strokes(strokes, contrast, strength)
    rows = rows_of(boxes)
    tops = np.array([boxes[rows == row, 1].mean() for row in range(rows.max(initial=-1) + 1)])
    places = np.argsort(np.argsort(tops))[rows] if len(rows) else rows
    order = np.lexsort((boxes[:, 0], places))
    inks = []
    for number in order:
        left, top, right, bottom = boxes[number]
        part = np.isin(strokes[top:bottom, left:right], groups[number])
        part = ndimage.binary_dilation(part, iterations=2)  # the soft edge of the stroke
        values = contrast[top:bottom, left:right]
        peak = np.percentile(values[part], 90)
        inks.append(np.where(part, np.clip(values / peak, 0, 1), 0).astype(np.float32))
    return Found(boxes[order], places[order], inks)


def ink_contrast(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By how much each pixel is darker (or lighter) than its paper, as a share of the paper.

    The paper is what remains of the picture when all dark structures narrower than a window are
    filled (grey closing). Ink is what covers less of the picture than its opposite.

    Returns:
        contrast: float32, shape as the picture's, 0 on paper.
        level: what the contrast of ink exceeds there, and noise does not; the same shape.
    """
    picture = ndimage.gaussian_filter(picture, 0.7)
    long = max(picture.shape)
    residual = picture - ndimage.uniform_filter(picture, 2 * (long // 8) + 1)
    if (residual**3).sum() > 0:  # light ink
        picture = picture.max() - picture
    thick = has_thick_strokes(picture)
    half = int(long * (WINDOWS[1] if thick else WINDOWS[0])) // 2
    margin = [min(half, side - 1) for side in picture.shape]
    # Under a wide window the light matters beyond the border: it goes on as it did.
    kind = {"mode": "reflect", "reflect_type": "odd"} if thick else {"mode": "symmetric"}
    wider = np.pad(picture, [(each, each) for each in margin], **kind)
    paper = ndimage.grey_closing(wider, [2 * each + 1 for each in margin])
    inner = zip(margin, picture.shape, strict=True)
    paper = paper[tuple(slice(each, each + side) for each, side in inner)]
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
    values = np.abs(picture - ndimage.uniform_filter(picture, 9))
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
    blocks = ndimage.median_filter(blocks, 3)  # one block may be full of edges
    size = values.shape[1], values.shape[0]
    return np.asarray(Image.fromarray(blocks).resize(size, Image.Resampling.BILINEAR))


def has_thick_strokes(picture: np.ndarray) -> bool:
    """Whether sharp-edged strokes are so wide that the narrow window would take them for paper."""
    step = max(1, max(picture.shape) // 200)
    small = picture[::step, ::step]
    narrow, wide = (int(max(small.shape) * share) | 1 for share in WINDOWS)
    contrast = ndimage.grey_closing(small, (wide, wide)) - small
    thick = ndimage.grey_opening(contrast, (narrow * 2 // 3, narrow * 2 // 3))
    if (peak := thick.max()) < 2 * LEAST_CONTRAST:
        return False
    labels, _ = ndimage.label(contrast > peak / 2)
    edge = np.hypot(ndimage.sobel(contrast, 0), ndimage.sobel(contrast, 1)) / 8
    for number, place in enumerate(ndimage.find_objects(labels), 1):
        rows, columns = place
        inside = labels[place] == number
        if not (thick[place][inside] > peak / 2).any():
            continue
        height, width = inside.shape
        touches = rows.start == 0 or columns.start == 0
        touches |= rows.stop == small.shape[0] or columns.stop == small.shape[1]
        rim = inside & ~ndimage.binary_erosion(inside)
        sharp = np.median(edge[place][rim]) > peak / 16
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
    spread = ndimage.maximum_filter1d(upright, 5, axis=0)  # a line that drifts by two pixels
    lines = ndimage.maximum_filter1d(ndimage.minimum_filter1d(spread, run, axis=1), run, axis=1)
    labels, count = ndimage.label(lines > level / 2)
    spans = np.array([0, *(box[1].stop - box[1].start for box in ndimage.find_objects(labels))])
    areas = np.bincount(labels[upright > level / 2], minlength=count + 1)
    thickness = areas / np.maximum(spans, 1)
    ruled = (spans > width / 2) & (thickness < max(6, long / 120))
    if not ruled.any():
        return
    mask, size = ruled[labels], int(np.ceil(thickness[ruled].max())) + 2
    crossing = ndimage.grey_opening(upright, (size, 1))
    for footprint in (np.eye(size, dtype=bool), np.eye(size, dtype=bool)[::-1]):
        np.maximum(crossing, ndimage.grey_opening(upright, footprint=footprint), out=crossing)
    upright[mask] = crossing[mask]
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


def find_strokes(contrast: np.ndarray, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Label the connected strokes, each thresholded at a share of its own contrast.

    Returns:
        labels: int, shape as the picture's, 0 for paper.
        strength: contrast of each stroke, shape (strokes + 1,).
    """
    eight, mask = np.ones((3, 3)), contrast > level
    for share in (0.4, 0):
        labels, count = ndimage.label(mask, eight)
        strength = np.zeros(count + 1, np.float32)
        np.maximum.at(strength, labels[mask], contrast[mask])
        mask &= contrast > share * strength[labels]
    return labels, strength


def group_strokes(
    labels: np.ndarray, contrast: np.ndarray, strength: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Put strokes together that make one digit, and drop what is none by its shape.

    Returns:
        boxes: shape (N, 4).
        groups: the labels of each digit's strokes.
    """
    none = np.zeros((0, 4), int), []
    places = ndimage.find_objects(labels)
    if not places:
        return none
    boxes = np.array([(x.start, y.start, x.stop, y.stop) for y, x in places])
    numbers = np.arange(1, len(boxes) + 1)
    size = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    least = max(8, max(labels.shape) // 80)
    specks = size[size < least]
    if len(specks) > MANY:  # noise, whose largest speck must not pass for a digit
        least = max(least, 3 * np.percentile(specks, 95))
    keep = (size >= least / 2) & ~cut_off(boxes, labels)
    # Faint beside the other ink: texture, shadows, print from the other side.
    mass = np.bincount(labels.ravel(), contrast.ravel())[1:] * keep
    keep &= strength[1:] > FAINT * (mass * strength[1:]).sum() / max(mass.sum(), 1e-9)
    order = np.argsort(-size * keep, kind="stable")[: min(PARTS, keep.sum())]
    boxes, numbers = boxes[order], numbers[order]
    if not len(boxes):
        return none
    heights = np.sort(boxes[:, 3] - boxes[:, 1])
    typical = heights[np.searchsorted(heights.cumsum(), heights.sum() / 2)]
    owner = merged(boxes, typical)
    found, groups = [], []
    for number in np.unique(owner):
        members = owner == number
        box = np.concatenate([boxes[members, :2].min(axis=0), boxes[members, 2:].max(axis=0)])
        if box[3] - box[1] < max(least, 0.35 * typical):
            continue
        if is_digit_shape(box, numbers[members], labels, contrast, strength):
            found.append(box)
            groups.append(numbers[members])
    return (np.array(found), groups) if found else none


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


def is_digit_shape(
    box: np.ndarray,
    numbers: np.ndarray,
    labels: np.ndarray,
    contrast: np.ndarray,
    strength: np.ndarray,
) -> bool:
    """Whether the strokes could be a digit: neither a dash nor a blob, sharp-edged, not cut off."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    if width > 2.2 * height:
        return False
    inside = np.pad(np.isin(labels[top:bottom, left:right], numbers), 1)
    thickness = 2 * ndimage.distance_transform_edt(inside).max()
    if thickness > 0.65 * max(width, height):
        return False
    values = np.pad(contrast[top:bottom, left:right], 1)
    edge = np.hypot(ndimage.sobel(values, 0), ndimage.sobel(values, 1)) / 8
    rim = inside & ~ndimage.binary_erosion(inside)
    steepness = np.median(edge[rim]) / strength[numbers].max()  # per pixel
    return bool(steepness > min(0.1, 2 / max(width, height)))


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
