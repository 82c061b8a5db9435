"""Each corruption against what can be known of it by hand or from scipy."""

import numpy as np
import pytest
from scipy import ndimage, stats
from skimage import feature, transform
from sklearn.datasets import load_digits

from stages.report import corruptions
from stages.report.corruptions import CORRUPTIONS

WITHOUT_CHANCE = ["defocus_blur", "scale", "brightness", "stripe", "canny_edges"]
WITHOUT_CHANCE += ["pixelate", "jpeg"]
EVERY = pytest.mark.parametrize("name", CORRUPTIONS)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Sixty digits of 24×24 pixels in a frame of 2, which nobody may write to."""
    digits = load_digits().images[:60].repeat(3, axis=1).repeat(3, axis=2).astype(np.float32) / 16
    digits = np.pad(digits, ((0, 0), (2, 2), (2, 2)))
    digits.setflags(write=False)
    return digits


def corrupt(images: np.ndarray, name: str, seed: int) -> np.ndarray:
    """Of grey images, shape (N, height, width)."""
    return corruptions.corrupt(images[..., None], name, seed)[..., 0]


def plain(value: float, count: int = 200) -> np.ndarray:
    return np.full((count, 28, 28), value, np.float32)


def point(row: int, column: int, count: int = 200) -> np.ndarray:
    """Images of one pixel of ink."""
    images = plain(0, count)
    images[:, row, column] = 1
    return images


@EVERY
def test_shape_type_and_range_stay_and_every_digit_changes(name: str, images: np.ndarray):
    before = images.copy()
    result = corrupt(images, name, 0)
    assert (result.shape, result.dtype) == (images.shape, np.float32)
    assert 0 <= result.min() < result.max() <= 1
    assert (np.abs(result - images).max(axis=(1, 2)) > 0.1).all()
    np.testing.assert_array_equal(images, before)


@EVERY
def test_seed_and_image_and_nothing_else_decide(name: str, images: np.ndarray):
    cut = images[:, 2:-2, 3:]  # with ink at the border, and of another size
    first, same, other = (corrupt(cut, name, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, same)
    assert np.array_equal(first, other) == (name in WITHOUT_CHANCE)
    assert first.shape == cut.shape == (60, 24, 25)
    np.testing.assert_array_equal(first[:7], corrupt(cut[:7], name, 1))


@EVERY
def test_channels_move_alike_and_grey_in_colour_stays_grey(name: str, images: np.ndarray):
    """Three equal channels: what chance does to each of them apart is shot noise only."""
    found = corruptions.corrupt(images[..., None].repeat(3, axis=3), name, 0)
    assert found.shape == (*images.shape, 3)
    if name != "shot_noise":
        levels = 0.05 if name == "jpeg" else 1e-6  # the file stores brightness and two colours
        np.testing.assert_allclose(found, found[..., :1].repeat(3, axis=3), atol=levels)
    if name not in ("shot_noise", "jpeg"):
        np.testing.assert_allclose(found[..., 0], corrupt(images, name, 0), atol=1e-6)


@pytest.mark.parametrize(
    "name", sorted(CORRUPTIONS.keys() - {"shot_noise", "impulse_noise", "jpeg"})
)
def test_colours_stay_apart(name: str):
    """A red square on black has no green in it but that of what is laid over the image."""
    images = np.zeros((20, 28, 28, 3), np.float32)
    images[:, 8:20, 8:20, 0] = 1
    found = corruptions.corrupt(images, name, 0)
    if name == "canny_edges":  # of brightness: grey
        assert found.any(axis=(1, 2, 3)).all()
        return
    laid_over = corrupt(np.zeros((20, 28, 28), np.float32), name, 0)
    np.testing.assert_allclose(found[..., 1], laid_over, atol=1e-6)
    assert (found[..., 0].sum(axis=(1, 2)) > laid_over.sum(axis=(1, 2)) - 40).all()


@pytest.mark.parametrize(
    "name", ["defocus_blur", "motion_blur", "glass_blur", "translate", "elastic"]
)
def test_lengths_are_in_proportion_to_the_image(name: str):
    """Of a disk three times as large, the corrupted one is, too: as far spread, about."""
    spread = []
    for zoom in (1, 3):
        side = 28 * zoom
        rows, columns = np.indices((side, side)) - (side - 1) / 2
        disk = (rows**2 + columns**2 <= (5 * zoom) ** 2).astype(np.float32)
        found = corrupt(disk[None].repeat(60, axis=0), name, 0).astype(float)
        middle = found.sum(axis=(1, 2))
        away = np.array([(found * at).sum(axis=(1, 2)) / middle for at in (rows, columns)])
        size = (found * (rows**2 + columns**2)).sum(axis=(1, 2)) / middle
        spread.append([np.abs(away).mean() / zoom, size.mean() / zoom**2, middle.mean() / zoom**2])
    np.testing.assert_allclose(spread[0], spread[1], rtol=0.25, atol=0.12)


@EVERY
def test_images_of_any_size_are_corrupted(name: str):
    for shape in ((3, 16, 40, 1), (3, 128, 96, 3)):
        rows = np.linspace(0, 1, shape[1], dtype=np.float32)
        images = np.broadcast_to(rows[:, None, None], shape)
        found = corruptions.corrupt(images, name, 0)
        assert (found.shape, found.dtype) == (shape, np.float32)
        assert 0 <= found.min() <= found.max() <= 1


def test_each_corruption_has_random_numbers_of_its_own():
    drawn = [corrupt(plain(0), name, 0) for name in ("dotted_line", "zigzag")]
    assert abs(np.corrcoef([lines[:, :, 2].argmax(axis=1) for lines in drawn])[0, 1]) < 0.3


def test_shot_noise_counts_photons():
    result = 3 * corrupt(plain(0.5), "shot_noise", 0)
    values = np.rint(result).astype(int)
    np.testing.assert_allclose(result, values, atol=1e-6)
    counts = stats.poisson(0.5 * 3).pmf(range(3))
    expected = [*counts, 1 - counts.sum()]  # 3 and more are white
    np.testing.assert_allclose(np.bincount(values.ravel()) / values.size, expected, atol=0.005)
    assert not corrupt(plain(0), "shot_noise", 0).any()


def test_impulse_noise_changes_its_share_of_pixels_to_black_and_white():
    values, counts = np.unique(corrupt(plain(0.25), "impulse_noise", 0), return_counts=True)
    assert list(values) == [0, 0.25, 1]
    np.testing.assert_allclose(counts / counts.sum(), [0.085, 0.83, 0.085], atol=0.005)


def test_glass_blur_scatters_ink_nearby_and_loses_none():
    images = plain(0, 2000)
    images[:, [0, 27, 14, 10], [5, 20, 0, 27]] = 1  # at each border, none opposite
    result = corrupt(images, "glass_blur", 0)
    assert result[:, 14, 1].std() > 0.03
    once = ndimage.gaussian_filter(images[0], 0.7)  # then, on average, the mean of all neighbours
    expected = ndimage.gaussian_filter(ndimage.uniform_filter(once, 3, mode="nearest"), 0.7)
    np.testing.assert_allclose(result.mean(axis=0), expected, atol=0.015)


def test_defocus_blur_turns_a_point_into_a_disk():
    rows, columns = np.indices((28, 28)) - 10
    result = corrupt(point(10, 10, count=1), "defocus_blur", 0)[0]
    np.testing.assert_allclose(result, (rows**2 + columns**2 <= 4) / 13, atol=1e-6)


def test_motion_blur_draws_a_fading_trail_to_the_right():
    result = corrupt(point(14, 8), "motion_blur", 0).astype(np.float64)
    np.testing.assert_allclose(result.sum(axis=(1, 2)), 1, atol=1e-5)
    down, right = np.indices((28, 28)) - np.array([14, 8])[:, None, None]
    assert result[:, np.hypot(down, right) > 11.5].max() < 1e-6
    angles = np.degrees(np.arctan2((result * down).sum((1, 2)), (result * right).sum((1, 2))))
    steps = np.rint(angles / 3)
    assert set(steps) == set(range(-15, 16))
    np.testing.assert_allclose(angles, 3 * steps, atol=0.5)
    weights = stats.norm(0, 3).pdf(range(11))
    level = result[steps == 0]
    np.testing.assert_allclose(level[:, 14, 8:19] - weights / weights.sum(), 0, atol=1e-6)


def assert_variants(name: str, image: np.ndarray, expected: list[np.ndarray]) -> None:
    """What becomes of one image in 100 draws: as many different results, each one expected."""
    found = np.unique(corrupt(np.repeat(image[None], 100, axis=0), name, 0), axis=0)
    assert len(found) == len(expected)
    for other in expected:
        assert np.abs(found - other).max(axis=(1, 2)).min() < 1e-5


def test_shear_slants_about_the_centre(images: np.ndarray):
    expected = []
    for slope in (-np.tan(0.4), np.tan(0.4)):
        matrix, offset = [[1, 0], [slope, 1]], [0, -slope * 13.5]  # rows first, output to input
        expected.append(ndimage.affine_transform(images[0], matrix, offset, order=1))
    assert_variants("shear", images[0], expected)


def test_scale_shrinks_about_the_centre(images: np.ndarray):
    offset = 13.5 * (1 - 1 / 0.7)
    expected = ndimage.affine_transform(images[0], [1 / 0.7] * 2, offset, order=1)
    assert_variants("scale", images[0], [expected])


def test_rotate_turns_by_23_degrees_either_way(images: np.ndarray):
    expected = [transform.rotate(images[0].copy(), np.degrees(angle)) for angle in (-0.4, 0.4)]
    assert_variants("rotate", images[0], expected)


def test_translate_moves_a_point_to_four_places():
    expected = [point(row, column, count=1)[0] for row in (9, 15) for column in (17, 23)]
    assert_variants("translate", point(12, 20, count=1)[0], expected)


def test_brightness_adds_up_to_white():
    values = np.array([[[0, 0.25, 0.5, 0.75, 1]]], np.float32)
    assert corrupt(values, "brightness", 0).tolist() == [[[0.5, 0.75, 1, 1, 1]]]


def test_stripe_inverts_both_sides(images: np.ndarray):
    expected = images.copy()
    expected[:, :, np.r_[:7, 21:28]] = 1 - images[:, :, np.r_[:7, 21:28]]
    np.testing.assert_array_equal(corrupt(images, "stripe", 0), expected)


def differences(fields: np.ndarray) -> tuple[float, float]:
    """Mean squared differences of pixels that are 1 and 6 rows apart."""
    return tuple(((fields[:, lag:] - fields[:, :-lag]) ** 2).mean() for lag in (1, 6))


def smoothness(sigma: float) -> float:
    """The ratio of these in noise after a Gaussian filter: its autocorrelation is a Gaussian."""
    return (1 - np.exp(-(6**2) / (4 * sigma**2))) / (1 - np.exp(-1 / (4 * sigma**2)))


@pytest.fixture
def as_of_28_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lengths do not grow with the image: of a large one there is more to measure."""
    monkeypatch.setattr(corruptions, "unit", lambda images: 1.0)


def test_fog_lays_smooth_clouds_over_a_paler_image(images: np.ndarray, as_of_28_pixels):
    clouds = corrupt(np.zeros_like(images), "fog", 0)
    np.testing.assert_allclose(corrupt(images, "fog", 0) - clouds, images / 3, atol=1e-6)
    np.testing.assert_allclose(clouds.min(axis=(1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(clouds.max(axis=(1, 2)), 2 / 3, atol=1e-6)
    assert clouds.std(axis=0).min() > 0.05  # each image has clouds of its own
    near, far = differences(corrupt(np.zeros((6, 280, 280), np.float32), "fog", 0))
    assert far / near == pytest.approx(smoothness(3), rel=0.05)


def test_spatter_covers_a_part_with_dark_grey(images: np.ndarray):
    mud, same = corrupt(plain(0, 60), "spatter", 0), corrupt(images, "spatter", 0) == images
    assert mud.max() == pytest.approx(63 / 255, abs=1e-4)
    assert mud[mud > 0].min() == pytest.approx(0.8 * 63 / 255, abs=1e-4)
    assert (mud > 0).mean() == pytest.approx(0.12, abs=0.02)
    assert same[mud == 0].all()  # the same seed, so the same drops
    assert (corrupt(plain(1, 60), "spatter", 0)[mud > 0] < 0.5).all()


@pytest.mark.parametrize("name", ["dotted_line", "zigzag"])
def test_lines_add_ink_take_none_away_and_have_their_shape(name: str, images: np.ndarray):
    assert (corrupt(images, name, 0) >= images).all()
    lines = corrupt(plain(0, 2000), name, 0)
    lines = lines[~lines[:, [0, -1]].any(axis=(1, 2))]  # nowhere cut off by the border
    assert len(lines) > 500
    dotted = name == "dotted_line"
    columns = [c for c in range(2, 28 if dotted else 26) if not dotted or c % 4 >= 2]
    assert (lines.any(axis=1) == np.isin(range(28), columns)).all()
    weights = lines[:, :, columns]
    thickness = weights.sum(axis=1)
    rows = (np.arange(28)[:, None] * weights).sum(axis=1) / thickness
    if dotted:  # on a straight line
        slopes, heights = np.polyfit(columns, rows.T, 1)[..., None]
        np.testing.assert_allclose(rows, heights + slopes * columns, atol=0.15)
        assert slopes.min() < -0.5 < 0.5 < slopes.max()
    else:  # rises by up to 5 pixels; 4 pixels high after that, the same again a period later
        slopes = (rows[:, 8:] - rows[:, :-8]).mean(axis=1, keepdims=True) / 8
        np.testing.assert_allclose(rows[:, 8:] - rows[:, :-8] - 8 * slopes, 0, atol=0.2)
        np.testing.assert_allclose(np.ptp(rows - slopes * columns, axis=1), 4, atol=0.6)
        assert [slopes.min(), slopes.max()] == pytest.approx([-5 / 27, 5 / 27], abs=0.002)
    steepness = slopes if dotted else 1
    np.testing.assert_allclose(thickness / np.hypot(1, steepness), 2, atol=0.15)  # pixels


def test_lines_start_and_end_anywhere_between_top_and_bottom(as_of_28_pixels):
    """In three rows a line of 2 pixels with soft edges leaves so much ink on average."""
    dotted = corrupt(plain(0, 2000)[:, :3, :4], "dotted_line", 0)[:, :, -1]
    np.testing.assert_allclose(dotted.mean(axis=0), [1 / 2, 7 / 8, 1 / 2], atol=0.03)
    zigzag = corrupt(plain(0, 2000)[:, :3], "zigzag", 0)[:, :, 2]  # 1.4 times as high
    np.testing.assert_allclose(zigzag.mean(axis=0), [0.705, 0.97, 0.705], atol=0.03)


def test_canny_edges_are_those_of_each_image_alone(images: np.ndarray):
    wide = np.pad(images, ((0, 0), (8, 8), (0, 0)))  # scikit-image blurs otherwise at a border
    expected = [feature.canny(image) for image in wide]
    np.testing.assert_array_equal(corrupt(wide, "canny_edges", 0), expected)


def test_elastic_moves_ink_smoothly_and_by_few_pixels(as_of_28_pixels):
    ramp = np.linspace(0.1, 0.9, 280, dtype=np.float32)
    for images in (ramp[:, None], ramp[None]):  # moves up and down, left and right
        images = np.broadcast_to(images, (10, 280, 280))
        moved = (corrupt(images, "elastic", 0) - images)[:, 8:-8, 8:-8] * 279 / 0.8  # pixels
        # Uniform noise has variance 1/3, a Gaussian filter divides it by 4 pi sigma squared.
        assert moved.std() == pytest.approx(30 * np.sqrt(1 / 3 / (4 * np.pi * 4**2)), rel=0.015)
        near, far = differences(moved)
        assert far / near == pytest.approx(smoothness(4), rel=0.05)


def test_pixelate_keeps_the_mean_of_squares(images: np.ndarray):
    shown = corrupt(images, "pixelate", 0)
    means = ndimage.uniform_filter(images, (0, 2, 2), origin=(0, -1, -1))[:, ::2, ::2]
    for row in (0, 1):
        for column in (0, 1):
            np.testing.assert_allclose(shown[:, row::2, column::2], means, atol=1e-6)


def test_jpeg_is_close_to_the_image_and_constant_where_that_is(images: np.ndarray):
    difference = np.abs(corrupt(images, "jpeg", 0) - images)
    assert 0.01 < difference.mean() < 0.1
    for grey, steps in ((0.4, -2), (1, 10)):  # quality 8 keeps a mean in steps of 100 / 8 from 128
        np.testing.assert_allclose(corrupt(plain(grey, 3), "jpeg", 0), (128 + 12.5 * steps) / 255)


def test_patch_is_a_square_of_36_pixels_anywhere():
    changed = corrupt(plain(0.5), "patch", 0) != 0.5
    assert (changed.sum(axis=(1, 2)) == 36).all()
    assert (changed.any(axis=1).sum(axis=1) == 6).all()
    assert changed.any(axis=(0, 1)).all()
    assert changed.any(axis=(0, 2)).all()
