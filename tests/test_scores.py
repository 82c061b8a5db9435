"""Each number against an independent computation: by hand on a tiny case, or by a formula."""

import numpy as np
import pytest

from stages.report import scores
from stages.evaluate import disputed_labels


@pytest.mark.parametrize(
    ("errors", "low", "high"), [(50, 99.34, 99.62), (30, 99.57, 99.79), (20, 99.69, 99.87)]
)
def test_interval_is_wilsons(errors, low, high):
    """By the closed formula, and as published tables round it."""
    n, z = 10_000, 1.959964
    share = 1 - errors / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    found = scores.wilson_interval(n - errors, n)
    assert found["low"] == pytest.approx(centre - half, abs=1e-6)
    assert found["high"] == pytest.approx(centre + half, abs=1e-6)
    assert (round(100 * found["low"], 2), round(100 * found["high"], 2)) == (low, high)


def test_brier_score_by_hand():
    probabilities = np.array([[0.8, 0.2, 0.0], [0.1, 0.1, 0.8], [0.0, 1.0, 0.0]])
    labels = np.array([0, 1, 1])
    first, second, third = 0.2**2 + 0.2**2, 0.1**2 + 0.9**2 + 0.8**2, 0
    assert scores.brier_score(labels, probabilities) == pytest.approx((first + second + third) / 3)


def test_calibration_error_by_hand():
    """Two bins of two images: confidences .6 and .7, one right; .9 and .9, both right."""
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.1, 0.9], [0.3, 0.7]])
    labels = np.array([0, 1, 1, 1])
    expected = (abs(0.65 - 0.5) + abs(0.9 - 1.0)) / 2
    assert scores.calibration_error(labels, probabilities, bins=2) == pytest.approx(expected)


def test_calibration_error_of_a_calibrated_forecaster_is_small_and_of_a_boaster_large():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 50_000)
    labels = (rng.random(50_000) > confidence).astype(int)
    honest = np.stack([confidence, 1 - confidence], axis=1)
    assert scores.calibration_error(labels, honest) < 0.01
    boasting = np.tile([0.999, 0.001], (50_000, 1))
    assert scores.calibration_error(labels, boasting) == pytest.approx(0.249, abs=0.01)


def test_top2_accuracy_counts_the_second_guess():
    probabilities = np.array([[0.6, 0.3, 0.1], [0.6, 0.3, 0.1], [0.6, 0.3, 0.1]])
    found = scores.report(np.array([0, 1, 2]), probabilities, ("a", "b", "c"))
    assert found["accuracy"] == pytest.approx(1 / 3)
    assert found["top2_accuracy"] == pytest.approx(2 / 3)


def test_commonest_confusions_come_first_and_right_answers_never():
    counts = np.array([[90, 1, 0], [4, 80, 2], [0, 0, 70]])
    assert scores.frequent_confusions(counts, ("x", "y", "z"), 2) == {
        "y read as x": 4,
        "y read as z": 2,
    }
    assert scores.frequent_confusions(np.diag([5, 5, 5]), ("x", "y", "z")) == {}


def test_disputed_labels_are_known_for_mnist_only():
    indices = disputed_labels("mnist")
    assert len(set(indices)) == 15
    assert {947, 5937, 9729} <= set(indices)
    assert len(disputed_labels("digits")) == 0
