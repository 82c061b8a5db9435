"""Ways to spoil an image that leave a digit recognisable for a person: sixteen after MNIST-C.

N. Mu and J. Gilmer, "MNIST-C: A Robustness Benchmark for Computer Vision" (arXiv 1906.02337, 2019),
publish fifteen; defocus blur, which they tried and left out, is the sixteenth. Figures are theirs
unless a comment says otherwise. Four others are of kinds that training never shows.

Each function takes images, float32 in [0, 1] (in grey ones, 0 is background and 1 is ink), shape
(N, height, width, channels), and returns new ones of the same kind; its docstring is the
description. Its lengths are those for images of 28 pixels, as MNIST's are; for others they are in
proportion, see `unit`. What moves, moves in all channels alike. Random numbers come from `rng` in
one draw whose first axis counts the images: what happens to an image does not depend on the images
after it.
"""

import io
from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates
from skimage import transform
from skimage.feature import canny
from skimage.transform import AffineTransform

GREY = np.float32([0.299, 0.587, 0.114])  # of red, green, blue (ITU-R BT.601)


def unit(images: np.ndarray) -> float:
    """So many pixels are as long as one in an image of 28 pixels."""
    return min(images.shape[1:3]) / 28


def pixels(images: np.ndarray, length: float) -> int:
    """A length for images of 28 pixels, as whole pixels of these images, at least one."""
    return max(1, round(length * unit(images)))


def shot_noise(images: np.ndarray, rng: Generator) -> np.ndarray:
    """Too little light: where a pixel is 1, three photons arrive on average (Poisson)."""
    photons = 3
    return np.minimum(rng.poisson(images * photons) / photons, 1).astype(np.float32)


def impulse_noise(images: np.ndarray, rng: Generator) -> np.ndarray:
    """Dead pixels: 17 % become 0 or 1, evenly (salt and pepper)."""
    share = np.float32(0.17)
    draw = rng.random((*images.shape[:3], 1), np.float32)
    return np.where(draw < share, (draw < share / 2).astype(np.float32), images)


def glass_blur(images: np.ndarray, rng: Generator) -> np.ndarray:
    """Frosted glass: blurred, each pixel replaced by a neighbour at random, blurred again."""
    sigma, far = 0.7, pixels(images, 1)  # MNIST-C twice swaps half of the pixels with a neighbour
    count, height, width, _ = images.shape
    steps = rng.integers(-far, far, (count, 2, height, width), np.int8, endpoint=True)
    numbers, rows, columns = np.ogrid[:count, :height, :width]
    rows = np.clip(rows + steps[:, 0], 0, height - 1)
    columns = np.clip(columns + steps[:, 1], 0, width - 1)
    shuffled = _smooth(images, sigma)[numbers, rows, columns]
    return np.clip(_smooth(shuffled, sigma), 0, 1)


def defocus_blur(images: np.ndarray, rng: Generator) -> np.ndarray:
    """A lens out of focus: each point becomes a disk of radius 2 pixels."""
    radius = pixels(images, 2)  # MNIST-C's least radius, 3, closes small loops
    rows, columns = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return _convolved(images, rows**2 + columns**2 <= radius**2)


def motion_blur(images: np.ndarray, rng: Generator) -> np.ndarray:
    """A moving camera: each point trails off over 10 pixels, at an angle from -45 to 45 degrees."""
    length, sigma = pixels(images, 10), 3 * unit(images)  # it fades like a normal distribution
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
    far = pixels(images, 3)
    steps = [(x, y) for x in (-far, far) for y in (-far, far)]
    return _warped(images, rng, [AffineTransform(translation=step) for step in steps])


def brightness(images: np.ndarray, rng: Generator) -> np.ndarray:
    """0.5 added to every pixel, up to 1."""
    return np.minimum(images + np.float32(0.5), 1)


def stripe(images: np.ndarray, rng: Generator) -> np.ndarray:
    """The left and the right quarter of the image inverted."""
    columns = np.arange(images.shape[2])
    quarter = len(columns) // 4
    outside = (columns < quarter) | (columns >= len(columns) - quarter)
    return np.where(outside[:, None], 1 - images, images)


def fog(images: np.ndarray, rng: Generator) -> np.ndarray:
    """Smooth random clouds, twice as strong as the image, laid over it."""
    strength, sigma = 2, 3  # MNIST-C: plasma fractals, three times as strong as the image
    clouds = _smooth(rng.standard_normal((*images.shape[:3], 1), np.float32), sigma)
    clouds -= clouds.min(axis=(1, 2), keepdims=True)
    clouds /= clouds.max(axis=(1, 2), keepdims=True)
    return (images + strength * clouds) / (1 + strength)


def spatter(images: np.ndarray, rng: Generator) -> np.ndarray:
    """Drops of grey mud on the lens."""
    size, edge, threshold, grey = 1, 1.5, 0.8, np.float32(63 / 255)  # sigmas in pixels
    wet = _smooth(rng.standard_normal((*images.shape[:3], 1), np.float32), size) > 0
    mud = _smooth(wet.astype(np.float32), edge)
    mud[mud < threshold] = 0
    return images + mud * (grey - images)


def dotted_line(images: np.ndarray, rng: Generator) -> np.ndarray:
    """A dotted line from side to side, two pixels of ink, two without."""
    _, height, width, _ = images.shape
    left, right = rng.uniform(0, height - 1, (len(images), 2)).T[:, :, None]
    columns, dot = np.arange(width), pixels(images, 2)
    slope = (right - left) / (width - 1)
    return _drawn(images, left + slope * columns, slope, columns % (2 * dot) >= dot)


def zigzag(images: np.ndarray, rng: Generator) -> np.ndarray:
    """A zigzag line from side to side, 4 pixels high, a period every 8."""
    (_, height, width, _), step = images.shape, unit(images)
    steepest = 5 * step
    limits = (0, -steepest), (height - 1, steepest)
    left, rise = rng.uniform(*limits, (len(images), 2)).T[:, :, None]
    columns, margin = np.arange(width), pixels(images, 2)
    teeth = 2 * step * (1 - 4 * np.abs(columns / (8 * step) % 1 - 0.5))
    line = left + rise * columns / (width - 1) + teeth
    return _drawn(images, line, np.ones(1), (columns >= margin) & (columns < width - margin))


def canny_edges(images: np.ndarray, rng: Generator) -> np.ndarray:
    """Only the edges of the ink (J. Canny's detector, sigma 1, thresholds 0.1 and 0.2)."""
    count, height, width, channels = images.shape
    grey = images @ GREY if channels == 3 else images[..., 0]
    gap = pixels(images, 12)  # rows between images, now one column: twice as fast as one by one
    column = np.pad(grey, ((0, 0), (0, gap), (0, 0))).reshape(-1, width)
    edges = canny(column, sigma=unit(images)).reshape(count, height + gap, width)[:, :height]
    return edges.astype(np.float32)[..., None].repeat(channels, axis=3)


def elastic(images: np.ndarray, rng: Generator) -> np.ndarray:
    """Drawn on rubber: each pixel moved by a smooth random field, up to some 3 pixels."""
    sigma, strength = 4, 30  # of the field: smoothness in pixels, a factor (P. Simard et al., 2003)
    sigma, strength = sigma * unit(images), strength * unit(images) ** 2
    count, height, width, _ = images.shape
    field = rng.uniform(-1, 1, (count, 2, height, width))
    places = np.indices((height, width)) + strength * gaussian_filter(field, (0, 0, sigma, sigma))
    warped = np.empty_like(images)
    for image, at, result in zip(images, places, warped, strict=True):
        for channel in range(images.shape[3]):
            result[..., channel] = map_coordinates(image[..., channel], at, order=1)
    return warped


def pixelate(images: np.ndarray, rng: Generator) -> np.ndarray:
    """A quarter of the resolution: squares of 2×2 pixels become their mean."""
    (count, height, width, channels), side = images.shape, pixels(images, 2)
    beyond = ((0, 0), (0, -height % side), (0, -width % side), (0, 0))
    padded = np.pad(images, beyond, "edge")
    rows, columns = padded.shape[1] // side, padded.shape[2] // side
    means = padded.reshape(count, rows, side, columns, side, channels).mean(axis=(2, 4))
    return means.repeat(side, axis=1).repeat(side, axis=2)[:, :height, :width]


def jpeg(images: np.ndarray, rng: Generator) -> np.ndarray:
    """Stored as JPEG of the low quality 8 (of 95)."""
    loaded = []
    for image in images:
        file = io.BytesIO()
        content = np.rint(255 * image).astype(np.uint8)
        content = content if images.shape[3] == 3 else content[..., 0]
        Image.fromarray(content).save(file, "jpeg", quality=8)
        loaded.append(np.asarray(Image.open(file), np.float32) / 255)
    return np.stack(loaded).reshape(images.shape)


def patch(images: np.ndarray, rng: Generator) -> np.ndarray:
    """A square of 6×6 pixels pasted over it, of a random grey."""
    size = pixels(images, 6)
    count, height, width, _ = images.shape
    top, left, grey = rng.random((count, 3, 1, 1)).transpose(1, 0, 2, 3)
    rows = np.arange(height)[:, None] - np.floor(top * (height - size + 1))
    columns = np.arange(width) - np.floor(left * (width - size + 1))
    inside = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    return np.where(inside[..., None], grey[..., None], images).astype(np.float32)


def _smooth(images: np.ndarray, sigma: float) -> np.ndarray:
    """Each channel after a Gaussian filter, sigma for images of 28 pixels."""
    sigma *= unit(images)
    return gaussian_filter(images, (0, sigma, sigma, 0))


def _convolved(images: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Each image convolved with `kernel`, whose sum becomes 1; empty beyond the border.

    By Fourier's transform, since a kernel is as large as half an image; with room for what reaches
    over the border.
    """
    (height, width), half = images.shape[1:3], len(kernel) // 2
    size = (height + 2 * half, width + 2 * half)
    product = np.fft.rfft2(images.astype(np.float64), size, axes=(1, 2))
    product *= np.fft.rfft2(kernel / kernel.sum(), size)[..., None]
    whole = np.fft.irfft2(product, size, axes=(1, 2))[:, half:, half:]
    return np.clip(whole[:, :height, :width], 0, 1).astype(np.float32)


def _warped(images: np.ndarray, rng: Generator, maps: list[AffineTransform]) -> np.ndarray:
    """Each image resampled by one of `maps`, from output to input, about the image's centre."""
    count, height, width, channels = images.shape
    centre = (np.array([width, height]) - 1) / 2
    chosen = rng.integers(len(maps), size=count)
    warped = np.empty_like(images)
    to_centre, back = AffineTransform(translation=-centre), AffineTransform(translation=centre)
    for number in np.unique(chosen):
        centred = to_centre + maps[number] + back
        group = np.moveaxis(images[chosen == number], 0, 2)  # warp takes them as channels
        result = transform.warp(group.reshape(height, width, -1), centred)
        warped[chosen == number] = np.moveaxis(result.reshape(group.shape), 2, 0)
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
    drawn = ink * np.clip(unit(images) + 0.5 - distance, 0, 1)
    return np.minimum(images + drawn[..., None], 1).astype(np.float32)


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
        images: float32 in [0, 1], shape (N, height, width, channels).
        name: a key of CORRUPTIONS.
        seed: of the random numbers.
    """
    return CORRUPTIONS[name](images, np.random.default_rng([seed, *name.encode()]))
