"""Each score against an independent computation: by loops, by a closed formula, or by hand."""

from collections.abc import Iterator

import numpy as np
import pytest
from sklearn.metrics import log_loss

from stages.report import scores

CLASSES = ("ant", "bee", "cat", "dog")
DISPUTED = (3, 50, 199)


def example() -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities of 200 images; `dog` never occurs, `cat` is never predicted."""
    rng = np.random.default_rng(0)
    labels = rng.choice(3, 200, p=[0.5, 0.4, 0.1])
    logits = 2 * rng.normal(size=(200, 4)) + 3 * np.eye(4)[labels]
    logits[:, 2] -= 20
    return labels, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


LABELS, PROBABILITIES = example()
ROWS = [(int(label), [float(p) for p in row]) for label, row in zip(*example(), strict=True)]
GUESSES = [max(range(4), key=row.__getitem__) for _, row in ROWS]
CORRECT = [guess == label for guess, (label, _) in zip(GUESSES, ROWS, strict=True)]


def wilson(correct: int, total: int, sign: int) -> float:
    """An end of Wilson's interval by the closed formula (1927, equation 1)."""
    z, share = 1.959964, correct / total
    centre = share + z**2 / (2 * total)
    half = z * np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    return (centre + sign * half) / (1 + z**2 / total)


def calibration_error_by_loops(bins: int = 15) -> float:
    """Sorted by confidence, cut into parts whose sizes differ by one at most, the longer first."""
    ordered = sorted((max(row), correct) for (_, row), correct in zip(ROWS, CORRECT, strict=True))
    size, longer = divmod(len(ordered), bins)
    total = 0.0
    for number in range(bins):
        end = size + (number < longer)
        part, ordered = ordered[:end], ordered[end:]
        total += abs(sum(confidence - correct for confidence, correct in part))
    return total / len(ROWS)


def of_class(measure: str, number: int) -> float:
    """Precision, recall or F1 of a class, from counts; 0 where nothing can be counted."""
    both = sum(guess == label == number for guess, (label, _) in zip(GUESSES, ROWS, strict=True))
    predicted = GUESSES.count(number)
    actual = sum(label == number for label, _ in ROWS)
    whole = {"precision": predicted, "recall": actual, "f1": (predicted + actual) / 2}[measure]
    return both / whole if whole else 0.0


def expected() -> dict[str, float]:
    """Every number that is reported of the example."""
    undisputed = [correct for index, correct in enumerate(CORRECT) if index not in DISPUTED]
    second = [sorted(row)[-2] <= row[label] for label, row in ROWS]
    squares = [
        sum((p - (label == number)) ** 2 for number, p in enumerate(row)) for label, row in ROWS
    ]
    numbers = {
        "accuracy": sum(CORRECT) / 200,
        "errors": 200 - sum(CORRECT),
        "undisputed": sum(undisputed) / 197,
        "loss": log_loss(LABELS, PROBABILITIES, labels=range(4)),
        "ece": calibration_error_by_loops(),
        "accuracy_95.low": wilson(sum(CORRECT), 200, -1),
        "accuracy_95.high": wilson(sum(CORRECT), 200, 1),
        "top2_accuracy": sum(second) / 200,
        "brier_score": sum(squares) / 200,
    }
    for measure in ("precision", "recall", "f1"):
        each = [of_class(measure, number) for number in range(4)]
        numbers |= {f"{measure}.{name}": each[number] for number, name in enumerate(CLASSES)}
        numbers[f"{measure}.macro"] = sum(each) / 4
    return numbers


def flat(report: dict, prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in report.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


FOUND = dict(flat(scores.report(LABELS, PROBABILITIES, CLASSES)))
HEADLINE = scores.headline(LABELS, PROBABILITIES, DISPUTED)


@pytest.mark.parametrize("key", sorted(FOUND.keys() | HEADLINE.keys()))
def test_each_number_is_that_of_an_independent_computation(key):
    assert key in expected(), "a new number needs its check"
    for found in (FOUND, HEADLINE):
        if key in found:
            assert found[key] == pytest.approx(expected()[key], abs=1e-6)


def test_the_example_tells_wrong_computations_apart():
    assert set(expected()) == FOUND.keys() | HEADLINE.keys(), "nothing that is checked got lost"
    assert 0 < HEADLINE["errors"] < 200
    assert calibration_error_by_loops(10) != pytest.approx(HEADLINE["ece"], abs=1e-3)
    assert HEADLINE["undisputed"] != HEADLINE["accuracy"]
    assert FOUND["precision.cat"] == FOUND["recall.dog"] == 0


def test_without_disputed_labels_there_is_no_accuracy_without_them():
    assert "undisputed" not in scores.headline(LABELS, PROBABILITIES)


@pytest.mark.parametrize(
    ("errors", "low", "high"), [(50, 99.34, 99.62), (30, 99.57, 99.79), (20, 99.69, 99.87)]
)
def test_interval_is_wilsons(errors, low, high):
    """As published tables round it."""
    found = scores.wilson_interval(10_000 - errors, 10_000)
    assert (round(100 * found["low"], 2), round(100 * found["high"], 2)) == (low, high)


def test_calibration_error_by_hand():
    """Two bins of two images: confidences .6 and .7, one correct; .9 and .9, both correct."""
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.1, 0.9], [0.3, 0.7]])
    found = scores.calibration_error(np.array([0, 1, 1, 1]), probabilities, bins=2)
    assert found == pytest.approx((abs(0.65 - 0.5) + abs(0.9 - 1.0)) / 2)


def test_calibration_error_is_small_of_true_probabilities_and_large_of_boasts():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 50_000)
    labels = (rng.random(50_000) > confidence).astype(int)
    honest = np.stack([confidence, 1 - confidence], axis=1)
    assert scores.calibration_error(labels, honest) < 0.01
    boasting = np.tile([0.999, 0.001], (50_000, 1))
    assert scores.calibration_error(labels, boasting) == pytest.approx(0.249, abs=0.01)


def test_calibration_error_of_fewer_images_than_bins():
    assert scores.calibration_error(np.array([0]), np.array([[0.75, 0.25]])) == 0.25


def test_a_probability_of_zero_costs_much_but_not_infinitely_much():
    found = scores.accuracy_and_loss(np.array([1]), np.array([[1, 0]], np.float32))
    assert found == {"accuracy": 0, "loss": pytest.approx(87.3, abs=0.1)}


def test_mean_prediction_is_the_mean():
    one, other = np.float32([[0.25, 0.75]]), np.float32([[0.5, 0.5]])
    found = scores.mean_prediction([one, other])
    assert found.dtype == np.float32
    assert found.tolist() == [[0.375, 0.625]]


def test_softmax_of_logits():
    logits = np.float32([[0, np.log(3)], [1000, 0]])
    np.testing.assert_allclose(scores.softmax(logits), [[0.25, 0.75], [1, 0]], atol=1e-6)


def test_the_most_frequent_confusions_come_first_and_correct_predictions_never():
    counts = np.array([[90, 1, 0], [4, 80, 2], [2, 0, 70]])
    found = scores.frequent_confusions(counts, ("x", "y", "z"), 2)
    assert list(found.items()) == [("y predicted as x", 4), ("y predicted as z", 2)]
    assert scores.frequent_confusions(np.diag([5, 5, 5]), ("x", "y", "z")) == {}


def test_across_goes_through_nested_numbers():
    reports = [{"a": 1, "b": {"c": 2}}, {"a": 4, "b": {"c": 8}}]
    assert scores.across(reports, np.mean) == {"a": 2.5, "b": {"c": 5.0}}


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [
        (0.9965, 2, "99.65 %"),
        (1, 2, "100.00 %"),
        (0, 2, "0.00 %"),
        (0.99999, 2, "99.99 %"),
        (0.99996, 1, "99.9 %"),
        (0.00001, 2, "0.01 %"),
        (0.0004, 1, "0.1 %"),
        (0.5, 0, "50 %"),
    ],
)
def test_percent_never_rounds_to_all_or_none(share, digits, text):
    assert scores.percent(share, digits) == text


def test_risk_coverage_area_is_the_mean_error_of_the_most_confident():
    labels = np.array([0, 0, 1, 1])
    confidence = np.array([0.9, 0.8, 0.7, 0.6])
    predicted = np.array([0, 1, 1, 0])  # the second and the last are wrong
    probabilities = np.where(
        predicted[:, None] == [0, 1], confidence[:, None], 1 - confidence[:, None]
    )
    expected = np.mean([0, 1 / 2, 1 / 3, 2 / 4])
    assert scores.risk_coverage_area(labels, probabilities) == pytest.approx(expected)
