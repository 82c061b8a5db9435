"""The pictures, drawn of made-up predictions: what can be seen in them, against numpy and scipy."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from PIL import Image, ImageDraw

from stages.base.data import DatasetInfo, Split
from stages.report import drawing, pictures, scores, style

DIGITS = tuple("0123456789")
CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker")
STRANGE = ("$$", "日本語", "a_{b}^c", "a name\nof two lines", "very long " * 20 + "one", "\\frac")
SECOND = tuple(range(1000, 1999, 2))  # each second image


class Data(NamedTuple):
    """Test images and what is predicted of them."""

    test: Split
    probabilities: np.ndarray


def softmax(logits: np.ndarray) -> np.ndarray:
    parts = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (parts / parts.sum(axis=1, keepdims=True)).astype(np.float32)


def predicted(
    count: int,
    classes: tuple = DIGITS,
    certainty: float = 4,
    shape: tuple = (28, 28, 1),
    disputed: tuple = SECOND,
) -> Data:
    """Predictions of random images, whose numbers begin at 1,000; about nine in ten are correct."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(classes), count)
    logits = rng.normal(size=(count, len(classes))) + certainty * np.eye(len(classes))[labels]
    images = rng.integers(0, 256, (count, *shape), np.uint8)
    height, width, channels = shape
    info = DatasetInfo(
        name="made",
        subject="noise",
        licence="none",
        classes=classes,
        height=height,
        width=width,
        channels=channels,
        images={"test": count},
        disputed=disputed,
    )
    numbers = np.arange(1000, 1000 + count, dtype=np.uint32)
    return Data(Split(images, labels.astype(np.uint8), numbers, info), softmax(logits))


DATA = {
    "digits": predicted(2000),
    "long names": predicted(2000, CLOTHES),
    "two classes": predicted(300, ("ant", "bee")),
    "fifty classes": predicted(900, tuple(f"class number {label}" for label in range(50))),
    "strange names": predicted(100, STRANGE, 2),
    "wide, in colour": predicted(60, ("ant", "bee"), 1, (20, 48, 3), ()),
    "large": predicted(20, ("ant", "bee"), 1, (128, 128, 3)),
    "one image": predicted(1),
    "no errors": predicted(300, certainty=20),
    "only errors": predicted(300, certainty=-20),
}


def confusion(data: Data) -> Image.Image:
    classes = data.test.info.classes
    guesses = data.probabilities.argmax(axis=1)
    counts = scores.confusion_matrix(data.test.labels, guesses, len(classes))
    return pictures.confusion_matrix(counts, classes)


DRAW = {
    "confusion_matrix": confusion,
    "predictions": lambda data: pictures.sample_predictions(*data, 2, 0),
    "misclassified": lambda data: pictures.misclassified(*data, 12),
    "reliability": lambda data: pictures.reliability(
        data.test.labels, data.probabilities, data.probabilities**0.5 / 3
    ),
    "learning_curves": lambda _: pictures.learning_curves(curves(8, 3)),
}


def curves(epochs: int, seeds: int = 1, validation: bool = True) -> dict[int, pd.DataFrame]:
    """Learning curves by seed, each a little different."""
    found = {}
    for seed in range(seeds):
        decay = np.exp(-np.arange(epochs) / 2 - seed / 10)
        found[seed] = pd.DataFrame({"epoch": range(1, epochs + 1)})
        for split, part in (("train", 0.5), ("validation", 0.3))[: 1 + validation]:
            found[seed][f"{split}_accuracy"] = 0.998 - part * decay
            found[seed][f"{split}_loss"] = 0.4 + part * decay
    return found


class Drawn(NamedTuple):
    """A picture, and its texts with their boxes (left, top, right, bottom)."""

    picture: Image.Image
    texts: list[tuple[str, tuple[float, ...]]]

    @property
    def words(self) -> str:
        """All texts: those of the title and the note are broken into lines."""
        return " ".join(text for text, _ in self.texts)

    @property
    def images(self) -> list[tuple[str, list[str], tuple[float, ...]]]:
        """Of each image in a gallery: the text above it, the lines below it, the former's box."""
        found = []
        for text, box in self.texts:
            if "#" in text:
                found.append((text, [], box))
            elif text[:2] in ("✓ ", "✗ "):
                found[-1][1].append(text)
        return found

    @property
    def numbers(self) -> list[int]:
        return [int(above.split("#")[1]) for above, _, _ in self.images]

    def shows(self, image: np.ndarray, box: tuple[float, ...], zoom: int) -> bool:
        """Whether this image, so many times enlarged, is under the text with that box."""
        expected = image.repeat(zoom, axis=0).repeat(zoom, axis=1)
        (height, width, _), pixels = expected.shape, np.asarray(self.picture)
        left, lowest = round((box[0] + box[2]) / 2) - width // 2, round(box[3])
        return any(
            np.array_equal(pixels[top : top + height, x : x + width], expected + 0 * pixels[:1, :1])
            for top in range(lowest, lowest + 20)
            for x in (left - 1, left, left + 1)
        )


def drawn(draw: Callable[[], Image.Image]) -> Drawn:
    """A picture and what is written in it, but for turned texts and those in charts."""
    texts, write = [], ImageDraw.ImageDraw.text

    def record(self, place, text, fill, face, anchor):
        texts.append((self._image, text, self.textbbox(place, text, face, anchor)))
        write(self, place, text, fill, face, anchor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageDraw.ImageDraw, "text", record)
        picture = draw()
    return Drawn(picture, [(text, box) for image, text, box in texts if image is picture])


def figure_of(draw: Callable[[], Image.Image]) -> tuple[Figure, str]:
    """The figure of Matplotlib in a picture, not drawn, and the words around it."""
    figures = []

    def record(title: str, figure: Figure, note: str) -> Image.Image:
        figures.append(figure)
        return style.page(title, (0, 0), note)[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "chart", record)
        words = drawn(draw).words
    return figures[0], words


@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
@pytest.mark.parametrize("name", ["confusion_matrix", "predictions", "misclassified"])
@pytest.mark.filterwarnings("error")
def test_texts_lie_inside_the_picture_and_apart(name: str, data: Data):
    found = drawn(lambda: DRAW[name](data))
    boxes = np.array([box for text, box in found.texts if text.strip()])
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= found.picture.size).all()
    for number, (left, top, right, bottom) in enumerate(boxes):
        x, y, end, low = boxes[:number].T
        covered = (left < end - 1) & (x < right - 1) & (top < low - 1) & (y < bottom - 1)
        assert not covered.any(), f"{found.texts[number]} lies over another text"


@pytest.mark.parametrize("name", ["predictions", "learning_curves"])
def test_the_same_inputs_give_the_same_file(name: str, tmp_path: Path):
    for file in ("one.png", "two.png"):
        drawing.save(DRAW[name](predicted(60)), tmp_path / "new" / file)
    content, again = (path.read_bytes() for path in (tmp_path / "new").iterdir())
    assert content == again
    assert b"atplotlib" not in content, "its version would change the bytes"


def test_what_a_user_has_set_for_matplotlib_changes_nothing(tmp_path: Path):
    """As a file matplotlibrc does, which is loaded with Matplotlib."""
    draw = DRAW["reliability"]
    drawing.save(draw(predicted(60)), tmp_path / "expected.png")
    matplotlib.rc("font", family="monospace", size=30)
    matplotlib.rc("text", usetex=True)
    matplotlib.rc("axes", labelcolor="red")
    matplotlib.rc("savefig", bbox="tight")
    drawing.save(draw(predicted(60)), tmp_path / "found.png")
    assert (tmp_path / "found.png").read_bytes() == (tmp_path / "expected.png").read_bytes()


def test_names_that_cannot_be_drawn_are_numbers_and_long_ones_are_cut():
    assert drawing.names(STRANGE) == [
        *("$$", "class 1", "a_{b}^c", "a name of two lines", "very long…long one", "\\frac")
    ]


def test_confusion_matrix_has_every_count_in_its_place_and_each_recall():
    counts = np.array([[1000, 1, 0], [0, 0, 0], [2, 3, 4]])
    found = drawn(lambda: pictures.confusion_matrix(counts, ("ant", "bee", "cat")))
    assert "6 of 1,010 test images are misclassified" in found.words
    middles = {text: ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2) for text, box in found.texts}
    columns = [middles["1000"][0], middles["1"][0]]
    assert columns[0] < columns[1] < middles["4"][0]
    for text, row, column in (("2", 2, 0), ("3", 2, 1), ("4", 2, 2), ("1", 0, 1)):
        assert middles[text][0] == pytest.approx([*columns, middles["4"][0]][column], abs=4)
        assert middles[text][1] == pytest.approx(
            [middles["1000"][1], 0, middles["4"][1]][row], abs=4
        )
    rows = [
        [text for text, box in found.texts if abs(box[1] - middles[key][1]) < 14] for key in "14"
    ]
    assert rows[0] == ["1,001", "99.9 %", "99.4 % to 99.9 %", "ant", "1000", "1"]
    assert rows[1] == ["9", "44.4 %", "18.9 % to 73.3 %", "cat", "2", "3", "4"]
    pixels = found.picture.load()
    colours = {text: pixels[middles[text][0] - 30, middles[text][1] - 30] for text in ("1000", "1")}
    correct, error = colours["1000"], colours["1"]
    assert correct[2] > 150 > correct[0], "blue"
    assert error[0] - error[2] > 30, "one error in a thousand is clearly orange"


def test_predictions_are_columns_of_classes_with_the_worst_error_last():
    data = predicted(300, ("ant", "bee"), 2, disputed=())
    (images, labels, numbers, info), probabilities = data
    found = drawn(lambda: pictures.sample_predictions(*data, 4, 0))
    assert "4 of each class" in found.words
    indices = [number - 1000 for number in found.numbers]
    assert len(set(indices[:8])) == 8
    for place, index in enumerate(indices):
        above, (below,), box = found.images[place]
        assert found.shows(images[index], box, 7)
        guess, label = probabilities[index].argmax(), labels[index]
        share = scores.percent(probabilities[index].max(), 1)
        assert (label, above) == (place % 2, f"{info.classes[label]}  #{numbers[index]}")
        assert below == f"{'✓' if guess == label else '✗'} {info.classes[guess]}  {share}"
    for label, index in enumerate(indices[8:]):
        wrong = (labels == label) & (probabilities.argmax(axis=1) != label)
        assert index == np.argmax(wrong * probabilities.max(axis=1))
    again, other = (drawn(lambda s=s: pictures.sample_predictions(*data, 4, s)) for s in (0, 1))
    assert found.numbers == again.numbers != other.numbers


def test_of_many_classes_those_with_the_most_errors_are_shown():
    classes = tuple(f"class {label}" for label in range(30))
    data = predicted(900, classes, disputed=())
    labels = data.test.labels
    probabilities = np.eye(30, dtype=np.float32)[labels]
    bad = np.arange(3, 30, 2)[: pictures.MOST_CLASSES]
    probabilities[np.isin(labels, bad)] = np.eye(30, dtype=np.float32)[0]
    found = drawn(lambda: pictures.sample_predictions(data.test, probabilities, 2, 0))
    assert {above.split("  #")[0] for above, _, _ in found.images} == {classes[c] for c in bad}


def test_a_class_without_test_images_has_an_empty_column():
    data = predicted(40, ("ant", "bee", "cat"))
    labels = np.where(data.test.labels == 1, 0, data.test.labels)
    test = data.test._replace(labels=labels)
    found = drawn(lambda: pictures.sample_predictions(test, data.probabilities, 3, 0))
    assert [above[:3] for above, _, _ in found.images][:6] == ["ant", "cat"] * 3
    places = [box[0] for _, _, box in found.images][:2]
    assert places[1] - places[0] > 1.5 * 7 * 28, "the place of `bee` is empty"


def test_without_errors_there_is_no_row_of_errors_and_no_misclassified_image():
    found = drawn(lambda: pictures.sample_predictions(*DATA["no errors"], 3, 0))
    assert len(found.images) == 30
    assert "error" not in found.words
    found = drawn(lambda: pictures.misclassified(*DATA["no errors"], 9))
    words = "0 of 300 test images are misclassified There is no image to show."
    assert found.words == words


def test_misclassified_images_come_most_confident_first_with_two_guesses():
    (test, probabilities) = predicted(40, certainty=20, disputed=())
    test.labels[[3, 17, 21, 30]], probabilities[[3, 17, 21, 30]] = [3, 7, 1, 2], 0
    probabilities[3, [8, 3]], probabilities[17, [2, 9]] = (0.6, 0.3), (0.75, 0.15)
    probabilities[21, [0, 1]], probabilities[30, [5, 2]] = (0.9, 0.1), (0.4, 0.35)
    found = drawn(lambda: pictures.misclassified(test, probabilities, 3))
    assert "4 of 40 test images are misclassified; shown: 3" in found.words
    assert [(above, below) for above, below, _ in found.images] == [
        ("1  #1021", ["✗ 0  90.0 %", "✓ 1  10.0 %"]),
        ("7  #1017", ["✗ 2  75.0 %", "✗ 9  15.0 %"]),
        ("3  #1003", ["✗ 8  60.0 %", "✓ 3  30.0 %"]),
    ]
    assert "second line" in found.words
    assert found.shows(test.images[21], found.images[0][2], 7)


def test_colours_stay_and_pixels_are_square(tmp_path: Path):
    (test, probabilities) = predicted(40, ("ant", "bee"), -20, (20, 48, 3), ())
    found = drawn(lambda: pictures.misclassified(test, probabilities, 9))
    for number, (_, _, box) in zip(found.numbers, found.images, strict=True):
        assert found.shows(test.images[number - 1000], box, 4)
    drawing.save(found.picture, tmp_path / "saved.png")
    with Image.open(tmp_path / "saved.png") as saved:
        assert saved.convert("RGB").tobytes() == found.picture.tobytes(), "not with fewer colours"


def test_light_ink_on_an_empty_ground_is_shown_as_ink_on_paper():
    """As MNIST's; a grey photograph, whatever is in it, stays as it is."""
    (test, probabilities) = predicted(40, ("ant", "bee"), -20)
    ink = np.where(test.images > 200, test.images, 0).astype(np.uint8)
    for images, expected in ((ink, 255 - ink), (test.images, test.images)):
        shown = test._replace(images=images)
        found = drawn(lambda shown=shown: pictures.misclassified(shown, probabilities, 3))
        assert found.shows(expected[found.numbers[0] - 1000], found.images[0][2], 7)


@pytest.mark.parametrize("name", ["predictions", "misclassified"])
def test_disputed_labels_are_marked_and_explained(name: str):
    found = drawn(lambda: DRAW[name](DATA["digits"]))
    marked = ["(?)" in above for above, _, _ in found.images]
    assert marked == [number in SECOND for number in found.numbers]
    assert 0 < sum(marked) < len(marked)
    assert "(?): people doubt the label" in found.words
    undisputed = drawn(lambda: DRAW[name](predicted(300, disputed=())))
    assert "(?)" not in undisputed.words


def test_corruptions_show_each_image_with_its_prediction():
    image = np.zeros((28, 28, 1), np.float32)
    examples = {"none": (image, 3, 1.0), "shot_noise": (image, 3, 0.5), "fog": (image, 5, 0.25)}
    words = drawn(lambda: pictures.corruptions(examples, 3, CLOTHES)).words
    assert "class Dress under 2 corruptions" in words
    parts = ("none ✓ Dress  100.0 %", "shot noise ✓ Dress  50.0 %", "fog ✗ Sandal  25.0 %")
    assert " ".join(parts) in words


@pytest.mark.parametrize(("epochs", "seeds", "validation"), [(1, 3, 1), (60, 1, 1), (8, 2, 0)])
def test_learning_curves_show_every_epoch_of_every_seed(epochs, seeds, validation):
    found = curves(epochs, seeds, validation)
    figure, words = figure_of(lambda: pictures.learning_curves(found))
    splits = ("train", "validation")[: 1 + validation]
    for axes in figure.axes:
        lines = {line.get_label(): line for line in axes.lines}
        assert lines.keys() == {f"{split}, seed {seed}" for split in splits for seed in found}
        for name, line in lines.items():
            split, seed = name.split(", seed ")
            frame = found[int(seed)]
            rates = 100 * (1 - frame[f"{split}_accuracy"])
            expected = rates if axes is figure.axes[0] else frame[f"{split}_loss"]
            np.testing.assert_allclose(line.get_ydata(), expected)
            np.testing.assert_array_equal(line.get_xdata(), np.arange(epochs) + 1)
            assert line.get_marker() in list("os^"), "one epoch is a point, not a line"
    assert {text.get_text() for text in figure.legends[0].get_texts()} == lines.keys()
    last = np.mean([1 - frame[f"{splits[-1]}_accuracy"].iloc[-1] for frame in found.values()])
    assert f"{splits[-1]} error {scores.percent(last)} after" in words


@pytest.mark.parametrize(
    ("last", "lowest"),
    [((0.9965, 0.9964), 0.1), ((0.93, 0.93), 1), ((1.0, 0.9996), 0.01), ((1.0, 0.99), 0.1)],
)
def test_the_axis_of_errors_ends_where_they_end(last: tuple, lowest: float):
    found = {seed: pd.DataFrame({"epoch": [1, 2], "train_loss": [1, 0.5]}) for seed in (0, 1)}
    for frame, accuracy in zip(found.values(), last, strict=True):
        frame["train_accuracy"] = [0.5, accuracy]
    figure, words = figure_of(lambda: pictures.learning_curves(found))
    low, high = figure.axes[0].get_ylim()
    assert (low, high) == pytest.approx((lowest, 100), rel=0.06)
    assert low < lowest
    assert ("0 is drawn at the lower edge" in words) == (1.0 in last)


CHARTS = {
    "reliability": lambda: DRAW["reliability"](DATA["digits"]),
    "one epoch": lambda: pictures.learning_curves(curves(1)),
    "many seeds": lambda: pictures.learning_curves(curves(200, 12)),
    "no errors": lambda: pictures.learning_curves(
        {0: curves(9)[0].assign(train_accuracy=1.0, validation_accuracy=1.0)}
    ),
}


@pytest.mark.parametrize("draw", CHARTS.values(), ids=CHARTS)
def test_all_text_of_a_chart_is_in_the_picture_and_no_legend_lies_on_data(draw):
    figure, _ = figure_of(draw)
    drawn = figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer())  # inches
    assert 0 <= drawn.x0 < drawn.x1 <= figure.get_figwidth()
    assert 0 <= drawn.y0 < drawn.y1 <= figure.get_figheight()
    for legend in figure.findobj(Legend):
        frame = legend.get_window_extent()
        for line in figure.findobj(Line2D):
            if line.axes and line.get_marker() != "None":
                points = line.axes.transData.transform(line.get_xydata())
                assert not any(frame.contains(*point) for point in points), line


def test_runs_that_stopped_early_have_shorter_curves():
    found = curves(8, 2)
    found[1] = found[1][:5]
    figure, _ = figure_of(lambda: pictures.learning_curves(found))
    assert [len(line.get_xdata()) for line in figure.axes[0].lines] == [8, 8, 5, 5]


def groups_by_hand(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Mean stated error, error rate, 95 % interval, all in %, of groups with 5 errors or more."""
    wrong = probabilities.argmax(axis=1) != labels
    rest, found = sorted(zip(1 - probabilities.max(axis=1).astype(float), wrong, strict=True)), []
    for edge in (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, -1):
        group = [row for row in rest if row[0] >= edge]
        stated, errors = np.sum(group or [(0, 0)], axis=0)
        if errors >= 5 or (edge < 0 and group):
            ends = scores.wilson_interval(int(errors), len(group)).values()
            found.append((stated / len(group), errors / len(group), *ends))
            rest = rest[: -len(group)]
    return np.maximum(100 * np.array(found), pictures.LOWEST)


@pytest.mark.parametrize("data", [DATA["digits"], predicted(400), DATA["no errors"]])
def test_reliability_shows_groups_of_errors_as_trained_and_calibrated(data: Data):
    labels, probabilities = data.test.labels, data.probabilities
    before = softmax(np.log(np.maximum(probabilities, 1e-30)) / 2)
    figure, _ = figure_of(lambda: pictures.reliability(labels, probabilities, before))
    (axes,) = figure.axes
    assert axes.get_xlim() == axes.get_ylim() == pictures.PERCENT
    names = ("as trained", "calibrated")
    for bars, values, name in zip(axes.containers, (before, probabilities), names, strict=True):
        points, _, (intervals,) = bars
        expected = groups_by_hand(labels, values)
        np.testing.assert_allclose(points.get_xydata(), expected[:, :2], rtol=1e-6)
        ends = [segment[:, 1] for segment in intervals.get_segments()]
        np.testing.assert_allclose(ends, expected[:, 2:], rtol=1e-6)
        error = 100 * scores.calibration_error(labels, values)
        assert bars.get_label() == f"{name}: calibration error {error:.2f} points"


def test_what_is_not_calibrated_is_not_said_to_be():
    labels, probabilities = DATA["digits"].test.labels, DATA["digits"].probabilities
    figure, words = figure_of(lambda: pictures.reliability(labels, probabilities, probabilities))
    (bars,) = figure.axes[0].containers
    assert bars.get_label().startswith("as trained: ")
    assert "not calibrated" in words
