"""Temperature scaling against a brute-force search, known temperatures and softmax by hand."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss

from stages.prediction import calibration
from stages.network import architecture as network
from stages.base.params import Network
from stages.network.runtime import keras


def outcomes(temperature: float, count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels of which softmax(logits / temperature) tells the true probabilities."""
    rng = np.random.default_rng(0)
    logits = 3 * rng.standard_normal((count, 5))
    probabilities = softmax(logits / temperature, axis=1)
    labels = (probabilities.cumsum(axis=1) < rng.random((count, 1))).sum(axis=1)
    return logits.astype(np.float32), labels


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_it_finds_the_temperature_that_makes_probabilities_true(temperature):
    found = calibration.fit_temperature(*outcomes(temperature))
    assert found == pytest.approx(temperature, rel=0.03)


def test_it_has_the_least_loss_of_all_temperatures():
    logits, labels = outcomes(0.7, count=3000)
    candidates = np.geomspace(0.2, 3, 300)
    losses = [log_loss(labels, softmax(logits / value, axis=1)) for value in candidates]
    best = candidates[int(np.argmin(losses))]
    assert calibration.fit_temperature(logits, labels) == pytest.approx(best, rel=0.02)


def test_few_images_all_read_rightly_do_not_make_it_certain():
    labels = np.arange(10) % 3
    logits = 5 * np.eye(3, dtype=np.float32)[labels]
    value = calibration.fit_temperature(logits, labels)
    # Of ten right answers out of ten, Platt's target for the next is 11 in 12.
    assert softmax(logits / value, axis=1).max() == pytest.approx(11 / 12, abs=1e-3)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(1).random((64, 28, 28, 1), np.float32)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    return network.build(4, Network(crop=2, filters=[4, 8, 8]))


def test_the_network_gives_its_logits_over_the_temperature(model, images):
    labels = np.arange(64) % 4
    unsoftened = network.averaged_logits(model, shift=0)
    scaled, said = calibration.calibrated(unsoftened, images, labels)
    value = calibration.temperature(scaled)
    logits = unsoftened.predict(images)
    assert value == pytest.approx(calibration.fit_temperature(logits, labels))
    assert abs(value - 1) > 0.05
    found = scaled.predict(images, verbose=0)
    np.testing.assert_array_equal(said, found)
    np.testing.assert_allclose(found, softmax(logits / value, axis=1), atol=1e-6)
    np.testing.assert_array_equal(found.argmax(axis=1), model.predict(images).argmax(axis=1))
    before = calibration.unscaled(found, value)
    np.testing.assert_allclose(before, model.predict(images, verbose=0), atol=1e-6)


def test_without_images_it_changes_nothing(model, images):
    logits = network.averaged_logits(model, shift=0)
    scaled, said = calibration.calibrated(logits, images[:0], np.zeros(0, np.uint8))
    assert said.shape == (0, 4)
    assert calibration.temperature(scaled) == 1
    np.testing.assert_allclose(scaled.predict(images), model.predict(images), atol=1e-7)


def test_unscaled_stands_probabilities_of_zero():
    found = calibration.unscaled(np.array([[1, 0, 0]], np.float32), 0.4)
    np.testing.assert_array_equal(found, [[1, 0, 0]])
