"""Test material that shows no digit: letters, scribbles and the like, and photographs."""

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw
from scipy import ndimage
from skimage import data
from sklearn.datasets import load_sample_image

from benchmarks.drawn.glyphs import fitted, printed


def non_digits(images: np.ndarray, rng: Generator, count: int) -> dict[str, list[np.ndarray]]:
    """By kind, `count` pieces of ink that are no digits, float32 in [0, 1]; some look like one.

    Args:
        images: of digits, float32 in [0, 1], shape (N, 28, 28), from which some are made.
    """
    one, other = images[rng.integers(len(images), size=(2, count))]
    letters = "ABCDEFGHJKLMNPQRTUVWXYabdefhkmnprtwy"  # without O, I, S, Z, l, o, g, q and the like
    chosen = [letters[each] for each in rng.integers(len(letters), size=count)]
    shift = rng.integers(8, 14, count)
    grains = ndimage.gaussian_filter(rng.standard_normal((count, 60, 60)), (0, 6, 6))
    return {
        "letters": [printed(each, 60, rng) for each in chosen],
        "turned": [np.rot90(image) for image in one],
        "joined": [
            np.maximum(np.pad(a, ((0, 0), (0, by))), np.pad(b, ((0, 0), (by, 0))))
            for a, b, by in zip(one, other, shift, strict=True)
        ],
        "overlaid": list(np.maximum(one, other)),
        "cut": [image[:14] if rng.random() < 0.5 else image[14:] for image in one],
        "scribbles": [scribble(rng) for _ in range(count)],
        "blobs": [(grain > grain.std()).astype(np.float32) for grain in grains],
    }


def scribble(rng: Generator) -> np.ndarray:
    """A smooth random line."""
    points = ndimage.gaussian_filter1d(rng.uniform(0, 500, (12, 2)), 0.5, axis=0)
    image = Image.new("L", (500, 500))
    curve = [tuple(point) for point in ndimage.zoom(points, (10, 1), order=3)]
    ImageDraw.Draw(image).line(curve, 255, int(rng.integers(10, 50)), "curve")
    return fitted(image, 60)


def photographs(rng: Generator, cuts: int) -> dict[str, list[np.ndarray]]:
    """By kind, photographs without a digit in them, grey, shape (height, width).

    Those that scikit-image and scikit-learn carry and that what finds digits has not learned from
    (apps/classify/scenes.py), each whole and in `cuts` parts of it, larger or smaller, some upside
    down or as a negative; and small faces.
    """
    names = ("brick", "camera", "cat", "coins", "grass", "moon", "rocket")
    found = []
    for whole in [*(getattr(data, name)() for name in names), load_sample_image("flower.jpg")]:
        grey = Image.fromarray(whole).convert("L")
        found.append(np.asarray(grey))
        for number in range(cuts):
            size = rng.uniform(0.35, 0.9) * np.array(grey.size)
            corner = rng.uniform(0, grey.size - size)
            part = grey.crop([*corner.astype(int), *(corner + size).astype(int)])
            shape = (size * rng.uniform(0.7, 2)).astype(int)
            part = np.asarray(part.resize(tuple(shape), Image.Resampling.BICUBIC))
            part = part[::-1, ::-1] if number % 2 else part
            found.append(255 - part if number % 4 == 3 else part)
    return {"photographs": found, "faces": list(data.lfw_subset()[:100])}
