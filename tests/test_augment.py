"""The random affine transformation, measured by where it moves three blobs: that gives each image's
matrix, and from it its turn, shift, zoom and shear. Nothing here looks at the random numbers.
"""

import numpy as np
import pytest

from stages.base.settings import Augment
from stages.network.augment import random_affine
from stages.network.runtime import keras, tf

COUNT, HEIGHT, WIDTH = 1000, 68, 60  # the largest of so many draws come near their limits
OFF = {"rotation": 0.0, "shift": 0.0, "zoom": 0.0, "shear": 0.0, "flip": False}
ALL = {"rotation": 40.0, "shift": 4.0, "zoom": 0.4, "shear": 0.5}
BLOBS = np.array([[5, 1], [-3, 5], [-2, -6]])  # x and y of their centres
Y, X = np.mgrid[:HEIGHT, :WIDTH] - np.array([(HEIGHT - 1) / 2, (WIDTH - 1) / 2])[:, None, None]


def transform(
    image: np.ndarray, seed: tuple[int, int] = (0, 0), count: int = COUNT, **limits: float
) -> np.ndarray:
    """What becomes of `count` copies of an image."""
    images = np.repeat(image[np.newaxis].astype(np.float32), count, axis=0)
    settings = Augment(**(OFF | limits))
    return random_affine(tf.constant(images), settings, tf.constant(seed, tf.int64)).numpy()


def blobs(width: float, height: float, x: float = 0, y: float = 0) -> np.ndarray:
    """A Gaussian about (x, y) from the image's centre, of these standard deviations."""
    return np.exp(-((((X - x) / width) ** 2 + ((Y - y) / height) ** 2) / 2))[..., np.newaxis]


def test_all_limits_zero_leave_the_images_as_they_are():
    image = np.random.default_rng(0).random((28, 28, 1), np.float32)
    np.testing.assert_array_equal(transform(image, count=5), np.stack([image] * 5))


def test_turn_shift_zoom_and_shear_fill_their_limits_independently_of_each_other():
    image = np.concatenate([blobs(1.5, 1.5, x, y) for x, y in BLOBS], axis=-1)  # a channel each
    weights = transform(image, **ALL)
    weights /= weights.sum(axis=(1, 2), keepdims=True)
    x, y = (np.einsum("nyxc,yx->nc", weights, places) for places in (X, Y))
    # Rows of the matrix from an output's (x, y, 1) to an input's (x, y).
    moved = np.stack([x, y, np.ones_like(x)], axis=2)
    rows = np.linalg.solve(moved, np.broadcast_to(BLOBS, (COUNT, 3, 2))).transpose(1, 2, 0)
    (xx, yx), (xy, yy), shift = rows
    turn = np.arctan2(yx, xx)
    cos, sin = np.cos(turn), np.sin(turn)
    # Turned back, what is left is shear · zoom: [[zoom_x, shear · zoom_y], [0, zoom_y]].
    zoom_x, zoom_y = cos * xx + sin * yx, cos * yy - sin * xy
    shear = (cos * xy + sin * yy) / zoom_y
    found = np.stack([np.degrees(turn), *shift, zoom_x - 1, zoom_y - 1, shear])
    limits = np.array([40, 4, 4, 0.4, 0.4, 0.5])
    extremes = [found.max(axis=1) / limits, -found.min(axis=1) / limits]
    assert 0.992 < np.min(extremes) <= np.max(extremes) < 1.02
    np.testing.assert_allclose(np.corrcoef(found), np.eye(6), atol=0.15)
    assert np.abs(found.mean(axis=1) / limits).max() < 0.1
    np.testing.assert_allclose(found.std(axis=1) / limits, 1 / np.sqrt(3), rtol=0.1)  # uniform


def test_a_flip_mirrors_half_of_the_images():
    image = np.arange(HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH, 1)
    found = transform(image, flip=True)
    mirrored = (np.abs(found - image[:, ::-1]) < 0.1).all(axis=(1, 2, 3))
    assert 0.4 < mirrored.mean() < 0.6
    np.testing.assert_allclose(found[~mirrored], image[None].repeat((~mirrored).sum(), 0), atol=0.1)


def test_interpolation_is_linear_between_pixels():
    flat = transform(X[..., np.newaxis] / WIDTH, count=20, **ALL)[:, 22:-22, 22:-22]
    for axis in (1, 2):  # a plane stays one
        np.testing.assert_allclose(np.diff(flat, 2, axis), 0, atol=1e-5)


@pytest.mark.parametrize("limits", [{key: value} for key, value in ALL.items()] + [ALL])
def test_seed_and_nothing_else_decides_and_each_image_has_a_transformation_of_its_own(limits):
    image = blobs(5, 2)
    keras.utils.set_random_seed(1)
    first = transform(image, (3, 4), 50, **limits)
    assert len(np.unique(first.reshape(50, -1), axis=0)) == 50
    keras.utils.set_random_seed(2)
    np.testing.assert_array_equal(transform(image, (3, 4), 50, **limits), first)
    for other in ((3, 5), (4, 4), (4, 3)):
        assert not np.array_equal(transform(image, other, 50, **limits), first)


def test_zeros_come_in_from_outside():
    shifted = transform(np.ones((28, 28, 1)), shift=5)
    assert (shifted[:, 6:-6, 6:-6] == 1).all()
    for edge in (shifted[:, 0], shifted[:, -1], shifted[:, :, 0], shifted[:, :, -1]):
        emptied = (edge == 0).all(axis=(1, 2))
        assert 0.2 < emptied.mean() < 0.6  # a shift towards the edge fills it: about half do
