"""Ink told from paper: the light evened out, noise measured, ruled lines removed.

Lengths are relative to the picture, so that a crop of one digit works as does a page of a hundred.
"""

import cv2
import numpy as np

from apps.classify.operations import MIRROR, closing, label, mean, rim, steepness

WINDOWS = (0.1, 0.4)  # of the light's correction, in long sides; the wider one for thick strokes
LEAST_CONTRAST = 0.12  # of ink against its paper, as a share of the paper's brightness
SAMPLED = 20  # pixels of each row and column of a block in which noise is measured
NOISE = 10  # ink is so many standard deviations of the noise darker than the palest paper around
DARKEST_PAPER = 0.25  # of white: dividing by less would amplify the noise of a dark table
TILT = 8  # degrees by which ruled lines may be off the horizontal and the vertical


def ink_contrast(picture: np.ndarray, other: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """By how much each pixel is darker (or lighter) than its paper, as a share of the paper.

    The paper is what remains of the picture when all dark structures narrower than a window are
    filled (grey closing). Ink is what covers less of the picture than its opposite.

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
    residual = sample - mean(sample, 2 * (max(sample.shape) // 8) + 1)
    if ((residual * np.square(residual)).sum() > 0) != other:  # light ink
        picture = picture.max() - picture
    thick = has_thick_strokes(picture)
    half = int(long * (WINDOWS[1] if thick else WINDOWS[0])) // 2
    wider, margin = picture, (0, 0)
    if thick:  # the light matters beyond the border: it goes on as it did
        margin = [min(half, side - 1) for side in picture.shape]
        pads = [(by, by) for by in margin]
        wider = np.pad(np.int16(picture), pads, "reflect", reflect_type="odd")
        wider = np.uint8(np.clip(wider, 0, 255))
    paper = closing(wider, 2 * half + 1)[margin[0] :, margin[1] :]
    paper = paper[: picture.shape[0], : picture.shape[1]]
    bright = np.maximum(paper, np.uint8(255 * DARKEST_PAPER))
    contrast = cv2.divide(cv2.subtract(paper, picture), bright, scale=255)
    noise = cv2.divide(local_noise(picture), bright, scale=255)
    above = cv2.convertScaleAbs(noise, alpha=0.4)  # the closing follows the palest grains
    level = cv2.max(noise - above, 255 * LEAST_CONTRAST)
    return cv2.subtract(contrast, above), level


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
