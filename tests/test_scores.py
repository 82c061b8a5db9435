"""Each score against an independent computation: by loops, by a closed formula, or by hand."""

from collections.abc import Iterator

import numpy as np
import pytest

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


def wilson(correct: int, total: int, sign: int) -> float:
    """An end of Wilson's interval by the closed formula (1927, equation 1)."""
    z, share = 1.959964, correct / total
    centre = share + z**2 / (2 * total)
    half = z * np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    return (centre + sign * half) / (1 + z**2 / total)


def calibration_error_by_loops(rows: list, correct: list[bool], bins: int = 15) -> float:
    """Sorted by confidence, cut into parts whose sizes differ by one at most, the longer first."""
    ordered = sorted(zip(map(max, rows), correct, strict=True), key=lambda pair: pair[0])
    size, longer = divmod(len(ordered), bins)
    total = 0.0
    for number in range(bins):
        end = size + (number < longer)
        part, ordered = ordered[:end], ordered[end:]
        total += abs(sum(confidence - right for confidence, right in part))
    return total / len(rows)


def expected(
    labels: np.ndarray, probabilities: np.ndarray, names: tuple[str, ...], disputed: tuple = ()
) -> dict[str, float]:
    """Every number that is reported of predictions, by loops; test_evaluate.py uses it, too."""
    rows = [[float(p) for p in row] for row in probabilities]
    labels = [int(label) for label in labels]
    classes, count = range(len(names)), len(rows)
    guesses = [max(classes, key=row.__getitem__) for row in rows]
    correct = [guess == label for guess, label in zip(guesses, labels, strict=True)]
    undisputed = [right for index, right in enumerate(correct) if index not in disputed]
    numbers = {
        "accuracy": sum(correct) / count,
        "errors": count - sum(correct),
        "undisputed": sum(undisputed) / len(undisputed),
        "loss": -sum(np.log(row[label]) for row, label in zip(rows, labels, strict=True)) / count,
        "ece": calibration_error_by_loops(rows, correct),
        "accuracy_95.low": wilson(sum(correct), count, -1),
        "accuracy_95.high": wilson(sum(correct), count, 1),
        "top2_accuracy": sum(
            sorted(row)[-2] <= row[label] for row, label in zip(rows, labels, strict=True)
        )
        / count,
        "brier_score": sum(
            (p - (label == number)) ** 2
            for row, label in zip(rows, labels, strict=True)
            for number, p in enumerate(row)
        )
        / count,
    }
    both = [sum(g == a == n for g, a in zip(guesses, labels, strict=True)) for n in classes]
    predicted, actual = ([values.count(n) for n in classes] for values in (guesses, labels))
    for measure, wholes in (
        ("precision", predicted),
        ("recall", actual),
        ("f1", [(one + other) / 2 for one, other in zip(predicted, actual, strict=True)]),
    ):
        each = [part / whole if whole else 0.0 for part, whole in zip(both, wholes, strict=True)]
        present = [(names[n], each[n]) for n in classes if actual[n]]
        numbers |= {f"{measure}.{name}": value for name, value in present}
        numbers[f"macro.{measure}"] = sum(value for _, value in present) / len(present)
    if max(actual) > 1.5 * min(filter(None, actual)):
        for name, measure in (("balanced_accuracy", "recall"), ("macro_f1", "f1")):
            numbers[name] = numbers[f"macro.{measure}"]
    return numbers


def flat(report: dict, prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in report.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def without_intervals(values: dict) -> dict:
    """Without those of balanced_accuracy and macro_f1."""
    intervals = ("balanced_accuracy_95", "macro_f1_95")
    return {key: values[key] for key in values if not any(name in key for name in intervals)}


def test_each_number_is_that_of_an_independent_computation():
    """A number without a check fails, and so does a check without its number."""
    found = dict(flat(scores.report(LABELS, PROBABILITIES, CLASSES)))
    headline = dict(flat(scores.headline(LABELS, PROBABILITIES, DISPUTED)))
    assert headline.items() >= {key: found[key] for key in ("accuracy", "loss", "ece")}.items()
    numbers = expected(LABELS, PROBABILITIES, CLASSES, DISPUTED)
    assert without_intervals(found | headline) == pytest.approx(numbers, abs=1e-6)
    # The example tells wrong computations apart.
    assert 0 < headline["errors"] < 200
    assert headline["undisputed"] != headline["accuracy"]
    assert found["precision.cat"] == 0
    assert found["macro_f1"] != found["balanced_accuracy"] != found["accuracy"]


@pytest.mark.parametrize("sizes", [(200, 10), (5, 20, 80, 300)])
@pytest.mark.parametrize("recall", [0.8, 0.95, 0.99])
def test_intervals_of_unequal_classes_hold_the_true_score_in_most_test_sets(sizes, recall):
    """Few images of a class are often all correct, by chance: the score is not certain then."""
    rng, held = np.random.default_rng(1), 0
    for _ in range(300):
        correct = rng.binomial(sizes, recall)
        counts = np.diag(correct)
        counts[range(len(sizes)), range(-1, len(sizes) - 1)] += sizes - correct
        found = scores.balanced(counts)
        ends = found["balanced_accuracy_95"]
        assert ends["low"] <= found["balanced_accuracy"] <= ends["high"]
        held += ends["low"] <= recall <= ends["high"]
    assert held > 0.85 * 300


def test_without_errors_the_intervals_are_as_wide_as_the_images_are_few():
    labels = np.repeat([0, 1], (46, 30))
    found = scores.report(labels, np.eye(2)[labels], ("x", "y"))
    assert found["accuracy_95"]["low"] > found["balanced_accuracy_95"]["low"] > 0.9
    assert found["macro_f1_95"]["high"] == 1


@pytest.mark.parametrize(("sizes", "unequal"), [((30, 30), False), ((46, 30), True), ((30, 0), 0)])
def test_classes_of_about_the_same_size_need_no_balanced_scores(sizes, unequal):
    labels = np.repeat([0, 1], sizes)
    found = scores.headline(labels, np.eye(2)[labels])
    assert ("balanced_accuracy" in found) == ("macro_f1" in found) == bool(unequal)


@pytest.mark.filterwarnings("error")
def test_a_class_without_test_images_is_left_out_and_its_predictions_are_errors():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    found = scores.report(np.array([0, 1, 1]), probabilities, ("x", "y", "macro"))
    assert found["recall"] == {"x": 1, "y": 0.5}
    assert found["f1"] == {"x": 1, "y": pytest.approx(2 / 3)}
    assert found["macro"]["recall"] == found["balanced_accuracy"] == 0.75


def test_confusion_matrix_has_labels_in_rows():
    labels = np.array([0, 0, 2, 2, 2], np.uint8)
    predicted = np.array([0, 2, 1, 2, 2])
    found = scores.confusion_matrix(labels, predicted, 4)
    assert found.tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 2, 0], [0, 0, 0, 0]]
    many = np.full(3, 199, np.uint8)
    assert scores.confusion_matrix(many, many, 200)[199, 199] == 3


@pytest.mark.parametrize(("successes", "trials"), [(0, 7), (7, 7), (1, 2), (9965, 10_000)])
def test_wilson_interval_ends_where_the_share_is_1_96_standard_errors_away(successes, trials):
    found, share = scores.wilson_interval(successes, trials), successes / trials
    for end in found.values():
        away = 1.959964 * np.sqrt(end * (1 - end) / trials)
        assert abs(share - end) == pytest.approx(away, abs=1e-7)
    assert found["low"] <= share <= found["high"]
    assert (found["low"] == 0) == (successes == 0)
    assert (found["high"] == 1) == (successes == trials)


def test_of_no_image_any_share_is_possible():
    assert scores.wilson_interval(0, 0) == {"low": 0, "high": 1}


def test_without_disputed_labels_there_is_no_accuracy_without_them():
    assert "undisputed" not in scores.headline(LABELS, PROBABILITIES)


def test_calibration_error_of_fewer_images_than_bins():
    assert scores.calibration_error(np.array([0]), np.array([[0.75, 0.25]])) == 0.25


def test_a_probability_of_zero_costs_much_but_not_infinitely_much():
    found = scores.headline(np.array([1]), np.array([[1, 0]], np.float32))
    assert found["loss"] == pytest.approx(87.3, abs=0.1)


def test_calibration_does_not_depend_on_how_equal_confidences_are_sorted():
    rng = np.random.default_rng(0)
    confidence = rng.choice([0.6, 0.7, 0.8], 3000)
    labels = (rng.random(3000) > confidence).astype(int)  # gaps of either sign
    rows = np.stack([confidence, 1 - confidence], axis=1)
    by_loops = calibration_error_by_loops(rows.tolist(), (labels == 0).tolist())
    assert scores.calibration_error(labels, rows) == pytest.approx(by_loops, abs=1e-12)


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [
        *((0.9965, 2, "99.65 %"), (1, 2, "100.00 %"), (0, 2, "0.00 %"), (0.5, 0, "50 %")),
        *((0.99999, 2, "99.99 %"), (0.99996, 1, "99.9 %"), (0.00001, 2, "0.01 %")),
        *((1e-12, 8, "0.00000001 %"), (0.0004, 1, "0.1 %")),
    ],
)
def test_percent_never_rounds_to_all_or_none(share, digits, text):
    assert scores.percent(share, digits) == text
    assert scores.percent(share) == scores.percent(share, 2)


def test_risk_coverage_area_is_the_mean_error_of_the_most_confident():
    labels = np.array([1, 0, 0, 1])
    confidence = np.array([0.7, 0.9, 0.8, 0.6])
    predicted = np.array([1, 0, 1, 0])  # the third, second in confidence, and the last are wrong
    probabilities = np.where(
        predicted[:, None] == [0, 1], confidence[:, None], 1 - confidence[:, None]
    )
    expected = np.mean([0, 1 / 2, 1 / 3, 2 / 4])
    assert scores.risk_coverage_area(labels, probabilities) == pytest.approx(expected)
    two = np.tile([[0.6, 0.4], [0.7, 0.3]], (50, 1))  # of equal ones, the first comes first
    risks = np.cumsum(np.arange(100) % 2) / np.arange(1, 101)
    assert scores.risk_coverage_area(np.arange(100) // 2 % 2, two) == pytest.approx(risks.mean())
