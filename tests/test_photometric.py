"""Photometric changes of training images, each against what can be known of it independently."""

import numpy as np
import pytest
from scipy import ndimage

from stages.base.settings import Photometric
from stages.network import photometric
from stages.network.photometric import FAMILIES
from stages.network.runtime import tf

COUNT = 400  # enough for the largest of so many draws to come near its limit
NAMES = [family.__name__ for family in FAMILIES]
RAMP = np.linspace(0, 1, 28 * 28, dtype=np.float32).reshape(1, 28, 28, 1).repeat(COUNT, axis=0)
SEED = 7


def plain(grey: float, side: int = 28) -> np.ndarray:
    return np.full((COUNT, side, side, 1), grey, np.float32)


def change(name: str, images: np.ndarray, seed: int = SEED) -> np.ndarray:
    """Images changed by one family, without channels."""
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
    assert field.mean() == pytest.approx(0.5, abs=0.04)
    assert np.ptp(field, axis=(1, 2)).max() > 0.9
    down, right = (np.abs(np.diff(field, axis=axis)).mean() for axis in (1, 2))
    assert down == pytest.approx(right, rel=0.05)
    assert 0.005 < down < np.ptp(field, axis=(1, 2)).mean() / 5, "uneven, but smooth"


def straightened(line: np.ndarray) -> np.ndarray:
    """An image of a line in the middle, turned so that the line runs along the second axis."""
    centre, along, across = line.shape[0] // 2, np.arange(-40, 41), np.arange(-15, 15.5, 0.5)
    places = np.argwhere(line > 0)
    side, main = np.linalg.eigh(np.cov(places.T, aweights=line[line > 0]))[1].T[..., None, None]
    return ndimage.map_coordinates(line, centre + main * along + side * across[:, None], order=1)


def test_strokes_are_lines_of_ink_or_of_eraser_straight_or_wavy_whole_or_dashed(monkeypatch):
    monkeypatch.setattr(photometric, "SIDE", 101)  # so that lengths are in pixels
    blank, full = (change("strokes", plain(grey, 101)) for grey in (0, 1))
    ink = blank.any(axis=(1, 2))
    assert ink.mean() == pytest.approx(0.75, abs=0.05)
    np.testing.assert_array_equal(full[ink], 1)
    np.testing.assert_array_equal(blank[~ink], 0)
    lines = np.where(ink[:, None, None], blank, 1 - full)
    middle = ndimage.center_of_mass(lines.mean(axis=0))  # beside the centre on any side
    assert middle == pytest.approx((50, 50), abs=0.8)
    strips = np.stack([straightened(line) for line in lines])
    thickness = strips.sum(axis=1) / 2  # pixels, at each place along the line
    crest = strips.max(axis=1)
    on = crest > crest.max(axis=1, keepdims=True) / 2
    whole = (thickness > 0.5).mean(axis=1) > 0.9
    assert whole.mean() == pytest.approx(0.5, abs=0.1)
    assert abs(np.corrcoef(whole, ink)[0, 1]) < 0.2
    assert on[~whole, 40].mean() == pytest.approx(on[~whole].mean(), abs=0.15)
    assert on[~whole].mean() == pytest.approx(0.5 + np.arcsin(0.2) / np.pi, abs=0.03)
    dashes = (on[~whole, 1:] & ~on[~whole, :-1]).sum(axis=1)
    assert [dashes.min(), dashes.max()] == pytest.approx([80 / 8, 80 / 3], abs=1)
    rows = np.einsum("nac,a->nc", strips, np.arange(-15, 15.5, 0.5))[whole] / 2 / thickness[whole]
    offset = rows.mean(axis=1)
    waves = rows - offset[:, None]
    height = np.ptp(waves, axis=1) / 2
    straight, wavy = height < 0.2, height > 0.5
    assert 0.3 < straight.mean() < 0.45
    assert height.max() == pytest.approx(3.5, abs=0.1)
    assert [offset.min(), offset.max()] == pytest.approx([-8, 8], abs=0.5)
    strength = np.abs(np.fft.rfft(waves[wavy] * np.hanning(81), 4096, axis=1))
    lengths = 4096 / strength.argmax(axis=1)
    assert [lengths.min(), lengths.max()] == pytest.approx([5, 20], abs=0.5)
    assert np.median(lengths) == pytest.approx(5 + 15 * 0.5**2, abs=1)
    assert abs(np.corrcoef(lengths, height[wavy])[0, 1]) < 0.25
    middle = waves[wavy][:, 40] / height[wavy]  # at every phase
    assert middle.std() == pytest.approx(np.sqrt(0.5), abs=0.1)
    means = thickness[whole].mean(axis=1)
    assert [means[straight].min(), means[straight].max()] == pytest.approx([1, 3], abs=0.15)
    assert 1 < means[wavy].min() < 3.5 < means[wavy].max()  # measured aslant


def test_blur_spreads_a_point_to_an_ellipse_in_any_direction():
    point = plain(0)
    point[:, 10, 17] = 1
    spots = change("blur", point)
    np.testing.assert_allclose(spots.sum(axis=(1, 2)), 1, atol=1e-5)
    offsets = np.indices((28, 28)).reshape(2, -1) - [[10], [17]]
    weights = spots.reshape(COUNT, -1)
    np.testing.assert_allclose(weights @ offsets.T, 0, atol=1e-4)
    covariance = np.einsum("nk,ik,jk->nij", weights, offsets, offsets)
    deviations = np.sqrt(np.linalg.eigvalsh(covariance))
    assert deviations[:, 1].max() == pytest.approx(3.4, abs=0.2)  # 3.5, cut off after 6 pixels
    assert deviations.min() < 0.45
    assert 0.4 < (covariance[:, 0, 1] > 0).mean() < 0.6
    assert (deviations[:, 1] > 2 * deviations[:, 0]).mean() > 0.2


def test_polarity_inverts_beyond_a_line_or_beside_a_band(monkeypatch):
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
    monkeypatch.setattr(photometric, "SIDE", 61)  # so that lengths are in pixels
    wide = change("polarity", plain(0, 61))
    other = wide != wide[:, 30:31, 30:31]  # than the pixel in the centre
    far = np.where(other, np.hypot(*np.ogrid[-30:31, -30:31]), np.inf).min(axis=(1, 2))
    assert far.min() <= 1
    assert 15.5 < far[far < np.inf].max() < 16.7, "the line, pixels from the centre"
    assert (wide.mean(axis=(1, 2)) == 1).mean() == pytest.approx(0.25, abs=0.08)


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


@pytest.mark.parametrize(
    ("size", "shares"),
    [(256, [1 / 6] * 6), (128, [0.2] * 5 + [0.0]), (3, [0.5, 0.5] + [0.0] * 4), (2, [1 / 6] * 6)],
)
def test_shares_that_fill_a_batch_leave_it_as_large_as_it_was(size, shares):
    limits = settings(**dict(zip(NAMES, shares, strict=True)))
    images, pair = tf.constant(RAMP[:size]), tf.constant([SEED, 3], tf.int64)
    found = photometric.random_photometric(images, limits, pair, tf.constant(0.0))
    assert found.shape == images.shape


@pytest.mark.parametrize("name", NAMES)
def test_colour_and_size_are_free_and_lengths_grow_with_the_image(name: str):
    grey = change(name, RAMP[:100])
    large = RAMP[:100].repeat(2, axis=1).repeat(2, axis=2).repeat(3, axis=3)
    function = getattr(photometric, name)
    found = function(tf.constant(large), tf.constant([SEED, 3], tf.int64)).numpy()
    assert found.shape == large.shape
    if name not in ("noise", "outline", "illumination"):
        halved = found[:, ::2, ::2, 0]
        assert np.abs(halved - grey).mean() < 0.12, "the same change, at twice the size"


def test_nothing_is_changed_when_all_is_off_and_too_much_is_refused():
    np.testing.assert_array_equal(apply(settings()), RAMP)
    with pytest.raises(ValueError, match=r"at most 1, found 1\.2"):
        settings(noise=0.6, blur=0.6)
