"""Ways to spoil an image that leave a digit recognisable for a person: sixteen after MNIST-C.

N. Mu and J. Gilmer, "MNIST-C: A Robustness Benchmark for Computer Vision" (arXiv 1906.02337, 2019),
publish fifteen; defocus blur, which they tried and left out, is the sixteenth. Figures are theirs
unless a comment says otherwise. Four others are of kinds that training never shows.

Each function takes images, float32 in [0, 1] (0 is background, 1 is ink), shape (N, height, width),
and returns new ones of the same kind; its docstring is the description. Random numbers come from
`rng` in one draw whose first axis counts the images: what happens to an image does not depend on
the images after it.
"""

import io
from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from PIL import Image
from scipy.ndimage import convolve, gaussian_filter, map_coordinates
from scipy.signal import sawtooth
from skimage import transform
from skimage.feature import canny
from skimage.measure import block_reduce
from skimage.morphology import disk
from skimage.transform import AffineTransform


def shot_noise(images: np.ndarray, rng: Generator) -> np.ndarray:
    """Too little light: where a pixel is 1, three photons arrive on average (Poisson)."""
    photons = 3
    return np.minimum(rng.poisson(images * photons) / photons, 1).astype(np.float32)


def impulse_noise(images: np.ndarray, rng: Generator) -> np.ndarray:
    """Dead pixels: 17 % become 0 or 1, evenly (salt and pepper)."""
    share = np.float32(0.17)
    draw = rng.random(images.shape, np.float32)
    return np.where(draw < share, (draw < share / 2).astype(np.float32), images)


def glass_blur(images: np.ndarray, rng: Generator) -> np.ndarray:
    """Frosted glass: blurred, each pixel replaced by a neighbour at random, blurred again."""
    sigma = 0.7  # pixels; MNIST-C twice swaps half of the pixels with a neighbour
    count, height, width = images.shape
    steps = rng.integers(-1, 1, (count, 2, height, width), np.int8, endpoint=True)
    numbers, rows, columns = np.ogrid[:count, :height, :width]
    rows = np.clip(rows + steps[:, 0], 0, height - 1)
    columns = np.clip(columns + steps[:, 1], 0, width - 1)
    shuffled = gaussian_filter(images, (0, sigma, sigma))[numbers, rows, columns]
    return np.clip(gaussian_filter(shuffled, (0, sigma, sigma)), 0, 1)


def defocus_blur(images: np.ndarray, rng: Generator) -> np.ndarray:
    """A lens out of focus: each point becomes a disk of radius 2 pixels."""
    return _convolved(images, disk(2))  # MNIST-C's least radius, 3, closes small loops


def motion_blur(images: np.ndarray, rng: Generator) -> np.ndarray:
    """A moving camera: each point trails off over 10 pixels, at an angle from -45 to 45 degrees."""
    length, sigma = 10, 3  # pixels; the trail fades like a normal distribution
    angles = np.linspace(-45, 45, 31)  # in steps of 3 degrees, so that images share kernels
    trail = np.zeros((2 * length + 1, 2 * length + 1))
    trail[length, length:] = np.exp(-0.5 * (np.arange(length + 1) / sigma) ** 2)
    chosen = rng.integers(len(angles), size=len(images))
    blurred = np.empty_like(images)
    for number in np.unique(chosen):
        kernel = transform.rotate(trail, angles[number])
        blurred[chosen == number] = _convolved(images[chosen == number], kernel)
    return blurred


def shear(images: np.ndarray, rng: Generator) -> np.ndarray:
    """Slanted by 0.4 radians (23 degrees), to the left or to the right."""
    return _warped(images, rng, [AffineTransform(shear=angle) for angle in (-0.4, 0.4)])


def scale(images: np.ndarray, rng: Generator) -> np.ndarray:
    """Shrunk to 0.7 of the size."""
    return _warped(images, rng, [AffineTransform(scale=1 / 0.7)])


def rotate(images: np.ndarray, rng: Generator) -> np.ndarray:
    """Turned by 0.4 radians (23 degrees), one way or the other."""
    return _warped(images, rng, [AffineTransform(rotation=angle) for angle in (-0.4, 0.4)])


def translate(images: np.ndarray, rng: Generator) -> np.ndarray:
    """Moved by 3 pixels up or down and 3 to the left or right."""
    steps = [(x, y) for x in (-3, 3) for y in (-3, 3)]
    return _warped(images, rng, [AffineTransform(translation=step) for step in steps])


def brightness(images: np.ndarray, rng: Generator) -> np.ndarray:
    """0.5 added to every pixel, up to 1."""
    return np.minimum(images + np.float32(0.5), 1)


def stripe(images: np.ndarray, rng: Generator) -> np.ndarray:
    """The left and the right quarter of the image inverted."""
    columns = np.arange(images.shape[2])
    quarter = len(columns) // 4
    outside = (columns < quarter) | (columns >= len(columns) - quarter)
    return np.where(outside, 1 - images, images)


def fog(images: np.ndarray, rng: Generator) -> np.ndarray:
    """Smooth random clouds, twice as strong as the image, laid over it."""
    strength, sigma = 2, 3  # MNIST-C: plasma fractals, three times as strong as the image
    clouds = gaussian_filter(rng.standard_normal(images.shape, np.float32), (0, sigma, sigma))
    clouds -= clouds.min(axis=(1, 2), keepdims=True)
    clouds /= clouds.max(axis=(1, 2), keepdims=True)
    return (images + strength * clouds) / (1 + strength)


def spatter(images: np.ndarray, rng: Generator) -> np.ndarray:
    """Drops of grey mud on the lens."""
    size, edge, threshold, grey = 1, 1.5, 0.8, np.float32(63 / 255)  # sigmas in pixels
    wet = gaussian_filter(rng.standard_normal(images.shape, np.float32), (0, size, size)) > 0
    mud = gaussian_filter(wet.astype(np.float32), (0, edge, edge))
    mud[mud < threshold] = 0
    return images + mud * (grey - images)


def dotted_line(images: np.ndarray, rng: Generator) -> np.ndarray:
    """A dotted line from side to side, two pixels of ink, two without."""
    _, height, width = images.shape
    left, right = rng.uniform(0, height - 1, (len(images), 2)).T[:, :, None]
    columns = np.arange(width)
    slope = (right - left) / (width - 1)
    return _drawn(images, left + slope * columns, slope, columns % 4 >= 2)


def zigzag(images: np.ndarray, rng: Generator) -> np.ndarray:
    """A zigzag line from side to side, 4 pixels high, a period every 8."""
    _, height, width = images.shape
    left, rise = rng.uniform((0, -5), (height - 1, 5), (len(images), 2)).T[:, :, None]
    columns = np.arange(width)
    teeth = 2 * sawtooth(2 * np.pi * columns / 8, 0.5)
    line = left + rise * columns / (width - 1) + teeth
    return _drawn(images, line, np.ones(1), (columns >= 2) & (columns < width - 2))


def canny_edges(images: np.ndarray, rng: Generator) -> np.ndarray:
    """Only the edges of the ink (J. Canny's detector, sigma 1, thresholds 0.1 and 0.2)."""
    count, height, width = images.shape
    gap = 12  # rows between images, which then form one column: twice as fast as one by one
    column = np.pad(images, ((0, 0), (0, gap), (0, 0))).reshape(-1, width)
    return canny(column).reshape(count, height + gap, width)[:, :height].astype(np.float32)


def elastic(images: np.ndarray, rng: Generator) -> np.ndarray:
    """Drawn on rubber: each pixel moved by a smooth random field, up to some 3 pixels."""
    sigma, strength = 4, 30  # of the field: smoothness in pixels, a factor (P. Simard et al., 2003)
    count, height, width = images.shape
    field = rng.uniform(-1, 1, (count, 2, height, width))
    places = np.indices((height, width)) + strength * gaussian_filter(field, (0, 0, sigma, sigma))
    warped = [map_coordinates(image, at, order=1) for image, at in zip(images, places, strict=True)]
    return np.stack(warped)


def pixelate(images: np.ndarray, rng: Generator) -> np.ndarray:
    """A quarter of the resolution: squares of 2×2 pixels become their mean."""
    _, height, width = images.shape
    means = block_reduce(images, (1, 2, 2), np.mean)
    return means.repeat(2, axis=1).repeat(2, axis=2)[:, :height, :width]


def jpeg(images: np.ndarray, rng: Generator) -> np.ndarray:
    """Stored as JPEG of the low quality 8 (of 95)."""
    loaded = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(np.rint(255 * image).astype(np.uint8)).save(file, "jpeg", quality=8)
        loaded.append(np.asarray(Image.open(file), np.float32) / 255)
    return np.stack(loaded)


def patch(images: np.ndarray, rng: Generator) -> np.ndarray:
    """A square of 6×6 pixels pasted over it, of a random grey."""
    size = 6
    count, height, width = images.shape
    top, left, grey = rng.random((count, 3, 1, 1)).transpose(1, 0, 2, 3)
    rows = np.arange(height)[:, None] - np.floor(top * (height - size + 1))
    columns = np.arange(width) - np.floor(left * (width - size + 1))
    inside = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    return np.where(inside, grey, images).astype(np.float32)


def _convolved(images: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Each image convolved with `kernel`, whose sum becomes 1; empty beyond the border."""
    weights = (kernel / kernel.sum())[None]
    return np.clip(convolve(images, weights, mode="constant"), 0, 1)


def _warped(images: np.ndarray, rng: Generator, maps: list[AffineTransform]) -> np.ndarray:
    """Each image resampled by one of `maps`, from output to input, about the image's centre."""
    centre = (np.array(images.shape[:0:-1]) - 1) / 2
    chosen = rng.integers(len(maps), size=len(images))
    warped = np.empty_like(images)
    to_centre, back = AffineTransform(translation=-centre), AffineTransform(translation=centre)
    for number in np.unique(chosen):
        centred = to_centre + maps[number] + back
        group = np.moveaxis(images[chosen == number], 0, -1)  # warp takes them as channels
        warped[chosen == number] = np.moveaxis(transform.warp(group, centred), -1, 0)
    return warped


def _drawn(images: np.ndarray, line: np.ndarray, slope: np.ndarray, ink: np.ndarray) -> np.ndarray:
    """Ink added along a curve, 2 pixels wide with soft edges (MNIST-C: a logarithmic fall-off).

    Args:
        line: row of the curve in each column, shape (N, width).
        slope: its steepness, shape (N, 1) or (1,): at 1, ink is 1.4 times as high as it is wide.
        ink: whether a column is drawn at all, shape (width,).
    """
    rows = np.arange(images.shape[1])[:, None]
    distance = np.abs(rows - line[:, None, :]) / np.hypot(1, slope)[..., None]
    return np.minimum(images + ink * np.clip(1.5 - distance, 0, 1), 1).astype(np.float32)


def _named(*functions: Callable) -> dict[str, Callable]:
    return {function.__name__: function for function in functions}


MNIST_C = _named(
    shot_noise, impulse_noise, glass_blur, defocus_blur, motion_blur, shear, scale, rotate
) | _named(translate, brightness, stripe, fog, spatter, dotted_line, zigzag, canny_edges)
OTHERS = _named(elastic, pixelate, jpeg, patch)  # nothing in training resembles these
CORRUPTIONS = MNIST_C | OTHERS


def corrupt(images: np.ndarray, name: str, seed: int) -> np.ndarray:
    """The images under the corruption `name`, which has random numbers of its own.

    Args:
        images: float32 in [0, 1], shape (N, height, width).
        name: a key of CORRUPTIONS.
        seed: of the random numbers.
    """
    return CORRUPTIONS[name](images, np.random.default_rng([seed, *name.encode()]))
