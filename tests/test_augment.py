"""The random affine transformation, judged by what it does to images: where a blob's centre of mass
goes, how a bar turns and slants, how far things grow. Nothing here looks at the random numbers.
"""

import numpy as np
import pytest

from stages.network.augment import random_affine
from stages.network.runtime import keras, tf
from stages.network.settings import Augment

SIDE = 28
COUNT = 300  # enough for the largest of so many draws to come near its limit
OFF = {"rotation": 0.0, "shift": 0.0, "zoom": 0.0, "shear": 0.0}
ALL = {"rotation": 40.0, "shift": 5.0, "zoom": 0.5, "shear": 0.5}


def transform(images: np.ndarray, seed: tuple[int, int] = (0, 0), **limits: float) -> np.ndarray:
    settings = Augment(**(OFF | limits))
    return random_affine(tf.constant(images), settings, tf.constant(seed, tf.int64)).numpy()


def blobs(width: float, height: float) -> np.ndarray:
    """COUNT equal images of a Gaussian about the centre, of these standard deviations."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    blob = np.exp(-((x / width) ** 2 + (y / height) ** 2) / 2)
    return np.repeat(blob[np.newaxis, ..., np.newaxis].astype(np.float32), COUNT, axis=0)


def weigh(images: np.ndarray) -> np.ndarray:
    """Each image's share of its mass per pixel, shape (N, height, width)."""
    return images[..., 0] / images[..., 0].sum(axis=(1, 2), keepdims=True)


def centre(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre of mass (x, y) of each image, in pixels right of and below the image's centre."""
    weights = weigh(images)
    offset = np.arange(SIDE) - (SIDE - 1) / 2
    return (weights.sum(axis=1) * offset).sum(axis=1), (weights.sum(axis=2) * offset).sum(axis=1)


def moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Variances xx and yy and covariance xy of each image's mass about its centre."""
    weights = weigh(images)
    centre_x, centre_y = centre(images)
    offset = np.arange(SIDE) - (SIDE - 1) / 2
    x, y = offset - centre_x[:, np.newaxis], offset - centre_y[:, np.newaxis]
    return (
        np.einsum("nyx,nx,nx->n", weights, x, x),
        np.einsum("nyx,ny,ny->n", weights, y, y),
        np.einsum("nyx,ny,nx->n", weights, y, x),
    )


def angle(images: np.ndarray) -> np.ndarray:
    """Degrees by which the long axis of each image's mass is turned away from the horizontal."""
    xx, yy, xy = moments(images)
    return np.degrees(np.arctan2(2 * xy, xx - yy) / 2)


def assert_fills(values: np.ndarray, low: float, high: float, slack: float) -> None:
    """All values lie from low to high, and some in the outer tenth at either end."""
    tenth = (high - low) / 10
    assert low - slack <= values.min() <= low + tenth
    assert high - tenth <= values.max() <= high + slack


def test_all_limits_zero_leave_the_images_as_they_are():
    images = np.random.default_rng(0).random((5, SIDE, SIDE, 1), np.float32)
    np.testing.assert_array_equal(transform(images), images)


@pytest.mark.parametrize("limit", [0.5, 2.0, 4.0])
def test_shift_moves_both_ways_along_both_axes_within_its_limit(limit: float):
    moved_x, moved_y = centre(transform(blobs(2, 2), shift=limit))
    assert_fills(moved_x, -limit, limit, slack=0.02)
    assert_fills(moved_y, -limit, limit, slack=0.02)
    assert abs(np.corrcoef(moved_x, moved_y)[0, 1]) < 0.3  # each axis has a draw of its own


def test_shift_only_moves():
    xx, yy, xy = moments(transform(blobs(3, 2), shift=2.5))
    # Interpolation between two pixels adds at most a quarter of a pixel squared.
    assert 9 - 0.1 <= xx.min() <= xx.max() <= 9 + 0.3
    assert 4 - 0.1 <= yy.min() <= yy.max() <= 4 + 0.3
    assert np.abs(xy).max() < 0.1


@pytest.mark.parametrize("limit", [10.0, 30.0])
def test_rotation_turns_both_ways_within_its_limit(limit: float):
    assert_fills(angle(transform(blobs(5, 1.2), rotation=limit)), -limit, limit, slack=0.3)


def test_rotation_keeps_place_and_shape():
    images = transform(blobs(4, 1.5), rotation=30)
    np.testing.assert_allclose(centre(images), 0, atol=0.02)
    xx, yy, xy = moments(images)
    long, short = (xx + yy) / 2 + np.array([[1], [-1]]) * np.hypot((xx - yy) / 2, xy)
    np.testing.assert_allclose(np.sqrt(long), 4, rtol=0.03)
    np.testing.assert_allclose(np.sqrt(short), 1.5, rtol=0.08)


@pytest.mark.parametrize("limit", [0.1, 0.4])
def test_zoom_grows_and_shrinks_either_axis_within_its_limit(limit: float):
    images = transform(blobs(3, 3), zoom=limit)
    np.testing.assert_allclose(centre(images), 0, atol=0.02)
    xx, yy, xy = moments(images)
    # The part of the original that spans the image is from 1 - limit to 1 + limit of it.
    shown_x, shown_y = 3 / np.sqrt(xx), 3 / np.sqrt(yy)
    assert_fills(shown_x, 1 - limit, 1 + limit, slack=0.01)
    assert_fills(shown_y, 1 - limit, 1 + limit, slack=0.01)
    assert abs(np.corrcoef(shown_x, shown_y)[0, 1]) < 0.3
    assert np.abs(xy).max() < 0.1


@pytest.mark.parametrize("limit", [0.1, 0.4])
def test_shear_slants_an_upright_bar_both_ways_within_its_limit(limit: float):
    _, yy, xy = moments(transform(blobs(1.2, 4), shear=limit))
    assert_fills(xy / yy, -limit, limit, slack=0.01)


def test_shear_keeps_place_and_heights_and_a_level_bar_level():
    images = transform(blobs(4, 1.2), shear=0.4)
    np.testing.assert_allclose(centre(images), 0, atol=0.02)
    np.testing.assert_allclose(images.sum(axis=(2, 3)), blobs(4, 1.2).sum(axis=(2, 3)), atol=0.01)


@pytest.mark.parametrize("limits", [{key: value} for key, value in ALL.items()] + [ALL])
def test_seed_and_nothing_else_decides_and_each_image_has_a_transformation_of_its_own(limits):
    images = blobs(5, 2)
    keras.utils.set_random_seed(1)
    first = transform(images, seed=(3, 4), **limits)
    assert len(np.unique(first.reshape(COUNT, -1), axis=0)) == COUNT
    keras.utils.set_random_seed(2)
    np.testing.assert_array_equal(transform(images, seed=(3, 4), **limits), first)
    for other in ((3, 5), (4, 4), (4, 3)):
        assert not np.array_equal(transform(images, seed=other, **limits), first)


def test_zeros_come_in_from_outside():
    white = np.ones((COUNT, SIDE, SIDE, 1), np.float32)
    shifted = transform(white, shift=5)
    assert (shifted[:, 6:-6, 6:-6] == 1).all()
    for edge in (shifted[:, 0], shifted[:, -1], shifted[:, :, 0], shifted[:, :, -1]):
        emptied = (edge == 0).all(axis=(1, 2))
        assert 0.2 < emptied.mean() < 0.6  # a shift towards the edge fills it: about half do
