"""Ink told from paper: the light evened out, noise measured.

Lengths are relative to the picture, so that a crop of one digit works as does a page of a hundred.
"""

import cv2
import numpy as np

from apps.classify.operations import MIRROR, closing, label, rim, steepness

WINDOWS = (0.1, 0.4)  # of the light's correction, in long sides; the wider one for thick strokes
LEAST_CONTRAST = 0.12  # of ink against its paper, as a share of the paper's brightness
SAMPLED = 20  # pixels of each row and column of a block in which noise is measured
NOISE = 10  # ink is so many standard deviations of the noise darker than the palest paper around
DARKEST_PAPER = 0.25  # of white: dividing by less would amplify the noise of a dark table


def ink_contrast(picture: np.ndarray, other: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """By how much each pixel is darker (or lighter) than its paper, as a share of the paper.

    Ink is what covers less of the picture than its opposite.

    Args:
        picture: grey, uint8, shape (height, width).
        other: the opposite is ink.

    Returns:
        contrast: of 255, uint8, shape as the picture's, 0 on paper.
        level: what the contrast of ink exceeds there, and noise does not; the same.
    """
    picture = cv2.GaussianBlur(picture, (7, 7), 0.7, borderType=MIRROR)
    long = max(picture.shape)
    sample = np.float32(picture[:: max(1, long // 400), :: max(1, long // 400)])
    around = 2 * (max(sample.shape) // 8) + 1
    residual = sample - cv2.blur(sample, (around, around), borderType=MIRROR)
    if ((residual * np.square(residual)).sum() > 0) != other:  # light ink
        picture = picture.max() - picture
    paper = paper_of(picture)
    bright = np.maximum(paper, np.uint8(255 * DARKEST_PAPER))
    contrast = cv2.divide(cv2.subtract(paper, picture), bright, scale=255)
    noise = cv2.divide(local_noise(picture), bright, scale=255)
    above = cv2.convertScaleAbs(noise, alpha=0.4)  # the closing follows the palest grains
    level = cv2.max(noise - above, 255 * LEAST_CONTRAST)
    return cv2.subtract(contrast, above), level


def paper_of(picture: np.ndarray) -> np.ndarray:
    """What remains when all dark structures narrower than a window are filled (grey closing)."""
    thick, (height, width) = has_thick_strokes(picture), picture.shape
    half = int(max(height, width) * (WINDOWS[1] if thick else WINDOWS[0])) // 2
    if not thick:
        return closing(picture, 2 * half + 1)
    # The light matters beyond the border: it goes on as it did.
    down, across = min(half, height - 1), min(half, width - 1)
    pads = (down, down), (across, across)
    wider = np.pad(np.int16(picture), pads, "reflect", reflect_type="odd")
    wider = np.uint8(np.clip(wider, 0, 255))
    return closing(wider, 2 * half + 1)[down : down + height, across : across + width]


def local_noise(picture: np.ndarray) -> np.ndarray:
    """NOISE standard deviations of what is finer than a stroke, around each pixel.

    Taken from the quarter of the pixels in a square block that deviate least from their
    surroundings, so that ink and its edges count for nothing; linear between the blocks' centres.

    Args:
        picture: uint8, shape (height, width).

    Returns:
        Levels of 255, uint8, shape as the picture's.
    """
    side = max(8, max(picture.shape) // 16)
    down, across = (max(1, length // side) for length in picture.shape)
    rows, columns = (
        ((np.arange(count * SAMPLED) + 0.5) * (length / (count * SAMPLED))).astype(int)
        for length, count in zip(picture.shape, (down, across), strict=True)
    )
    means = cv2.boxFilter(picture, cv2.CV_16U, (9, 9), normalize=False, borderType=MIRROR)
    values = np.abs(picture[rows][:, columns] - means[rows][:, columns] / 81)
    values = values.reshape(down, SAMPLED, across, SAMPLED)
    deviation = np.quantile(values, 0.25, axis=(1, 3)) / 0.3186
    blocks = cv2.convertScaleAbs(deviation, alpha=NOISE)
    blocks = cv2.medianBlur(blocks, 3)  # one block may be full of edges
    return cv2.resize(blocks, picture.shape[::-1], interpolation=cv2.INTER_LINEAR)


def has_thick_strokes(picture: np.ndarray) -> bool:
    """Whether sharp-edged strokes are so wide that the narrow window would take them for paper."""
    step = max(1, max(picture.shape) // 200)
    small = picture[::step, ::step] / np.float32(255)
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
