"""Ink told from paper: the light evened out, noise measured, ruled lines removed.

Lengths are relative to the picture, so that a crop of one digit works as does a page of a hundred.
"""

from itertools import pairwise

import numpy as np
from PIL import Image
from scipy import ndimage

WINDOWS = (0.1, 0.4)  # of the light's correction, in long sides; the wider one for thick strokes
LEAST_CONTRAST = 0.12  # of ink against its paper, as a share of the paper's brightness
NOISE = 10  # ink is so many standard deviations of the noise darker than the palest paper around
DARKEST_PAPER = 0.25  # of white: dividing by less would amplify the noise of a dark table
TILT = 8  # degrees by which ruled lines may be off the horizontal and the vertical


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
