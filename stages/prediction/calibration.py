"""Temperature scaling: a trained network's logits divided by one number, so that its probabilities
are true (Guo et al., arXiv 1706.04599). Which class comes first does not change.

Label smoothing makes a network say 91 % where it is right in 99.6 % of cases; the temperature,
found on validation images, takes that back. It is a layer of the network: predictions have it.
"""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from stages.network import saved as models
from stages.network.runtime import keras

LAYER = "temperature"


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature at which softmax(logits / temperature) has the least cross-entropy.

    The label's target is (n + 1) / (n + 2), not 1, and the rest is spread over the other classes
    (Platt, 1999): n images read rightly are no proof that none will ever be misread.

    Args:
        logits: shape (n, classes), n at least 1.
        labels: integers, shape (n,).

    Returns:
        Between e⁻³ and e³.
    """
    count, classes = logits.shape
    target = np.full(logits.shape, 1 / (count + 2) / (classes - 1))
    target[np.arange(count), labels] = (count + 1) / (count + 2)
    logits = logits.astype(np.float64)

    def cross_entropy(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return -float((target * log_softmax(scaled, axis=1)).sum(axis=1).mean())

    return float(np.exp(minimize_scalar(cross_entropy, bounds=(-3, 3), method="bounded").x))


def calibrated(
    model: keras.Model, images: np.ndarray, labels: np.ndarray
) -> tuple[keras.Model, np.ndarray]:
    """A network from images to probabilities, with the temperature that suits these images.

    Args:
        model: from images to logits, shape (N, classes); the result shares its weights.
        images: float32, shape (N, 28, 28, 1), not seen in training; if there are none, the
            temperature is 1, which changes nothing.
        labels: integers, shape (N,).

    Returns:
        The network, and what it says of these images, float32, shape (N, classes).
    """
    logits = np.zeros((0, model.output_shape[1]), np.float32)
    value = 1.0
    if len(labels):
        logits = models.predict(model, images)
        value = fit_temperature(logits, labels)
    rescaling = keras.layers.Rescaling(1 / value, name=LAYER)
    softmax = keras.layers.Softmax(name="calibrated_probabilities")
    network = keras.Model(model.inputs, softmax(rescaling(model.output)), name=model.name)
    return network, np.asarray(softmax(rescaling(logits)))


def temperature(model: keras.Model) -> float:
    """The temperature in a network from `calibrated`."""
    return 1 / model.get_layer(LAYER).scale


def unscaled(probabilities: np.ndarray, value: float) -> np.ndarray:
    """The probabilities that a network would give without its temperature `value`, (N, classes)."""
    powers = probabilities.astype(np.float64) ** value
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
