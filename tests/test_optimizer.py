"""The optimizer against mathematics done elsewhere: numpy's singular value decomposition for the
steps on inner kernels, Keras' own SGD for all other variables.
"""

import numpy as np
import pytest

from stages.network.optimizer import Muon, orthogonalise
from stages.network.runtime import keras, tf

RATE, RATIO, MOMENTUM, DECAY = 0.05, 1.5, 0.8, 0.1


def tiny_model() -> keras.Model:
    """For colour images: a stem, two inner convolutions (one wide, one deep), a classifier."""
    layers = keras.layers
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.Conv2D(2, 3, name="stem"),
            layers.BatchNormalization(name="norm"),
            layers.Conv2D(30, 3, name="wide"),
            layers.Conv2D(4, 3, name="deep"),
            layers.GlobalMaxPooling2D(),
            layers.Dense(3, name="classifier"),
        ]
    )
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:  # biases and offsets that decay could shrink
        variable.assign(rng.normal(size=variable.shape))
    return model


def name_of(variable: keras.Variable) -> str:
    """Layer and role of a variable, like `stem/kernel`, whatever the model is called."""
    return "/".join(variable.path.split("/")[-2:])


def inner(model: keras.Model) -> dict[str, np.ndarray]:
    return {name: model.get_layer(name).kernel.numpy() for name in ("wide", "deep")}


def gradients(model: keras.Model, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [
        rng.normal(size=variable.shape).astype(np.float32) for variable in model.trainable_variables
    ]


def assert_orthogonalised(result: np.ndarray, matrix: np.ndarray) -> None:
    """`result` has the singular vectors of `matrix`, to the same signs, and values of about 1."""
    left, _, right = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    within = left.T @ result @ right.T
    values = np.diag(within)
    assert 0.6 < values.min() <= values.max() < 1.3
    np.testing.assert_allclose(within, np.diag(values), atol=0.01)
    # Nothing outside the space that these vectors span.
    np.testing.assert_allclose(left @ within @ right, result, atol=0.01)


@pytest.mark.parametrize("shape", [(16, 60), (60, 16), (20, 20), (1, 9), (9, 1)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_orthogonalise_keeps_singular_vectors_and_lifts_weak_values_to_about_1(shape, scale):
    left, _, right = np.linalg.svd(np.random.default_rng(0).normal(size=shape), full_matrices=False)
    matrix = (scale * left * np.geomspace(1, 0.01, min(shape)) @ right).astype(np.float32)
    result = orthogonalise(tf.constant(matrix)).numpy()
    assert result.shape == shape
    assert result.dtype == np.float32
    assert_orthogonalised(result, matrix)


def test_orthogonalise_of_zeros_is_zeros():  # so a step without gradients is none
    np.testing.assert_array_equal(orthogonalise(tf.zeros((4, 6))).numpy(), np.zeros((4, 6)))


@pytest.mark.parametrize("name", ["wide", "deep"])
def test_steps_on_inner_kernels_are_the_orthogonalised_nesterov_momentum(name: str):
    model = tiny_model()
    optimizer = Muon(RATE, RATIO, MOMENTUM, DECAY)
    velocity = 0
    for seed in (1, 2, 3):
        kernel = inner(model)[name]
        kernel = kernel * kernel.shape[-1] ** 0.5 / np.linalg.norm(kernel)
        values = gradients(model, seed)
        optimizer.apply(list(map(tf.constant, values)), model.trainable_variables)
        step = (kernel - inner(model)[name]) / (RATE * RATIO)
        names = [name_of(variable) for variable in model.trainable_variables]
        gradient = values[names.index(f"{name}/kernel")]
        velocity = 0.6 * velocity + gradient
        filters = kernel.shape[-1]
        assert_orthogonalised(
            step.reshape(-1, filters), (gradient + 0.6 * velocity).reshape(-1, filters)
        )


@pytest.mark.parametrize("scheduled", [False, True], ids=["constant", "scheduled"])
def test_other_variables_get_exactly_the_steps_of_keras_sgd(scheduled: bool):
    def rate():
        schedules = keras.optimizers.schedules
        return schedules.PolynomialDecay(RATE, 3, RATE / 10) if scheduled else RATE

    ours, theirs = tiny_model(), tiny_model()
    before = [variable.numpy() for variable in ours.trainable_variables]
    muon = Muon(rate(), RATIO, MOMENTUM, DECAY)
    sgd = keras.optimizers.SGD(rate(), MOMENTUM, nesterov=True, weight_decay=DECAY)
    sgd.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    for seed in (1, 2, 3):
        values = gradients(ours, seed)
        for optimizer, model in ((muon, ours), (sgd, theirs)):
            optimizer.apply(list(map(tf.constant, values)), model.trainable_variables)
    compared = 0
    for start, mine, other in zip(
        before, ours.trainable_variables, theirs.trainable_variables, strict=True
    ):
        assert not np.array_equal(mine.numpy(), start)
        if name_of(mine) not in ("wide/kernel", "deep/kernel"):
            np.testing.assert_array_equal(mine.numpy(), other.numpy(), err_msg=name_of(mine))
            compared += 1
    assert compared == len(before) - 2
