"""The pictures, drawn of made-up predictions: what can be seen in them, against numpy and scipy."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from scipy import special, stats

from stages.dataset import catalogue
from stages.report import pictures, scores

DIGITS = tuple("0123456789")
CLOTHES = catalogue.find("fashion_mnist").classes
SECOND = range(0, 999, 2)  # each second image


def predicted(count: int, classes: tuple = DIGITS, certainty: float = 4) -> pictures.Predictions:
    """Predictions of random images, each second one disputed; about nine in ten are correct."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(classes), count)
    logits = rng.normal(size=(count, len(classes))) + certainty * np.eye(len(classes))[labels]
    probabilities = special.softmax(logits, axis=1).astype(np.float32)
    images = rng.random((count, 28, 28, 1), np.float32)
    return pictures.Predictions(images, labels, probabilities, classes, SECOND)


DATA = {
    "digits": predicted(2000),
    "long names": predicted(2000, CLOTHES),
    "two classes": predicted(300, ("ant", "bee")),
    "one image": predicted(1),
    "no errors": predicted(300, certainty=20),
    "only errors": predicted(300, certainty=-20),
}
DRAW = {
    "predictions": lambda data: pictures.sample_predictions(data, 2, 0),
    "misclassified": lambda data: pictures.misclassified(data, 12),
    "reliability": lambda data: pictures.reliability(
        data.labels, data.probabilities, data.probabilities**0.5 / 3
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
            found[seed][f"{split}_accuracy"] = 1 - part * decay
            found[seed][f"{split}_loss"] = 0.4 + part * decay
    return found


def assert_readable(figure: Figure) -> None:
    """All texts that are drawn lie inside the figure, and none over another."""
    drawn, draw_text = [], Text.draw

    def record(text: Text, renderer) -> None:
        if text.get_visible() and text.get_text().strip():
            drawn.append(text)
        draw_text(text, renderer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", record)
        FigureCanvasAgg(figure).draw()
    boxes = {text: text.get_window_extent().padded(-1) for text in drawn}
    for number, (text, box) in enumerate(boxes.items()):
        corners = box.get_points()
        inside = np.clip(corners, -2, figure.bbox.max + 2)
        np.testing.assert_array_equal(corners, inside, f"{text} is cut off")
        covered = [other for other in drawn[:number] if box.overlaps(boxes[other])]
        assert not covered, f"{text} lies over another text"


def numbers_of(figure: Figure) -> list[int]:
    return [int(above.split("#")[1]) for above, _, _ in shown(figure)]


def shown(figure: Figure) -> list[tuple[str, list[str], np.ndarray]]:
    """Of each image that is seen: the text above it, the lines below it, and its pixels."""
    (axes,) = figure.axes
    texts = [text.get_text() for text in axes.texts]
    found = zip(texts[::2], texts[1::2], axes.images, strict=True)
    return [(above, below.split("\n"), image.get_array()) for above, below, image in found]


@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
@pytest.mark.parametrize("name", ["predictions", "misclassified", "reliability"])
@pytest.mark.filterwarnings("error")
def test_all_that_is_written_can_be_read(name: str, data: pictures.Predictions):
    assert_readable(DRAW[name](data))


@pytest.mark.parametrize("name", DRAW)
def test_the_same_inputs_give_the_same_file(name: str, tmp_path: Path):
    for file in ("one.png", "two.png"):
        pictures.save(DRAW[name](predicted(60)), tmp_path / "new" / file)
    content, again = (path.read_bytes() for path in (tmp_path / "new").iterdir())
    assert content == again
    assert b"atplotlib" not in content, "its version would change the bytes"


def test_predictions_are_columns_of_classes_with_the_worst_error_last():
    data = predicted(300, ("ant", "bee"), 2)._replace(disputed=())
    images, labels, probabilities, classes, _ = data
    figure = pictures.sample_predictions(data, 4, 0)
    assert "4 of each class" in figure.get_suptitle()
    numbers = numbers_of(figure)
    assert len(set(numbers[:8])) == 8
    for place, number in enumerate(numbers):
        above, (below,), image = shown(figure)[place]
        np.testing.assert_array_equal(image, images[number].squeeze())
        guess, label = probabilities[number].argmax(), labels[number]
        share = scores.percent(probabilities[number].max(), 1)
        assert (label, above) == (place % 2, f"{classes[label]}  #{number}")
        assert below == f"{'✓' if guess == label else '✗'} {classes[guess]}  {share}"
    for label, number in enumerate(numbers[8:]):
        wrong = (labels == label) & (probabilities.argmax(axis=1) != label)
        assert number == np.argmax(wrong * probabilities.max(axis=1))
    assert numbers == numbers_of(pictures.sample_predictions(data, 4, seed=0))
    assert numbers != numbers_of(pictures.sample_predictions(data, 4, seed=1))


def test_without_errors_there_is_no_row_of_errors_and_no_misclassified_image():
    figure = pictures.sample_predictions(DATA["no errors"], 3, 0)
    assert len(shown(figure)) == 30
    assert "error" not in figure.get_suptitle()
    figure = pictures.misclassified(DATA["no errors"], 9)
    assert figure.get_suptitle() == "0 of 300 test images are misclassified"
    assert figure.get_supxlabel() == "There is no image to show."


def test_misclassified_images_come_most_confident_first_with_two_guesses():
    data = predicted(40, certainty=20)._replace(disputed=())
    images, labels, probabilities, *_ = data
    labels[[3, 17, 21, 30]], probabilities[[3, 17, 21, 30]] = [3, 7, 1, 2], 0
    probabilities[3, [8, 3]], probabilities[17, [2, 9]] = (0.6, 0.3), (0.75, 0.15)
    probabilities[21, [0, 1]], probabilities[30, [5, 2]] = (0.9, 0.1), (0.4, 0.35)
    figure = pictures.misclassified(data, 3)
    assert "4 of 40 test images are misclassified; shown: 3" in figure.get_suptitle()
    assert [(above, below) for above, below, _ in shown(figure)] == [
        ("1  #21", ["✗ 0  90.0 %", "✓ 1  10.0 %"]),
        ("7  #17", ["✗ 2  75.0 %", "✗ 9  15.0 %"]),
        ("3  #3", ["✗ 8  60.0 %", "✓ 3  30.0 %"]),
    ]
    np.testing.assert_array_equal(shown(figure)[0][2], images[21].squeeze())


@pytest.mark.parametrize("name", ["predictions", "misclassified"])
def test_disputed_labels_are_marked_and_explained(name: str):
    figure = DRAW[name](DATA["digits"])
    marked = ["(?)" in above for above, _, _ in shown(figure)]
    assert marked == [number in SECOND for number in numbers_of(figure)]
    assert 0 < sum(marked) < len(marked)
    assert "(?): people doubt the label" in figure.get_supxlabel()
    undisputed = DRAW[name](DATA["digits"]._replace(disputed=()))
    assert "(?)" not in undisputed.get_supxlabel()


def test_corruptions_show_each_image_with_its_prediction():
    image = np.zeros((28, 28), np.float32)
    examples = {"none": (image, 3, 1.0), "shot_noise": (image, 3, 0.5), "fog": (image, 9, 0.25)}
    figure = pictures.corruptions(examples, 3, CLOTHES)
    assert "class Dress under 2 corruptions" in figure.get_suptitle()
    assert [above for above, _, _ in shown(figure)] == ["none", "shot noise", "fog"]
    below = [lines for _, lines, _ in shown(figure)]
    assert below == [["✓ Dress  100.0 %"], ["✓ Dress  50.0 %"], ["✗ Ankle boot  25.0 %"]]
    assert_readable(figure)


@pytest.mark.parametrize(("epochs", "seeds", "validation"), [(1, 3, 1), (60, 1, 1), (8, 2, 0)])
def test_learning_curves_show_every_epoch_of_every_seed(epochs, seeds, validation):
    found = curves(epochs, seeds, validation)
    figure = pictures.learning_curves(found)
    assert_readable(figure)
    limits, others = (
        [axes.get_ylim() for axes in each.axes]
        for each in (figure, pictures.learning_curves(curves(9, 2)))
    )
    assert limits == others, "two pictures could not be compared"
    assert limits[0][0] < pictures.LOWEST
    splits = ("train", "validation")[: 1 + validation]
    for axes in figure.axes:
        lines = {line.get_label(): line for line in axes.lines}
        assert lines.keys() == {f"{split}, seed {seed}" for split in splits for seed in found}
        for name, line in lines.items():
            split, seed = name.split(", seed ")
            frame = found[int(seed)]
            rates = (100 * (1 - frame[f"{split}_accuracy"])).clip(pictures.LOWEST)
            expected = rates if axes is figure.axes[0] else frame[f"{split}_loss"]
            np.testing.assert_allclose(line.get_ydata(), expected)
            np.testing.assert_array_equal(line.get_xdata(), np.arange(epochs) + 1)
            assert line.get_marker() in list("os^"), "one epoch is a point, not a line"
    assert {text.get_text() for text in figure.legends[0].get_texts()} == lines.keys()
    last = np.mean([1 - frame[f"{splits[-1]}_accuracy"].iloc[-1] for frame in found.values()])
    assert f"{splits[-1]} error {scores.percent(last)} after" in figure.get_suptitle()


def groups_by_hand(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Mean stated error, error rate, 95 % interval, all in %, of groups with 5 errors or more."""
    wrong = probabilities.argmax(axis=1) != labels
    rest, found = sorted(zip(1 - probabilities.max(axis=1).astype(float), wrong, strict=True)), []
    for edge in (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, -1):
        group = [row for row in rest if row[0] >= edge]
        stated, errors = np.sum(group or [(0, 0)], axis=0)
        if errors >= 5 or (edge < 0 and group):
            ends = stats.binomtest(int(errors), len(group)).proportion_ci(0.95, "wilson")
            found.append((stated / len(group), errors / len(group), ends.low, ends.high))
            rest = rest[: -len(group)]
    return np.maximum(100 * np.array(found), pictures.LOWEST)


@pytest.mark.parametrize("data", [DATA["digits"], predicted(400), DATA["no errors"]])
def test_reliability_shows_groups_of_errors_before_and_after_scaling(data: pictures.Predictions):
    _, labels, probabilities, *_ = data
    before = special.softmax(np.log(np.maximum(probabilities, 1e-30)) / 2, axis=1)
    (axes,) = pictures.reliability(labels, probabilities, before).axes
    assert axes.get_xlim() == axes.get_ylim() == pictures.PERCENT
    for bars, values in zip(axes.containers, (before, probabilities), strict=True):
        points, _, (intervals,) = bars
        expected = groups_by_hand(labels, values)
        np.testing.assert_allclose(points.get_xydata(), expected[:, :2], rtol=1e-6)
        ends = [segment[:, 1] for segment in intervals.get_segments()]
        np.testing.assert_allclose(ends, expected[:, 2:], rtol=1e-6)
        error = 100 * scores.calibration_error(labels, values)
        assert bars.get_label().endswith(f"scaling: calibration error {error:.2f} points")
