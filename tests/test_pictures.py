"""The pictures, drawn of made-up predictions: what can be seen in them, against numpy and scipy."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from scipy import special, stats
from sklearn.metrics import confusion_matrix

from stages.report import pictures, scores

DIGITS = tuple("0123456789")
CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat")
CLOTHES += ("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
NAMES = ("predictions", "misclassified", "confusion_matrix", "reliability", "learning_curves")


def predicted(count: int, classes: tuple[str, ...] = DIGITS, certainty: float = 4) -> tuple:
    """Images, labels, probabilities and classes; by default about nine in ten are correct."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(classes), count)
    logits = rng.normal(size=(count, len(classes))) + certainty * np.eye(len(classes))[labels]
    probabilities = special.softmax(logits, axis=1).astype(np.float32)
    return rng.random((count, 28, 28, 1), np.float32), labels, probabilities, classes


def curves(epochs: int, seeds: int = 1, validation: bool = True) -> dict[int, pd.DataFrame]:
    """Learning curves by seed, each a little different."""
    found = {}
    for seed in range(seeds):
        decay = np.exp(-np.arange(epochs) / 2 - seed / 10)
        frame = pd.DataFrame({"epoch": np.arange(epochs) + 1})
        for split, part in {"train": 0.5, "validation": 0.3}.items():
            frame[f"{split}_accuracy"] = 1 - part * decay
            frame[f"{split}_loss"] = 0.5 + part * decay
        found[seed] = frame if validation else frame.drop(columns=frame.columns[3:])
    return found


def draw(name: str, data: tuple) -> Figure:
    _, labels, probabilities, classes = data
    if name == "predictions":
        return pictures.sample_predictions(*data, 2, 0, disputed=range(0, 999, 2))
    if name == "misclassified":
        return pictures.misclassified(*data, 12, disputed=range(0, 999, 2))
    if name == "confusion_matrix":
        predictions = probabilities.argmax(axis=1)
        counts = confusion_matrix(labels, predictions, labels=range(len(classes)))
        return pictures.confusion_matrix(counts, classes)
    if name == "reliability":
        return pictures.reliability(labels, probabilities, np.sqrt(probabilities) / 3)
    return pictures.learning_curves(curves(8, 3))


def seen(figure: Figure) -> list[Text]:
    """The texts that are drawn, not all that there are: labels beyond an axis are not."""
    found, draw_text = [], Text.draw

    def record(text: Text, renderer) -> None:
        if text.get_visible() and text.get_text().strip():
            found.append(text)
        draw_text(text, renderer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", record)
        FigureCanvasAgg(figure).draw()
    return found


def assert_readable(figure: Figure) -> None:
    """All texts lie inside the figure, and none over another."""
    texts = [(text.get_text(), text.get_window_extent().padded(-1)) for text in seen(figure)]
    for number, (text, box) in enumerate(texts):
        assert box.x0 > -2 < box.y0, f"{text!r} is cut off"
        assert box.x1 < figure.bbox.x1 + 2, f"{text!r} is cut off"
        assert box.y1 < figure.bbox.y1 + 2, f"{text!r} is cut off"
        covered = [other for other, place in texts[:number] if box.overlaps(place)]
        assert not covered, f"{text!r} lies over {covered}"


def title_of(figure: Figure) -> str:
    return figure.get_suptitle()


def note_of(figure: Figure) -> str:
    return figure.get_supxlabel()


def shown(figure: Figure) -> list[tuple[str, list[str], Axes]]:
    """Of each image that is seen: the text above it, the lines below it, and its axes."""
    return [
        (axes.get_title(), axes.get_xlabel().split("\n"), axes)
        for axes in figure.axes
        if axes.images and axes.axison
    ]


DATA = {
    "digits": predicted(2000),
    "long names": predicted(2000, CLOTHES),
    "two classes": predicted(300, ("ant", "bee")),
    "one image": predicted(1),
    "no errors": predicted(300, certainty=20),
    "only errors": predicted(300, certainty=-20),
    "a class without images": tuple(part[predicted(300)[1] != 3] for part in predicted(300)[:3])
    + (DIGITS,),
}


@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
@pytest.mark.parametrize("name", NAMES[:4])
@pytest.mark.filterwarnings("error")
def test_all_that_is_written_can_be_read(name: str, data: tuple):
    assert_readable(draw(name, data))


@pytest.mark.parametrize(
    ("epochs", "seeds", "validation"), [(1, 3, True), (8, 3, True), (60, 1, 0)]
)
def test_what_is_written_in_learning_curves_can_be_read(epochs, seeds, validation):
    assert_readable(pictures.learning_curves(curves(epochs, seeds, validation)))


def test_texts_that_overlap_or_are_cut_off_are_found():
    figure = Figure()
    figure.text(0.5, 0.5, "one")
    assert_readable(figure)
    late = figure.text(0.5, 0.51, "two")
    with pytest.raises(AssertionError, match="lies over"):
        assert_readable(figure)
    late.set(x=0.99)
    with pytest.raises(AssertionError, match="cut off"):
        assert_readable(figure)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_inputs_give_the_same_small_file(name: str, tmp_path: Path):
    paths = [tmp_path / "new" / "one.png", tmp_path / "new" / "two.png"]
    for path in paths:
        pictures.save(draw(name, predicted(60)), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert b"matplotlib" not in paths[0].read_bytes()
    assert len(paths[0].read_bytes()) < 150_000
    assert sorted(paths[0].parent.iterdir()) == paths
    assert Image.open(paths[0]).convert("L").getextrema() < (100, 256)


def test_predictions_are_columns_of_classes_with_the_worst_error_last():
    images, labels, probabilities, classes = predicted(300, ("ant", "bee"), certainty=2)
    figure = pictures.sample_predictions(images, labels, probabilities, classes, 4, 0)
    assert "4 of each class" in title_of(figure)
    cells = shown(figure)
    assert [above.split()[0] for above, _, _ in cells] == ["ant", "bee"] * 5
    numbers = [int(above.split("#")[1]) for above, _, _ in cells]
    assert len(set(numbers[:8])) == 8
    for number, (_, (below,), axes) in zip(numbers, cells, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), images[number].squeeze())
        guess = probabilities[number].argmax()
        mark = "✓" if guess == labels[number] else "✗"
        share = scores.percent(probabilities[number].max(), 1)
        assert below == f"{mark} {classes[guess]}  {share}"
    for label, number in enumerate(numbers[-2:]):
        wrong = (labels == label) & (probabilities.argmax(axis=1) != label)
        assert probabilities[number].max() == probabilities[wrong].max()


def test_predictions_are_drawn_by_the_seed_and_have_no_last_row_without_errors():
    data = predicted(300, certainty=20)
    figures = [pictures.sample_predictions(*data, 3, seed) for seed in (0, 0, 1)]
    one, same, other = ([above for above, _, _ in shown(figure)] for figure in figures)
    assert len(one) == 30
    assert one == same != other
    assert "error" not in title_of(figures[0])


def test_misclassified_images_come_most_confident_first_with_two_guesses():
    images, labels, probabilities, classes = predicted(40, certainty=20)
    labels[[3, 17, 21, 30]] = [3, 7, 1, 2]
    probabilities[[3, 17, 21, 30]] = 0
    probabilities[3, [8, 3, 5]] = 0.6, 0.3, 0.1
    probabilities[17, [2, 9, 7]] = 0.75, 0.15, 0.1
    probabilities[21, [0, 1]] = 0.9, 0.1
    probabilities[30, [5, 2, 6]] = 0.4, 0.35, 0.25
    figure = pictures.misclassified(images, labels, probabilities, classes, 3)
    assert "4 of 40 test images are misclassified; shown: 3" in title_of(figure)
    assert [(above, below) for above, below, _ in shown(figure)] == [
        ("1  #21", ["✗ 0  90.0 %", "✓ 1  10.0 %"]),
        ("7  #17", ["✗ 2  75.0 %", "✗ 9  15.0 %"]),
        ("3  #3", ["✗ 8  60.0 %", "✓ 3  30.0 %"]),
    ]
    np.testing.assert_array_equal(shown(figure)[0][2].images[0].get_array(), images[21].squeeze())


@pytest.mark.parametrize("name", NAMES[:2])
def test_disputed_labels_are_marked_and_explained(name: str):
    data = predicted(60)
    figure = draw(name, data)  # each second image is disputed
    marks = [("(?)" in above, int(above.split("#")[1]) % 2) for above, _, _ in shown(figure)]
    assert set(marks) == {(True, 0), (False, 1)}
    assert "(?): people doubt the label" in note_of(figure)
    for plain in (pictures.misclassified(*data, 5), pictures.sample_predictions(*data, 1, 0)):
        assert "(?)" not in " ".join(text.get_text() for text in seen(plain))


def test_without_errors_the_picture_of_misclassified_images_says_so():
    figure = pictures.misclassified(*predicted(50, certainty=20), 9)
    assert title_of(figure) == "0 of 50 test images are misclassified"
    assert note_of(figure) == "There is no image to show."


def test_corruptions_show_each_image_with_its_prediction():
    images = np.random.default_rng(0).random((3, 28, 28), np.float32)
    examples = {"none": (images[0], 3, 1.0), "shot_noise": (images[1], 3, 0.5)}
    figure = pictures.corruptions(examples | {"fog": (images[2], 9, 0.25)}, 3, CLOTHES)
    assert "class Dress under 2 corruptions" in title_of(figure)
    assert [(above, below) for above, below, _ in shown(figure)] == [
        ("none", ["✓ Dress  100.0 %"]),
        ("shot noise", ["✓ Dress  50.0 %"]),
        ("fog", ["✗ Ankle boot  25.0 %"]),
    ]
    assert_readable(figure)
    frames = [axes.spines["left"].get_linewidth() for _, _, axes in shown(figure)]
    assert frames[0] == frames[1] < frames[2] / 2, "not told apart by colour alone"


def test_the_confusion_matrix_shows_counts_and_recall():
    counts = np.array([[5, 2, 0], [0, 99_999, 1], [3, 0, 4]])
    figure = pictures.confusion_matrix(counts, ("a", "b", "c"))
    texts = [text.get_text() for text in seen(figure)]
    assert "6 errors in 100,014 test images" in texts
    for text in ("5", "2", "99,999", "1", "3", "4", "71.4 %", "99.9 %", "57.1 %"):
        assert texts.count(text) == 1, text
    assert texts.count("·") == 3
    correct, wrong = (image.get_array() for image in figure.axes[0].images)
    np.testing.assert_array_equal(np.isnan(correct), ~np.eye(3, dtype=bool))
    np.testing.assert_allclose(wrong[[0, 1, 2], [1, 2, 0]], [2 / 7, 1e-5, 3 / 7])
    assert np.isnan(wrong).sum() == 6


@pytest.mark.parametrize(("epochs", "seeds", "validation"), [(1, 1, True), (8, 3, True), (8, 2, 0)])
def test_learning_curves_show_every_epoch_of_every_seed(epochs, seeds, validation):
    found = curves(epochs, seeds, validation)
    figure = pictures.learning_curves(found)
    splits = ("train", "validation") if validation else ("train",)
    for axes, measure in zip(figure.axes, ("accuracy", "loss"), strict=True):
        lines = {line.get_label(): line for line in axes.lines}
        assert lines.keys() == {f"{split}, seed {seed}" for split in splits for seed in found}
        for name, line in lines.items():
            split, seed = name.split(", seed ")
            values = found[int(seed)][f"{split}_{measure}"]
            expected = values if measure == "loss" else 100 * (1 - values)
            np.testing.assert_allclose(line.get_ydata(), expected)
            assert list(line.get_xdata()) == list(range(1, epochs + 1))
            assert line.get_marker() in list("os^"), "one epoch is a point, not a line"
        looks = {(line.get_color(), line.get_linestyle()) for line in axes.lines}
        assert len(looks) == len(lines)
        ticks = [tick for tick in axes.get_xticks() if 0.5 <= tick <= epochs + 0.5]
        assert set(ticks) <= set(range(1, epochs + 1))
    assert {text.get_text() for text in figure.legends[0].get_texts()} == lines.keys()
    last = np.mean([1 - frame[f"{splits[-1]}_accuracy"].iloc[-1] for frame in found.values()])
    assert f"{splits[-1]} error {scores.percent(last)} after epoch {epochs}" in title_of(figure)


def test_learning_curves_without_an_error_stay_visible_on_the_same_axes():
    perfect = curves(3)
    perfect[0]["validation_accuracy"] = [0.9, 1.0, 1.0]
    error, loss = pictures.learning_curves(perfect).axes
    _, validation = error.lines
    low, high = error.get_ylim()
    np.testing.assert_allclose(validation.get_ydata(), [10, pictures.LOWEST, pictures.LOWEST])
    assert low < pictures.LOWEST
    others = pictures.learning_curves(curves(9, 2)).axes
    assert [axes.get_ylim() for axes in others] == [(low, high), loss.get_ylim()]


def groups_by_hand(labels: np.ndarray, probabilities: np.ndarray) -> list[tuple]:
    """Mean stated error, error rate, 95 % interval, all in %, of groups with 5 errors or more."""
    edges = [1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0]
    rows = sorted(
        (1 - float(max(row)), np.argmax(row) != label) for row, label in zip(probabilities, labels)
    )
    found, group = [], []
    for edge in edges[1:]:
        group += [row for row in rows if row[0] >= edge]
        rows = [row for row in rows if row[0] < edge]
        errors = sum(wrong for _, wrong in group)
        if errors >= 5 or (group and not edge):
            ends = stats.binomtest(int(errors), len(group)).proportion_ci(0.95, "wilson")
            stated = np.mean([said for said, _ in group])
            found.append((100 * stated, 100 * errors / len(group), 100 * ends.low, 100 * ends.high))
            group = []
    return found


@pytest.mark.parametrize("data", [predicted(2000), predicted(9), predicted(300, certainty=20)])
def test_reliability_shows_groups_of_errors_before_and_after_scaling(data):
    _, labels, probabilities, _ = data
    before = special.softmax(np.log(np.maximum(probabilities, 1e-30)) / 2, axis=1)
    (axes,) = pictures.reliability(labels, probabilities, before).axes
    assert axes.get_xlim() == axes.get_ylim()
    for bars, values in zip(axes.containers, (before, probabilities), strict=True):
        points, _, (intervals,) = bars
        expected = np.maximum(groups_by_hand(labels, values), pictures.LOWEST)
        np.testing.assert_allclose(points.get_xydata(), expected[:, :2], rtol=1e-6)
        ends = np.array([segment[:, 1] for segment in intervals.get_segments()])
        np.testing.assert_allclose(ends, expected[:, 2:], rtol=1e-6)
        error = 100 * scores.calibration_error(labels, values)
        assert bars.get_label().endswith(
            f"temperature scaling: calibration error {error:.2f} points"
        )
