"""The pictures, drawn from made-up predictions: what is drawn in them, against computations by
hand, scipy and numpy; whether all that is written can be read, also with long names, few images, no
mistake; and that the same inputs give the same bytes.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import colors
from matplotlib import image as png
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.path import Path as Outline
from matplotlib.text import Text
from scipy import stats
from sklearn import metrics

from stages.dataset import catalogue as datasets
from stages.report import diagnostics
from stages.report import pictures

DIGITS = datasets.DIGITS
CLOTHES = datasets.find("fashion_mnist").classes
LONGER = tuple(f"a long name, no. {number}" for number in range(10))
NAMES = pytest.mark.parametrize("classes", [CLOTHES, LONGER], ids=["long names", "longer names"])


def picture_case(count: int, classes: tuple[str, ...], mistakes: int | None = None) -> tuple:
    """Images, labels and probabilities with that many mistakes, `None` for as good as all."""
    rng = np.random.default_rng(0)
    images = rng.random((count, 28, 28, 1), np.float32)
    labels = np.arange(count) % len(classes)
    mistakes = count if mistakes is None else mistakes
    shifts = rng.integers(1, len(classes), count) * (np.arange(count) < mistakes)
    probabilities = np.full((count, len(classes)), 0.0001, np.float32)
    probabilities[np.arange(count), (labels + shifts) % len(classes)] = 0.999
    return images, labels, probabilities, classes


def counts_of(labels: np.ndarray, probabilities: np.ndarray, classes: tuple[str, ...]):
    predicted = probabilities.argmax(axis=1)
    return metrics.confusion_matrix(labels, predicted, labels=range(len(classes)))


def draw(figure: Figure) -> list[Text]:
    """Draw `figure` and return the texts that are seen."""
    figure.dpi = pictures.DPI
    drawn, draw_text = [], Text.draw

    def record(text: Text, renderer) -> None:
        if text.get_visible() and text.get_text().strip():
            drawn.append(text)
        draw_text(text, renderer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", record)
        FigureCanvasAgg(figure).draw()
    return drawn


def texts_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in draw(figure)]


def outline(text: Text) -> Outline:
    """The rectangle around a text, turned as the text is."""
    renderer = text.get_figure(root=True).canvas.get_renderer()
    box, angle = text.get_window_extent(renderer), np.radians(text.get_rotation())
    if not angle:
        return Outline(box.corners()[[0, 1, 3, 2, 0]], closed=True)
    text.set_rotation(0)
    level = text.get_window_extent(renderer)
    text.set_rotation(np.degrees(angle))
    centre = (box.p0 + box.p1) / 2
    corners = (level.corners()[[0, 1, 3, 2, 0]] - (level.p0 + level.p1) / 2) @ np.array(
        [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    )
    return Outline(corners + centre, closed=True)


def assert_readable(figure: Figure) -> None:
    """All texts lie inside the figure, and none over another."""
    outlines = {text: outline(text) for text in draw(figure)}
    assert outlines
    width, height = figure.canvas.get_width_height()
    for text, shape in outlines.items():
        low, high = shape.vertices.min(axis=0), shape.vertices.max(axis=0)
        inside = (low >= -1).all() and high[0] <= width + 1 and high[1] <= height + 1
        assert inside, f"{text.get_text()!r} is cut off"
    checked = list(outlines.items())
    lows, highs = (
        np.array([extreme(shape.vertices, axis=0) for _, shape in checked])
        for extreme in (np.min, np.max)
    )
    for number, (text, shape) in enumerate(checked):
        near = (lows[:number] <= highs[number]) & (highs[:number] >= lows[number])
        for other, other_shape in (checked[place] for place in np.flatnonzero(near.all(axis=1))):
            assert not shape.intersects_path(other_shape, filled=True), (
                f"{text.get_text()!r} overlaps {other.get_text()!r}"
            )


def unsure_case(count: int, classes: tuple[str, ...] = DIGITS, seed: int = 0) -> tuple:
    """Images, labels and probabilities of all degrees, right about nine times in ten."""
    rng = np.random.default_rng(seed)
    images = rng.random((count, 28, 28, 1), np.float32)
    labels = rng.integers(0, len(classes), count).astype(np.uint8)
    logits = rng.normal(size=(count, len(classes))) + 4 * np.eye(len(classes))[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return images, labels, probabilities.astype(np.float32), classes


def shown_images(figure: Figure) -> list[Axes]:
    """The axes that hold an image and are seen."""
    return [axes for axes in figure.axes if axes.images and axes.axison]


def below(axes: Axes) -> list[str]:
    """The lines written below an image, from the top, in words."""
    lines = [text for text in axes.texts if text.xyann[1] < 0]
    return [
        " ".join(text.get_text().split()) for text in sorted(lines, key=lambda text: -text.xyann[1])
    ]


def above(axes: Axes) -> str:
    return " ".join(text.get_text() for text in axes.texts if text.xyann[1] > 0)


def interval(errors: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval in per cent, by scipy."""
    found = stats.binomtest(errors, total).proportion_ci(0.95, method="wilson")
    return 100 * found.low, 100 * found.high


def test_overlapping_and_cut_off_texts_are_found():
    figure = Figure(figsize=(6, 4))
    figure.text(0.5, 0.5, "one")
    figure.text(0.5, 0.8, "two")
    assert_readable(figure)
    late = figure.text(0.49, 0.51, "three", rotation=30)
    with pytest.raises(AssertionError, match="overlaps"):
        assert_readable(figure)
    late.set(x=0.98, y=0.2)
    with pytest.raises(AssertionError, match="cut off"):
        assert_readable(figure)


# --- Images


def drawings(case: tuple) -> dict[str, Callable[[], Figure]]:
    """Every picture that is drawn of predictions alone, by name."""
    images, labels, probabilities, classes = case
    return {
        "sample_predictions": lambda: pictures.sample_predictions(*case, per_class=1, seed=0),
        "mistakes": lambda: pictures.mistakes(*case, limit=12, disputed=range(50)),
        "uncertain": lambda: pictures.uncertain(*case, limit=12, disputed=[0]),
        "confusion_matrix": lambda: pictures.confusion_matrix(
            counts_of(labels, probabilities, classes), classes
        ),
        "reliability": lambda: diagnostics.reliability(
            labels, probabilities, np.sqrt(probabilities) / 3
        ),
        "confidence_histogram": lambda: diagnostics.confidence_histogram(labels, probabilities),
        "class_errors": lambda: diagnostics.class_errors(labels, probabilities, classes),
        "occlusion": lambda: diagnostics.occlusion(
            *case, lambda erased: np.full((len(erased), len(classes)), 0.1, np.float32)
        ),
    }


EACH = pytest.mark.parametrize("name", list(drawings(unsure_case(20))))


def without_class(case: tuple, label: int) -> tuple:
    images, labels, probabilities, classes = case
    kept = labels != label
    return images[kept], labels[kept], probabilities[kept], classes


@EACH
@NAMES
def test_all_that_is_written_can_be_read(name: str, classes: tuple[str, ...]):
    assert_readable(drawings(unsure_case(2000, classes))[name]())


@pytest.mark.slow
@EACH
@pytest.mark.parametrize(
    "case",
    [
        unsure_case(1),
        unsure_case(30),
        unsure_case(360, ("ant", "bee")),
        without_class(unsure_case(360), 3),
        picture_case(360, CLOTHES, mistakes=0),
        picture_case(360, DIGITS),  # all wrong
    ],
    ids=["one image", "30 images", "two classes", "no threes", "no mistakes", "all mistakes"],
)
@pytest.mark.filterwarnings("error")
def test_rare_cases_can_be_read(name: str, case: tuple):
    assert_readable(drawings(case)[name]())


@pytest.mark.slow
@EACH
def test_the_same_inputs_give_the_same_bytes(name: str, tmp_path: Path):
    saved = []
    for file in ("a.png", "b.png"):
        pictures.save(drawings(unsure_case(60))[name](), tmp_path / "new" / file)
        saved.append((tmp_path / "new" / file).read_bytes())
    assert saved[0] == saved[1]
    assert b"Software" not in saved[0]
    assert len(saved[0]) < 250_000
    assert len(list((tmp_path / "new").iterdir())) == 2


def test_fewer_colours_are_hardly_seen(tmp_path: Path):
    """The saved PNG, of 256 colours, against what matplotlib draws: no pixel is far off."""
    counts = np.array([[5, 2, 1], [0, 9, 1], [3, 0, 4]])
    pictures.save(pictures.confusion_matrix(counts, ("a", "b", "c")), tmp_path / "saved.png")
    full = pictures.confusion_matrix(counts, ("a", "b", "c"))
    full.savefig(tmp_path / "full.png", dpi=pictures.DPI)
    saved, full = (png.imread(tmp_path / f"{name}.png")[..., :3] for name in ("saved", "full"))
    assert saved.shape == full.shape
    assert np.abs(saved - full).max() < 0.2
    assert saved[0, 0].tolist() == [1, 1, 1]


@EACH
def test_the_heading_tells_the_number_of_images(name: str):
    case = unsure_case(1234)
    right = int((case[2].argmax(axis=1) == case[1]).sum())
    expected = {"uncertain": f"{right:,}", "sample_predictions": "1 random"}.get(name, "1,234")
    if name == "confidence_histogram":
        expected = f"{right:,} right and {1234 - right:,} wrong"
    title, note = drawings(case)[name]().texts
    assert expected in title.get_text()
    assert title.get_fontsize() == 13
    assert note.get_fontsize() < title.get_fontsize()


@pytest.mark.slow
@pytest.mark.parametrize("count", [5, 37, 60])
@pytest.mark.parametrize("classes", [DIGITS, CLOTHES], ids=["digits", "long names"])
def test_a_gallery_of_any_length_can_be_read(count: int, classes: tuple[str, ...]):
    figure = pictures.mistakes(*picture_case(count, classes), limit=60, disputed=range(0, 60, 7))
    assert len(shown_images(figure)) == count
    assert_readable(figure)


def test_mistakes_are_drawn_with_the_two_most_likely_classes():
    images, labels, probabilities, classes = picture_case(40, DIGITS, mistakes=0)
    probabilities[[3, 17, 21]] = 0
    probabilities[3, [8, 3, 5]] = 0.6, 0.3, 0.1
    probabilities[17, [2, 9, 7]] = 0.75, 0.15, 0.1
    probabilities[21, [0, 1]] = 0.9, 0.1
    figure = pictures.mistakes(images, labels, probabilities, classes, 10, np.array([17, 20]))
    drawn = shown_images(figure)
    assert [above(axes).split() for axes in drawn] == [
        ["1", "#21"],
        ["7", "(?)", "#17"],
        ["3", "#3"],
    ]
    assert [below(axes) for axes in drawn] == [
        ["✗ 0 90.0 %", "✓ 1 10.0 %"],
        ["✗ 2 75.0 %", "✗ 9 15.0 %"],
        ["✗ 8 60.0 %", "✓ 3 30.0 %"],
    ]
    for axes, index in zip(drawn, (21, 17, 3), strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), images[index].squeeze())
    assert any("doubt the label itself (1 of 3)" in text for text in texts_of(figure))
    undisputed = pictures.mistakes(images, labels, probabilities, classes, 10)
    assert not any("(?)" in text for text in texts_of(undisputed))


def test_uncertain_shows_right_answers_by_their_lead_over_the_second():
    images, labels, probabilities, classes = picture_case(40, DIGITS, mistakes=10)
    probabilities[[12, 25, 31]] = 0
    probabilities[12, [2, 3]] = 0.55, 0.45  # leads by 0.1
    probabilities[25, [5, 6, 7]] = 0.4, 0.35, 0.25  # by 0.05
    probabilities[31, [1, 2, 3, 4]] = 0.45, 0.2, 0.2, 0.15  # by 0.25, though less sure than 12
    figure = pictures.uncertain(images, labels, probabilities, classes, limit=3)
    drawn = shown_images(figure)
    assert [above(axes).split() for axes in drawn] == [["5", "#25"], ["2", "#12"], ["1", "#31"]]
    assert [below(axes) for axes in drawn] == [
        ["✓ 5 40.0 %", "✗ 6 35.0 %"],
        ["✓ 2 55.0 %", "✗ 3 45.0 %"],
        ["✓ 1 45.0 %", "✗ 2 20.0 %"],
    ]
    assert figure.texts[0].get_text() == "The 3 least certain of 30 right answers"


def test_wrong_and_right_differ_in_frame_as_well_as_in_colour():
    case = picture_case(40, DIGITS, mistakes=5)
    widths = {
        function: {
            spine.get_linewidth() for axes in shown_images(figure) for spine in axes.spines.values()
        }
        for function, figure in (
            ("mistakes", pictures.mistakes(*case, limit=5)),
            ("uncertain", pictures.uncertain(*case, limit=5)),
        )
    }
    assert min(widths["mistakes"]) > 2 * max(widths["uncertain"])


def test_sample_predictions_show_the_predictions_of_all_classes():
    images, labels, probabilities, classes = picture_case(20, ("ant", "bee"), mistakes=0)
    probabilities[0] = [0.25, 0.75]  # an ant
    probabilities[2] = [0.375, 0.625]  # another, with less confidence
    texts = texts_of(
        pictures.sample_predictions(images, labels, probabilities, classes, per_class=20, seed=0)
    )
    assert {"ant", "bee"} <= set(texts)
    wrong = [text for text in texts if "✗" in text and "bee" in text and "%" in text]
    assert sum("75.0 %" in text for text in wrong) == 2  # among all ants, and as the worst
    assert sum("62.5 %" in text for text in wrong) == 1
    assert sum("✓ ant" in text for text in texts) == 8
    assert sum("✓ bee" in text for text in texts) == 10


def test_sample_predictions_are_drawn_by_the_seed():
    case = picture_case(200, ("ant", "bee"), mistakes=0)
    case[2][:] = np.random.default_rng(0).random(case[2].shape)  # to tell the images by captions

    def captions(seed: int) -> list[str]:
        return texts_of(pictures.sample_predictions(*case, per_class=1, seed=seed))

    assert captions(0) == captions(0) != captions(1)


def test_mistakes_come_most_confident_first_and_no_more_than_the_limit():
    images, labels, probabilities, classes = picture_case(30, DIGITS, mistakes=0)
    for index, confidence in ((3, 0.6), (17, 0.9), (21, 0.7), (4, 0.8)):
        probabilities[index] = 0
        probabilities[index, (labels[index] + 1) % 10] = confidence
    figure = pictures.mistakes(images, labels, probabilities, classes, limit=3)
    drawn = shown_images(figure)
    assert [above(axes).split("#")[1] for axes in drawn] == ["17", "4", "21"]
    assert below(drawn[0])[0] == "✗ 8 90.0 %"
    title = figure.texts[0].get_text()
    assert title == "4 of 30 test images are misread; the 3 most confident"


def test_perfect_predictions_have_no_mistakes_to_show():
    case = picture_case(50, DIGITS, mistakes=0)
    figure = pictures.mistakes(*case, limit=20)
    title, note = texts_of(figure)
    assert title.startswith("0 of 50 test images")
    assert note == "There is no image to show."
    assert figure.get_figheight() < 1
    texts = texts_of(pictures.sample_predictions(*case, per_class=1, seed=0))
    assert not any("✗" in text and "%" in text for text in texts)
    counts = counts_of(case[1], case[2], DIGITS)
    assert any(
        text.startswith("0 errors in 50")
        for text in texts_of(pictures.confusion_matrix(counts, DIGITS))
    )


@pytest.mark.filterwarnings("error")
def test_classes_without_images_stay_empty():
    images, labels, probabilities, classes = picture_case(30, DIGITS, mistakes=0)
    keep = labels < 7
    case = images[keep], labels[keep], probabilities[keep], classes
    texts = texts_of(pictures.sample_predictions(*case, per_class=2, seed=0))
    assert set(DIGITS) <= set(texts)
    assert sum("✓" in text and "%" in text for text in texts) == 7 * 2
    assert_readable(pictures.mistakes(*case, limit=5))
    figure = pictures.confusion_matrix(counts_of(case[1], case[2], classes), classes)
    assert_readable(figure)
    assert not any("nan" in text for text in texts_of(figure))


# --- Charts


def test_confusion_matrix_shows_all_counts():
    counts = np.array([[5, 2, 0], [0, 1234, 1], [3, 0, 4]])
    texts = texts_of(pictures.confusion_matrix(counts, ("a", "b", "c")))
    for text in ("5", "2", "1,234", "1", "3", "4", "71.4 %", "99.9 %", "57.1 %"):
        assert texts.count(text) == 1, text
    assert texts.count("·") == 3
    assert any("6 errors in 1,249" in text for text in texts)


def test_only_all_is_called_100_per_cent():
    counts = np.array([[9_999_999, 1], [0, 10]])
    texts = texts_of(pictures.confusion_matrix(counts, ("a", "b")))
    assert texts.count("100 %") == 1
    assert texts.count("99.9 %") == 1


def test_colour_of_a_confusion_is_its_share_of_the_row():
    counts = np.array([[90, 10, 0], [0, 995, 5], [4, 0, 36]])
    (image,) = pictures.confusion_matrix(counts, ("a", "b", "c")).axes[0].images
    saturation = colors.rgb_to_hsv(np.asarray(image.get_array()))[..., 1]
    assert saturation[0, 2] == saturation[1, 0] == saturation[2, 1] == 0
    assert saturation[0, 1] == pytest.approx(saturation[2, 0])  # both 10 % of their rows
    assert 0 < saturation[1, 2] < saturation[0, 1]


def curves_of(epochs: int, seeds: int, validation: bool = True) -> dict[int, pd.DataFrame]:
    def frame(seed: int) -> pd.DataFrame:
        decay = np.exp(-np.arange(epochs) / 2 - seed / 10)
        columns = {"train_accuracy": 1 - 0.5 * decay, "train_loss": 0.5 + decay}
        if validation:
            columns |= {
                "validation_accuracy": 1 - 0.3 * decay,
                "validation_loss": 0.5 + 0.8 * decay,
            }
        return pd.DataFrame(columns)

    return {seed: frame(seed) for seed in range(seeds)}


@pytest.mark.parametrize(
    ("epochs", "seeds", "validation"), [(1, 1, True), (8, 3, True), (200, 1, False)]
)
def test_learning_curves_can_be_read(epochs: int, seeds: int, validation: bool):
    figure = pictures.learning_curves(curves_of(epochs, seeds, validation))
    assert_readable(figure)
    assert ("validation" in texts_of(figure)) == validation


def test_learning_curves_without_a_single_error_can_be_drawn():
    curves = curves_of(3, 1)
    curves[0]["train_accuracy"] = curves[0]["validation_accuracy"] = 1.0
    assert_readable(pictures.learning_curves(curves))


def test_learning_curves_draw_each_seed_in_its_own_hue_and_marker():
    curves = curves_of(4, 5)
    figure = pictures.learning_curves(curves)
    error, loss = figure.axes
    for axes in (error, loss):
        assert len(axes.lines) == 10
        validation = [line for line in axes.lines if line.get_linestyle() == "-"]
        train = [line for line in axes.lines if line.get_linestyle() == "--"]
        for lines in (validation, train):
            assert len({line.get_color() for line in lines}) == 5
        assert len({line.get_marker() for line in validation}) == 5
        assert {line.get_marker() for line in train} == {""}
    for seed, frame in curves.items():
        train, validation = error.lines[2 * seed : 2 * seed + 2]
        np.testing.assert_allclose(train.get_ydata(), 100 * (1 - frame["train_accuracy"]))
        np.testing.assert_allclose(validation.get_ydata(), 100 * (1 - frame["validation_accuracy"]))
        np.testing.assert_allclose(loss.lines[2 * seed].get_ydata(), frame["train_loss"])
        assert list(train.get_xdata()) == [1, 2, 3, 4]
    keys = {text.get_text() for text in loss.get_legend().get_texts()}
    assert keys == {"train (augmented)", "validation", *(f"seed {seed}" for seed in range(5))}
    last = np.mean([1 - frame["validation_accuracy"].iloc[-1] for frame in curves.values()])
    assert f"5 networks, 4 epochs: {100 * last:.2f} %" in figure.texts[0].get_text()


def bins_by_hand(labels: np.ndarray, probabilities: np.ndarray, bins: int) -> list[tuple]:
    """(1 - mean confidence in %, errors, images) of each bin, by plain loops."""
    rows = sorted(
        (max(map(float, row)), index) for index, row in enumerate(probabilities)
    )  # ties in the order of the images
    size, longer = divmod(len(rows), bins)
    found = []
    for number in range(bins):
        part, rows = rows[: size + (number < longer)], rows[size + (number < longer) :]
        if part:
            wrong = sum(int(np.argmax(probabilities[i])) != labels[i] for _, i in part)
            found.append((100 * (1 - sum(c for c, _ in part) / len(part)), wrong, len(part)))
    return found


@pytest.mark.parametrize(("count", "bins"), [(1000, 15), (360, 15), (7, 15), (200, 4)])
def test_reliability_draws_each_bin_with_its_interval(count: int, bins: int):
    _, labels, probabilities, _ = unsure_case(count)
    before = np.where(labels[:, None] == np.arange(10), 0.55, 0.05)
    before[::3] = probabilities[::3]  # with many ties in the rest
    axes = diagnostics.reliability(labels, probabilities, before, bins).axes[0]
    low = axes.get_ylim()[0]
    points = [line for line in axes.lines if len(line.get_xdata()) == 1]
    bars = [line for line in axes.lines if len(line.get_xdata()) == 2][:-1]  # last: the diagonal
    expected = bins_by_hand(labels, before, bins) + bins_by_hand(labels, probabilities, bins)
    assert len(points) == len(bars) == len(expected) == 2 * min(bins, count)
    for point, bar, (said, errors, size) in zip(points, bars, expected, strict=True):
        assert point.get_xdata()[0] == pytest.approx(max(said, low), rel=1e-6)
        assert point.get_ydata()[0] == pytest.approx(100 * errors / size if errors else low)
        assert (point.get_marker() == "v") == (errors == 0)
        ends = interval(errors, size)
        assert bar.get_ydata() == pytest.approx([max(ends[0], low), ends[1]], rel=1e-6)
        assert set(bar.get_xdata()) == set(point.get_xdata())
    half = len(expected) // 2
    for key, parts in zip(
        axes.get_legend().get_texts(), (expected[:half], expected[half:]), strict=True
    ):
        gap = sum(abs(said * size - 100 * errors) for said, errors, size in parts) / count
        name, written = key.get_text().split(": calibration error ")
        assert name in ("before temperature scaling", "after temperature scaling")
        assert float(written.removesuffix(" %")) == pytest.approx(gap, abs=0.0051)


def test_confidence_histogram_counts_right_and_wrong():
    _, labels, probabilities, _ = unsure_case(3000)
    axes = diagnostics.confidence_histogram(labels, probabilities).axes[0]
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    for bars, mask in zip(axes.containers, (right, ~right), strict=True):
        heights = [bar.get_height() for bar in bars]
        assert heights == [
            ((confidence[mask] >= low) & (confidence[mask] < low + 0.05)).sum()
            for low in np.arange(20) / 20
        ]
        assert sum(heights) == mask.sum()
        for number, bar in enumerate(bars):
            assert 5 * number <= bar.get_x() < bar.get_x() + bar.get_width() <= 5 * number + 5
    assert axes.get_yscale() == "log"
    assert axes.get_ylim()[0] < 1  # a single image is seen
    assert axes.containers[1][0].get_hatch() != axes.containers[0][0].get_hatch()


def test_the_histogram_shows_all_bars_and_counts_certainty():
    """Confidence on an edge, of 1, and of a little more than 1, as sums in float32 can be."""
    values = np.array([[0.5, 0.5], [1, 0], [np.nextafter(np.float32(1), np.float32(2)), 0]])
    axes = diagnostics.confidence_histogram(np.array([0, 0, 1]), values.astype(np.float32)).axes[0]
    left, right = axes.get_xlim()
    bars = [bar for container in axes.containers for bar in container if bar.get_height()]
    assert sum(bar.get_height() for bar in bars) == 3
    assert all(left <= bar.get_x() and bar.get_x() + bar.get_width() <= right for bar in bars)


def test_class_errors_draw_each_rate_with_its_interval():
    case = without_class(unsure_case(900), 4)
    _, labels, probabilities, _ = case
    wrong = probabilities.argmax(axis=1) != labels
    axes = diagnostics.class_errors(labels, probabilities, DIGITS).axes[0]
    overall, *lines = axes.lines
    assert overall.get_xdata() == pytest.approx([100 * wrong.mean()] * 2)
    bars, points = lines[::2], lines[1::2]
    captions = [text.get_text() for text in axes.texts]
    assert len(bars) == len(points) == 9
    assert captions[4] == "no images"
    present = [label for label in range(10) if label != 4]
    for label, bar, point in zip(present, bars, points, strict=True):
        errors, total = int(wrong[labels == label].sum()), int((labels == label).sum())
        assert bar.get_xdata() == pytest.approx(interval(errors, total))
        assert point.get_xdata()[0] == pytest.approx(100 * errors / total)
        assert {*bar.get_ydata(), *point.get_ydata()} == {label}
        assert captions[label] == f"{errors} of {total}"
    assert [text.get_text() for text in axes.get_yticklabels()] == list(DIGITS)


def test_occlusion_finds_the_pixels_that_decide():
    """A reader that looks at one pixel of each image: erasing it changes the answer."""
    images = np.ones((3, 28, 28, 1), np.float32)
    labels = np.array([0, 0, 1])
    pixel = (10, 20)

    def predict(values: np.ndarray) -> np.ndarray:
        seen = values[:, pixel[0], pixel[1], 0] * 0.75
        return np.stack([0.125 + seen, 0.875 - seen], axis=1).astype(np.float32)

    probabilities = predict(images)
    figure = diagnostics.occlusion(images, labels, probabilities, ("ant", "bee"), predict)
    drawn = shown_images(figure)  # no bee was read rightly
    assert len(drawn) == 2
    whole, erased = drawn
    assert below(whole) == ["✓ ant 87.5 %"]
    assert below(erased) == ["✗ bee 87.5 %"]
    pixels = np.asarray(whole.images[0].get_array())
    coloured = np.ptp(pixels, axis=2) > 0.1
    rows, columns = np.nonzero(coloured)
    reach = diagnostics.PATCH // 2
    assert (rows.min(), rows.max()) == (pixel[0] - reach, pixel[0] + reach)
    assert (columns.min(), columns.max()) == (pixel[1] - reach, pixel[1] + reach)
    assert coloured.sum() == diagnostics.PATCH**2
    shown = np.asarray(erased.images[0].get_array())
    assert shown[pixel] == 0
    assert (shown == 0).sum() == diagnostics.PATCH**2
    assert images.min() == 1  # the input is left as it was


@pytest.mark.parametrize("ink", [0, 1])
def test_occlusion_asks_only_about_squares_with_ink(ink):
    """Erasing nothing changes nothing: no prediction is needed, of a blank image none at all."""
    images = np.zeros((1, 28, 28, 1), np.float32)
    images[0, 14, 14] = ink
    asked = []

    def predict(values: np.ndarray) -> np.ndarray:
        asked.append(len(values))
        return np.tile(np.array([[0.25, 0.75]], np.float32), (len(values), 1))

    probabilities = np.array([[0.75, 0.25]], np.float32)
    figure = diagnostics.occlusion(images, np.array([0]), probabilities, ("ant", "bee"), predict)
    assert asked == [diagnostics.PATCH**2] * ink
    assert below(shown_images(figure)[1]) == ["✗ bee 75.0 %" if ink else "✓ ant 75.0 %"]


def test_occlusion_shows_the_right_answer_of_median_confidence():
    images, labels, probabilities, classes = unsure_case(300)
    figure = diagnostics.occlusion(
        images,
        labels,
        probabilities,
        classes,
        lambda erased: np.full((len(erased), 10), 0.1, np.float32),
    )
    drawn = shown_images(figure)
    for label in range(10):
        right = (labels == label) & (probabilities.argmax(axis=1) == label)
        middle = np.sort(probabilities[right, label])[right.sum() // 2]
        assert below(drawn[label]) == [f"✓ {label} {100 * middle:.1f} %"]
