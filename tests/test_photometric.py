"""Photometric changes of training images, each against what can be known of it independently."""

import numpy as np
import pytest
from scipy import ndimage

from stages.network import photometric
from stages.network.photometric import FAMILIES
from stages.network.runtime import tf
from stages.network.settings import Photometric

COUNT = 400  # enough for the largest of so many draws to come near its limit
NAMES = [family.__name__ for family in FAMILIES]
RAMP = np.linspace(0, 1, 28 * 28, dtype=np.float32).reshape(1, 28, 28, 1).repeat(COUNT, axis=0)
SEED = 7


def plain(grey: float) -> np.ndarray:
    return np.full((COUNT, 28, 28, 1), grey, np.float32)


def change(name: str, images: np.ndarray, seed: int = SEED) -> np.ndarray:
    """Images changed by one family, shape (COUNT, 28, 28)."""
    function = getattr(photometric, name)
    return function(tf.constant(images), tf.constant([seed, 3], tf.int64)).numpy()[..., 0]


def settings(**values: float) -> Photometric:
    return Photometric(**dict.fromkeys(NAMES, 0.0) | {"full_until": 0.5, "at_end": 0.2} | values)


def apply(limits: Photometric, progress: float = 0.0, seed: int = SEED) -> np.ndarray:
    pair, part = tf.constant([seed, 3], tf.int64), tf.constant(progress, tf.float32)
    return photometric.random_photometric(tf.constant(RAMP), limits, pair, part).numpy()


@pytest.mark.parametrize("name", NAMES)
def test_range_and_type_stay_and_the_seed_decides(name: str):
    first, same, other = (change(name, RAMP, seed) for seed in (1, 1, 2))
    assert (first.shape, first.dtype) == ((COUNT, 28, 28), np.float32)
    assert first.min() >= 0
    assert first.max() <= 1 + 1e-6
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_illumination_hides_up_to_three_quarters_of_the_contrast_by_a_smooth_field():
    blank, full = change("illumination", plain(0)), change("illumination", plain(1))
    contrast = full - blank
    assert np.ptp(contrast, axis=(1, 2)).max() < 1e-5, "the same at all pixels of an image"
    hidden = 1 - contrast[:, 0, 0]
    assert hidden.min() < 0.02
    assert 0.73 < hidden.max() <= 0.75
    field = blank / hidden[:, None, None]
    assert field.min() >= 0
    assert field.max() <= 1 + 1e-5
    assert np.percentile(field.mean(axis=(1, 2)), [5, 95]) == pytest.approx([0.1, 0.9], abs=0.1)
    steps = np.abs(np.diff(field, axis=1)).mean()
    assert 0.005 < steps < np.ptp(field, axis=(1, 2)).mean() / 5, "uneven, but smooth"


def test_strokes_are_lines_of_ink_or_of_eraser():
    blank, full = change("strokes", plain(0)), change("strokes", plain(1))
    ink = blank.max(axis=(1, 2)) > 0
    np.testing.assert_array_equal(full[ink], 1)
    assert 0.65 < ink.mean() < 0.85  # a stroke may also miss the image
    lines = np.where(ink[:, None, None], blank, 1 - full)
    area = lines.sum(axis=(1, 2))
    lines = lines[area > 15]
    straight, whole = [], []
    for line in lines:
        places, weights = np.argwhere(line > 0), line[line > 0]
        spread = np.linalg.eigvalsh(np.cov(places.T, aweights=weights))
        straight.append(spread[0] < 1)  # a line of 3 pixels with soft edges has less
        whole.append(ndimage.label(line > 0, np.ones((3, 3)))[1] == 1)
    assert 0.25 < np.mean(straight) < 0.75
    area = lines[np.array(straight)].sum(axis=(1, 2))
    assert 2.2 * 28 < area.max() < 3.5 * 40, "up to 3 pixels wide, as long as the diagonal"
    assert 0.3 < np.mean(whole) < 0.8


def test_blur_spreads_a_point_to_an_ellipse_in_any_direction():
    point = plain(0)
    point[:, 14, 14] = 1
    spots = change("blur", point)
    np.testing.assert_allclose(spots.sum(axis=(1, 2)), 1, atol=1e-5)
    offsets = np.indices((28, 28)).reshape(2, -1) - 14
    weights = spots.reshape(COUNT, -1)
    np.testing.assert_allclose(weights @ offsets.T, 0, atol=1e-4)
    covariance = np.einsum("nk,ik,jk->nij", weights, offsets, offsets)
    deviations = np.sqrt(np.linalg.eigvalsh(covariance))
    assert deviations[:, 1].max() == pytest.approx(3.4, abs=0.2)  # 3.5, cut off after 6 pixels
    assert deviations.min() < 0.45
    assert 0.4 < (covariance[:, 0, 1] > 0).mean() < 0.6
    assert (deviations[:, 1] > 2 * deviations[:, 0]).mean() > 0.2


def test_polarity_inverts_beyond_a_line_or_beside_a_band():
    changed, inverted = change("polarity", RAMP), change("polarity", plain(0))
    np.testing.assert_array_equal(changed, np.where(inverted == 1, 1 - RAMP[..., 0], RAMP[..., 0]))
    assert set(np.unique(inverted)) == {0, 1}
    crossings = np.maximum(
        np.abs(np.diff(inverted, axis=1)).sum(axis=1).max(axis=1),
        np.abs(np.diff(inverted, axis=2)).sum(axis=2).max(axis=1),
    )
    assert crossings.max() == 2, "a row or column meets a band's sides at most twice"
    assert 0.1 < (crossings == 2).mean() < 0.4
    assert (crossings == 1).mean() > 0.2
    share = inverted.mean(axis=(1, 2))
    assert (share == 0).any()
    assert (share == 1).any()


def test_noise_is_grain_and_black_and_white_pixels():
    grey = change("noise", plain(0.5))
    black, white = (grey == 0).mean(axis=(1, 2)), (grey == 1).mean(axis=(1, 2))
    assert black.mean() == pytest.approx(1 / 16, abs=0.01)
    assert white.mean() == pytest.approx(1 / 16, abs=0.01)
    assert 0.2 < (black + white).max() < 0.3
    grain = np.where((grey == 0) | (grey == 1), 0.5, grey) - 0.5
    sizes = np.abs(grain).max(axis=(1, 2))
    assert sizes.min() < 0.02
    assert 0.48 < sizes.max() <= 0.5
    assert abs(grain.mean()) < 0.003


def test_outline_is_the_edge_inside_or_outside():
    images = np.random.default_rng(0).random((COUNT, 28, 28, 1), np.float32)
    size = (1, 3, 3, 1)
    outside = ndimage.grey_dilation(images, size, mode="nearest") - images
    inside = images - ndimage.grey_erosion(images, size, mode="nearest")
    changed = change("outline", images)
    is_outside = (changed == outside[..., 0]).all(axis=(1, 2))
    np.testing.assert_array_equal(changed[~is_outside], inside[~is_outside][..., 0])
    assert is_outside.mean() == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize(("progress", "expected"), [(0, 1), (0.5, 1), (0.75, 0.6), (0.999999, 0.2)])
def test_shares_are_full_and_then_fall_linearly(progress: float, expected: float):
    level = photometric.level(tf.constant(progress, tf.float32), settings())
    assert float(level) == pytest.approx(expected, abs=1e-5)


def test_each_family_changes_its_share_of_the_batch_and_no_other_image():
    shares = {name: 0.05 * (number + 1) for number, name in enumerate(NAMES[:4])}
    changed = (apply(settings(**shares)) != RAMP).any(axis=(1, 2, 3))
    total = round(0.5 * COUNT)
    assert changed[:total].mean() > 0.95  # half a line, or an inversion, may miss an image
    assert not changed[total:].any()
    start = round(0.05 * COUNT)
    alone = apply(settings(strokes=0.1))
    np.testing.assert_array_equal(
        apply(settings(**shares))[start : 3 * start], alone[: 2 * start]
    )  # turning one family off leaves the others as they are


def test_nothing_is_changed_when_all_is_off_and_too_much_is_refused():
    np.testing.assert_array_equal(apply(settings()), RAMP)
    with pytest.raises(ValueError, match=r"at most 1, found 1\.2"):
        settings(noise=0.6, blur=0.6)
