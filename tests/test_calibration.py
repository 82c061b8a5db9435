"""The temperature, against independent mathematics; how it is used is tested in test_package.py."""

import numpy as np
import pytest
from scipy.special import softmax

from stages.prediction.calibration import fit_temperature, mean_prediction


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


@pytest.mark.parametrize(("count", "classes"), [(100, 2), (120, 3)])
def test_few_images_that_are_all_correct_do_not_make_it_certain(count: int, classes: int):
    logits = np.eye(classes, dtype=np.float32)[np.arange(count) % classes]
    labels = logits.argmax(axis=1)
    # Platt's target for the next image is n + 1 to 1, shared by the other classes.
    exact = 46 / np.log((count + 1) * (classes - 1))
    assert fit_temperature(46 * logits, labels) == float(f"{exact:.3g}")
    assert fit_temperature(1000 * logits, labels) == 20  # at most
    assert fit_temperature(0.01 * logits, labels) == 0.05  # at least
    assert fit_temperature(46 * logits[:99], labels[:99]) == 1  # fewer than a hundred tell nothing


def test_the_temperature_has_three_digits_so_that_a_last_bit_does_not_reach_it():
    logits, labels = outcomes(0.7, count=500)
    noise = np.random.default_rng(1).uniform(-1e-6, 1e-6, logits.shape).astype(np.float32)
    value = fit_temperature(logits, labels)
    assert value == float(f"{value:.3g}") == fit_temperature(logits + noise, labels)


def test_mean_prediction_is_the_mean():
    one, other = np.float32([[0.25, 0.75]]), np.float32([[0.5, 0.5]])
    found = mean_prediction([one, other])
    assert found.dtype == np.float32
    assert found.tolist() == [[0.375, 0.625]]
    three = [np.float32([[value]]) for value in (1, 2**-24, 2**-24)]  # lost in a sum in float32
    assert mean_prediction(three) == np.float32((1 + 2**-23) / 3) != np.float32(1 / 3)
