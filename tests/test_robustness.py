"""The stage `robustness`: each corruption against what can be known of it by hand or from
scipy, and the stage by its `main` on `digits`, its numbers against Keras and numpy.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import change_params, evaluated, run_stage
from matplotlib import image as png
from scipy import ndimage, stats
from skimage import feature, transform
from test_pictures import assert_readable, texts_of

from stages.report import corruption_pictures
from stages.dataset import catalogue as datasets
from stages import robustness
from stages.report import scores
from stages.report.corruptions import CORRUPTIONS
from stages.base.stage import UserError
from stages.network.runtime import keras

# In these nothing is left to chance.
SEEDLESS = {"defocus_blur", "scale", "brightness", "stripe", "canny_edges"}
OUTPUTS = ("metrics/robustness.json", "plots/corruptions.png", "plots/robustness.png")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all five stages have run, with two small networks."""
    folder = tmp_path_factory.mktemp("finished")
    evaluated(folder, train__batch_size=64, robustness__images=300)
    (folder / "printed.txt").write_text(run_stage(robustness.main, folder), encoding="utf-8")
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of `finished` to change and run in."""
    return shutil.copytree(finished, tmp_path / "folder")


@pytest.fixture(scope="module")
def images(finished: Path) -> np.ndarray:
    """Sixty digits, which nobody may write to."""
    images = np.load(finished / "data/processed/test_images.npy")[:60, :, :, 0]
    images.setflags(write=False)
    return images


def corrupt(name: str, images: np.ndarray, seed: int = 0) -> np.ndarray:
    return CORRUPTIONS[name](images, np.random.default_rng(seed))


def plain(value: float, count: int = 200) -> np.ndarray:
    return np.full((count, 28, 28), value, np.float32)


def point(row: int, column: int, count: int = 200) -> np.ndarray:
    """Images of one pixel of ink."""
    images = plain(0, count)
    images[:, row, column] = 1
    return images


# --- What holds for every corruption

EVERY = pytest.mark.parametrize("name", CORRUPTIONS)


def test_there_are_sixteen_each_with_a_line_that_says_what_it_does():
    assert len(CORRUPTIONS) == 16
    lines = {function.__doc__.strip() for function in CORRUPTIONS.values()}
    assert len(lines) == 16
    assert all("\n" not in line and line.endswith(".") for line in lines)


@EVERY
def test_shape_type_and_range_stay_and_every_digit_changes(name: str, images: np.ndarray):
    before = images.copy()
    result = corrupt(name, images)
    assert (result.shape, result.dtype) == (images.shape, np.float32)
    assert 0 <= result.min() < result.max() <= 1
    assert (np.abs(result - images).max(axis=(1, 2)) > 0.1).all()
    np.testing.assert_array_equal(images, before)
    assert not np.shares_memory(result, images)


@EVERY
def test_it_is_a_function_of_the_seed(name: str, images: np.ndarray):
    first = corrupt(name, images, seed=1)
    np.testing.assert_array_equal(first, corrupt(name, images, seed=1))
    same = np.array_equal(first, corrupt(name, images, seed=2))
    assert same == (name in SEEDLESS)


@EVERY
def test_images_behind_do_not_matter(name: str, images: np.ndarray):
    np.testing.assert_array_equal(corrupt(name, images)[:7], corrupt(name, images[:7]))


@EVERY
def test_other_sizes_than_28_by_28(name: str, images: np.ndarray):
    cut = np.ascontiguousarray(images[:5, 2:, 4:])
    assert corrupt(name, cut).shape == (5, 26, 24)


# --- Each by itself


def test_shot_noise_counts_photons():
    result = corrupt("shot_noise", plain(0.5))
    counts = stats.poisson(0.5 * 3).pmf(range(3))
    expected = [*counts, 1 - counts.sum()]  # 3 and more are white
    values = np.rint(result * 3).astype(int)
    np.testing.assert_allclose(result, values / 3, atol=1e-6)
    np.testing.assert_allclose(np.bincount(values.ravel()) / values.size, expected, atol=0.005)
    assert not corrupt("shot_noise", plain(0)).any()


def test_impulse_noise_changes_its_share_of_pixels_to_black_and_white():
    result = corrupt("impulse_noise", plain(0.25))
    values, counts = np.unique(result, return_counts=True)
    assert list(values) == [0, 0.25, 1]
    np.testing.assert_allclose(counts / result.size, [0.085, 0.83, 0.085], atol=0.005)


def test_glass_blur_scatters_ink_nearby_and_loses_none():
    result = corrupt("glass_blur", point(14, 14, count=2000))
    sums = result.sum(axis=(1, 2))
    assert sums.std() > 0.1
    assert sums.mean() == pytest.approx(1, abs=0.05)
    assert result.max() < 0.8
    reach = 3 + 1 + 3  # two filters of sigma 0.7, cut at four sigmas, and a step between
    result[:, 14 - reach : 15 + reach, 14 - reach : 15 + reach] = 0
    assert not result.any()
    np.testing.assert_allclose(corrupt("glass_blur", plain(0.5)), 0.5, atol=1e-6)


def test_defocus_blur_turns_a_point_into_a_disk():
    rows, columns = np.indices((28, 28)) - 10
    inside = rows**2 + columns**2 <= 4
    result = corrupt("defocus_blur", point(10, 10, count=1))[0]
    np.testing.assert_allclose(result, inside / 13, atol=1e-6)


def test_motion_blur_draws_a_fading_trail_to_the_right():
    result = corrupt("motion_blur", point(14, 8)).astype(np.float64)
    np.testing.assert_allclose(result.sum(axis=(1, 2)), 1, atol=1e-5)
    rows, columns = np.indices((28, 28))
    down, right = rows - 14, columns - 8
    assert not result[:, np.hypot(down, right) > 11.5].any()
    angles = np.degrees(np.arctan2((result * down).sum((1, 2)), (result * right).sum((1, 2))))
    assert angles.min() == pytest.approx(-45, abs=1)
    assert angles.max() == pytest.approx(45, abs=1)
    assert stats.kstest(angles, stats.uniform(-45, 90).cdf).pvalue > 0.001
    distance = (result * np.hypot(down, right)).sum((1, 2))
    weights = stats.norm(0, 3).pdf(range(11))
    assert distance.mean() == pytest.approx((weights * range(11)).sum() / weights.sum(), abs=0.2)


def variants(name: str, image: np.ndarray) -> np.ndarray:
    """The distinct results for one image."""
    return np.unique(corrupt(name, np.repeat(image[None], 100, axis=0)), axis=0)


def assert_same_sets(found: np.ndarray, expected: list[np.ndarray]) -> None:
    """As many images in both, and each expected one found, whatever their order."""
    assert len(found) == len(expected)
    for image in expected:
        assert np.abs(found - image).max(axis=(1, 2)).min() < 1e-5


def test_shear_slants_about_the_centre(images: np.ndarray):
    expected = []
    for slope in (-np.tan(0.4), np.tan(0.4)):
        matrix = np.array([[1, 0], [slope, 1]])  # scipy's: rows first, from output to input
        offset = [0, -slope * 13.5]
        expected.append(ndimage.affine_transform(images[0], matrix, offset, order=1))
    assert_same_sets(variants("shear", images[0]), expected)


def test_scale_shrinks_about_the_centre(images: np.ndarray):
    offset = 13.5 * (1 - 1 / 0.7)
    expected = ndimage.affine_transform(images[0], [1 / 0.7] * 2, offset, order=1)
    assert_same_sets(variants("scale", images[0]), [expected])


def test_rotate_turns_by_23_degrees_either_way(images: np.ndarray):
    angles = (-np.degrees(0.4), np.degrees(0.4))
    expected = [transform.rotate(images[0].copy(), angle) for angle in angles]
    assert_same_sets(variants("rotate", images[0]), expected)


def test_translate_moves_a_point_to_four_places():
    expected = [point(row, column, count=1)[0] for row in (9, 15) for column in (17, 23)]
    assert_same_sets(variants("translate", point(12, 20, count=1)[0]), expected)


def test_brightness_adds_up_to_white():
    values = np.array([[[0, 0.25, 0.5, 0.75, 1]]], np.float32)
    assert corrupt("brightness", values).tolist() == [[[0.5, 0.75, 1, 1, 1]]]


def test_stripe_inverts_both_sides(images: np.ndarray):
    result = corrupt("stripe", images)
    np.testing.assert_array_equal(result[:, :, 7:21], images[:, :, 7:21])
    for side in (slice(0, 7), slice(21, 28)):
        np.testing.assert_array_equal(result[:, :, side], 1 - images[:, :, side])


def test_fog_lays_smooth_clouds_over_a_paler_image(images: np.ndarray):
    clouds = corrupt("fog", np.zeros_like(images))
    np.testing.assert_allclose(corrupt("fog", images) - clouds, images / 3, atol=1e-6)
    np.testing.assert_allclose(clouds.min(axis=(1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(clouds.max(axis=(1, 2)), 2 / 3, atol=1e-6)
    assert np.abs(np.diff(clouds, axis=1)).max() < 0.2
    assert clouds.std(axis=0).min() > 0.05  # each image has clouds of its own


def test_spatter_covers_a_part_with_dark_grey(images: np.ndarray):
    mud = corrupt("spatter", plain(0))
    assert mud.max() == pytest.approx(63 / 255)
    assert 0.05 < (mud > 0).mean() < 0.3
    same = corrupt("spatter", images) == images
    dry = corrupt("spatter", np.zeros_like(images)) == 0  # the same seed, so the same drops
    assert same[dry].all()
    assert (corrupt("spatter", np.ones_like(images))[~dry] < 0.5).all()


def centre_line(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns that have ink, and the ink's mean row in each."""
    inked = np.flatnonzero(drawn.any(axis=0))
    rows = np.arange(len(drawn))[:, None]
    return inked, (rows * drawn).sum(axis=0)[inked] / drawn.sum(axis=0)[inked]


def away_from_the_border(drawn: np.ndarray) -> np.ndarray:
    """The images whose line is nowhere cut off."""
    return drawn[~drawn[:, [0, -1]].any(axis=(1, 2))]


def test_dotted_line_is_straight_and_has_gaps():
    lines = away_from_the_border(corrupt("dotted_line", plain(0)))
    assert len(lines) > 50
    slopes = []
    for drawn in lines:
        columns, rows = centre_line(drawn)
        assert list(columns) == [column for column in range(28) if column % 4 in (2, 3)]
        slope, height = np.polyfit(columns, rows, 1)
        np.testing.assert_allclose(rows, height + slope * columns, atol=0.1)
        slopes.append(slope)
    assert min(slopes) < -0.3
    assert max(slopes) > 0.3


def test_zigzag_goes_up_and_down_every_eight_pixels():
    lines = away_from_the_border(corrupt("zigzag", plain(0)))
    assert len(lines) > 50
    for drawn in lines:
        columns, rows = centre_line(drawn)
        assert list(columns) == list(range(2, 26))
        drift = rows[8:] - rows[:-8]  # a period later the line has only risen or fallen
        np.testing.assert_allclose(drift, drift.mean(), atol=0.15)
        level = rows - drift.mean() / 8 * (columns - columns.mean())
        assert np.ptp(level) == pytest.approx(4, abs=0.6)  # ink rounds the corners off


def test_canny_edges_are_those_of_each_image_alone(images: np.ndarray):
    wide = np.pad(images, ((0, 0), (8, 8), (0, 0)))  # scikit-image blurs otherwise at a border
    expected = [feature.canny(image) for image in wide]
    np.testing.assert_array_equal(corrupt("canny_edges", wide), expected)


@pytest.mark.parametrize("name", ["dotted_line", "zigzag"])
def test_lines_add_ink_and_take_none_away(name: str, images: np.ndarray):
    assert (corrupt(name, images) >= images).all()


def test_canny_edges_are_the_outline_of_a_square():
    square = plain(0, count=1)
    square[:, 8:20, 8:20] = 1
    result = corrupt("canny_edges", square)[0]
    assert set(np.unique(result)) == {0, 1}
    near = ndimage.binary_dilation(square[0], np.ones((3, 3))) & ~ndimage.binary_erosion(
        square[0], np.ones((5, 5))
    )
    assert not result[~near].any()
    for profile in (result[14], result[:, 14]):
        assert ndimage.label(profile)[1] == 2  # an edge on each side


# --- The stage


def report(folder: Path) -> dict:
    return json.loads((folder / "metrics/robustness.json").read_text(encoding="utf-8"))


def written(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in OUTPUTS}


def mean_prediction(folder: Path, images: np.ndarray) -> np.ndarray:
    """Of both networks, by Keras alone."""
    paths = [folder / f"models/seed-{seed}.keras" for seed in (0, 3)]
    each = [keras.saving.load_model(path).predict(images[..., None], verbose=0) for path in paths]
    return (each[0] + each[1]) / 2


def test_it_says_what_it_did(finished: Path):
    content = report(finished)
    assert {key: content[key] for key in ("dataset", "images", "networks")} == {
        "dataset": "digits",
        "images": 300,
        "networks": 2,
    }
    assert list(content["corruptions"]) == list(CORRUPTIONS)
    printed = (finished / "printed.txt").read_text(encoding="utf-8")
    for name, result in content["corruptions"].items():
        assert f"{name}: accuracy {result['accuracy']:.2%}\n" in printed
    assert f"{content['mean_error']:.2%} misread under 16 corruptions" in printed
    assert len(printed.splitlines()) == 17


def test_numbers_belong_together(finished: Path):
    content = report(finished)
    for result in [content["clean"], *content["corruptions"].values()]:
        right = 300 - result["errors"]
        assert result["accuracy"] == pytest.approx(right / 300, abs=1e-6)
        interval = stats.binomtest(right, 300).proportion_ci(method="wilson")
        assert result["accuracy_95"] == pytest.approx(
            {"low": interval.low, "high": interval.high}, abs=1e-6
        )
    errors = [result["errors"] / 300 for result in content["corruptions"].values()]
    assert content["mean_error"] == pytest.approx(np.mean(errors), abs=1e-6)
    assert len(set(errors)) > 8
    assert content["mean_error"] > content["clean"]["errors"] / 300


@pytest.mark.slow
def test_numbers_are_those_of_the_saved_networks(finished: Path):
    images = np.load(finished / "data/processed/test_images.npy")[..., 0]
    labels = np.load(finished / "data/processed/test_labels.npy")
    sample = np.random.default_rng(0).permutation(360)[:300]
    images, labels = images[sample], labels[sample]
    content = report(finished)
    stripe = images.copy()
    stripe[:, :, np.r_[:7, 21:28]] = 1 - stripe[:, :, np.r_[:7, 21:28]]
    by_hand = {"brightness": np.minimum(images + 0.5, 1), "stripe": stripe}
    for name in ("impulse_noise", "zigzag", "shear"):
        by_hand[name] = CORRUPTIONS[name](images, np.random.default_rng([0, *name.encode()]))
    results = content["corruptions"] | {"clean": content["clean"]}
    for name, corrupted in (by_hand | {"clean": images}).items():
        predicted = mean_prediction(finished, corrupted).argmax(axis=1)
        assert results[name]["errors"] == (predicted != labels).sum(), name


@pytest.mark.slow
def test_a_second_run_writes_the_same_bytes(folder: Path):
    before = written(folder)
    for name in OUTPUTS:
        (folder / name).unlink()
    run_stage(robustness.main, folder)
    assert written(folder) == before


@pytest.mark.slow
def test_seed_and_number_of_images_count(folder: Path):
    before = report(folder)
    change_params(folder, robustness__seed=1, robustness__images=10_000)
    run_stage(robustness.main, folder)
    content = report(folder)
    assert content["images"] == 360, "all there are"
    evaluated = json.loads((folder / "metrics/evaluate.json").read_text(encoding="utf-8"))
    assert content["clean"]["errors"] == evaluated["errors"]
    assert content["corruptions"] != before["corruptions"]


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("models/seed-3.keras", "dvc repro"),
        ("data/processed/test_images.npy", "dvc repro preprocess"),
        ("data/processed/test_labels.npy", "dvc repro preprocess"),
        ("plots/confusion.csv", "dvc repro evaluate"),
    ],
)
def test_a_missing_input_is_refused_and_the_outputs_stay(folder: Path, name: str, command: str):
    before = written(folder)
    (folder / name).unlink()
    with pytest.raises(UserError) as caught:
        run_stage(robustness.main, folder)
    assert name in str(caught.value).replace("\\", "/")
    assert command in str(caught.value)
    assert "\n" not in str(caught.value)
    assert written(folder) == before


HEADER = "index,actual,predicted,confidence\n"


@pytest.mark.parametrize(
    "content",
    ["", "a,b\n1,2\n", HEADER, HEADER + "0,3,3,0.9\n", HEADER + "0,Coat,Coat,x\n", "\0\xff"],
)
def test_predictions_of_other_images_are_refused(folder: Path, content: str):
    (folder / "plots/confusion.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=r"confusion.csv is not about the 360 test images"):
        run_stage(robustness.main, folder)


# --- Pictures


@pytest.mark.parametrize("name", ["corruptions", "robustness"])
def test_pictures_are_wide_enough_and_not_blank(finished: Path, name: str):
    pixels = png.imread(finished / f"plots/{name}.png")
    assert pixels.shape[1] >= 600
    assert (pixels[..., :3].mean(axis=2) < 0.5).mean() > 0.001


@pytest.mark.parametrize("dataset", ["digits", "fashion_mnist"])
def test_gallery_shows_image_reading_and_probability(dataset: str, images: np.ndarray):
    classes = datasets.find(dataset).classes
    examples = {name: (images[0], 3, 0.5 + number / 100) for number, name in enumerate(CORRUPTIONS)}
    examples["canny_edges"] = (images[0], 9, 0.25)
    figure = corruption_pictures.gallery({"clean": (images[0], 3, 1.0)} | examples, 3, classes)
    assert_readable(figure)
    texts = texts_of(figure)
    assert {"clean", "shot noise", "canny edges"} <= set(texts)
    captions = [" ".join(text.split()) for text in texts if "%" in text]
    assert captions[0] == f"✓ {classes[3]} 100 %"
    assert captions[1] == f"✓ {classes[3]} 50.0 %"
    assert captions[-1] == f"✗ {classes[9]} 25.0 %"
    assert len(captions) == 17


@pytest.mark.parametrize("images", [1, 360, 10_000])
@pytest.mark.parametrize("perfect", [False, True])
def test_error_rates_can_be_read(images: int, perfect: bool):
    wrong = {
        name: 0 if perfect else images * number // 15 for number, name in enumerate(CORRUPTIONS)
    }
    ones, zeros = np.ones(images, int), np.zeros(images, int)
    results = {
        name: scores.accuracy(ones, np.r_[zeros[:count], ones[count:]])
        for name, count in wrong.items()
    }
    clean = scores.accuracy(ones, ones)
    figure = corruption_pictures.error_rates(results, clean, 0.25, images)
    assert_readable(figure)
    texts = texts_of(figure)
    assert {"shot noise", "canny edges"} <= set(texts)
    heading = " ".join(" ".join(texts).replace("\xa0", " ").split())
    assert "25.0 % of" in heading
    assert "the same images as they are, 0.00 %" in heading
    if not perfect:
        assert "100 %" in texts
