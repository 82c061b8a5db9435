"""The temperature, against independent mathematics; how it is used is tested in test_package.py."""

import numpy as np
import pytest
from scipy.special import softmax

from stages.prediction.calibration import FEWEST_IMAGES, fit_temperature


def outcomes(temperature: float, count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels of which softmax(logits / temperature) tells the true probabilities."""
    rng = np.random.default_rng(0)
    logits = 3 * rng.standard_normal((count, 5))
    probabilities = softmax(logits / temperature, axis=1)
    labels = (probabilities.cumsum(axis=1) < rng.random((count, 1))).sum(axis=1)
    return logits.astype(np.float32), labels


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_it_finds_the_temperature_that_makes_probabilities_true(temperature):
    assert fit_temperature(*outcomes(temperature)) == pytest.approx(temperature, rel=0.03)


def test_few_images_that_are_all_correct_do_not_make_it_certain():
    labels = np.arange(120) % 3
    logits = 5 * np.eye(3, dtype=np.float32)[labels]
    value = fit_temperature(logits, labels)
    # Of 120 correct images out of 120, Platt's target for the next is 121 in 122.
    assert softmax(logits / value, axis=1).max() == pytest.approx(121 / 122, abs=1e-3)


def test_too_few_images_leave_probabilities_as_they_are():
    logits, labels = outcomes(0.3)
    assert fit_temperature(logits[: FEWEST_IMAGES - 1], labels[: FEWEST_IMAGES - 1]) == 1
    assert fit_temperature(logits[:FEWEST_IMAGES], labels[:FEWEST_IMAGES]) != 1


def test_the_temperature_has_three_digits_so_that_a_last_bit_does_not_reach_it():
    logits, labels = outcomes(0.7, count=500)
    noise = np.random.default_rng(1).uniform(-1e-6, 1e-6, logits.shape).astype(np.float32)
    value = fit_temperature(logits, labels)
    assert value == float(f"{value:.3g}") == fit_temperature(logits + noise, labels)
