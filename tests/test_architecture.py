"""The model's architecture: Keras' own layers, sizes, and what its documentation says of it."""

import numpy as np
import pytest
from scipy.special import softmax

from stages.base.settings import Network
from stages.base.stage import UserError
from stages.network import architecture as network
from stages.network.runtime import keras, tf

FILTERS = [3, 4, 5]


def some_images(count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).random((count, 28, 28, 1), np.float32)


def outputs(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(images, training=False))


def small_network(crop: int = 2) -> keras.Model:
    keras.utils.set_random_seed(0)
    return network.build((28, 28, 1), 10, Network(crop=crop, filters=FILTERS))


def test_what_is_kept_is_made_of_stock_keras_layers_and_predicts_the_same():
    model = small_network()
    kept = network.with_keras_layers(model)
    again = keras.Model.from_config(kept.get_config())  # no custom objects needed
    assert again.count_params() == model.count_params()
    found = kept.predict(some_images(), verbose=0)
    np.testing.assert_allclose(found, outputs(model, some_images()), atol=1e-6)


def convolution(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """As many outputs as inputs per axis over the stride; zeros outside, the odd one at the end."""
    size, side = len(kernel), x.shape[1]
    lacking = (-(-side // stride) - 1) * stride + size - side
    edges = (lacking // 2, lacking - lacking // 2)
    x = np.pad(x, ((0, 0), edges, edges, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))
    return np.einsum("nyxcij,ijcf->nyxf", windows[:, ::stride, ::stride], kernel)


@pytest.mark.parametrize(
    ("classes", "crop", "filters"),
    [(2, 0, [1, 1, 1]), (10, 2, [2, 3, 4, 5, 6]), (47, 5, [8, 3, 5])],
)
def test_it_computes_what_its_documentation_draws(classes: int, crop: int, filters: list[int]):
    model = network.build((28, 28, 1), classes, Network(crop=crop, filters=filters))
    assert model.input_shape == (None, 28, 28, 1)
    rng = np.random.default_rng(0)
    weights = [rng.uniform(-1, 1, weight.shape) for weight in model.get_weights()]
    weights[4:-2:5] = [rng.uniform(0.1, 2, each.shape) for each in weights[4:-2:5]]  # variances
    model.set_weights(weights)
    x = some_images()[:, crop : 28 - crop, crop : 28 - crop].astype(float)
    axes = {"axis": (1, 2, 3), "keepdims": True}
    x = (x - x.mean(**axes)) / np.sqrt(x.var(**axes) + 1e-5)
    for index in range(len(filters)):
        kernel, gamma, beta, mean, variance = weights[5 * index : 5 * index + 5]
        assert kernel.shape == (*((3, 3) if index else (5, 5)), x.shape[-1], filters[index])
        x = convolution(x, kernel, 1 if index else 2)
        if index and x.shape[1] > 4:
            half = x.shape[1] // 2
            x = x[:, : 2 * half, : 2 * half].reshape(len(x), half, 2, half, 2, -1).max(axis=(2, 4))
        x = (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta
        x = np.maximum(x, 0) if index else np.abs(x)
    expected = softmax(x.max(axis=(1, 2)) @ weights[-2] + weights[-1], axis=1)
    found = outputs(model, some_images())
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "depth"), [((16, 16, 1), 3), ((64, 64, 3), 4), ((128, 96, 3), 5), ((20, 24, 1), 3)]
)
def test_depth_follows_the_size_of_the_images(shape, depth):
    model = network.build(shape, 200, Network(crop=0, filters=FILTERS))
    kernels = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(kernels) == depth
    assert max(model.get_layer("global_pool").input.shape[1:3]) <= 5
    assert outputs(model, np.zeros((2, *shape), np.float32)).shape == (2, 200)


def test_a_crop_that_leaves_nothing_is_refused():
    with pytest.raises(UserError, match=r"train\.network\.crop: expected at most 6 .* found 7"):
        network.build((20, 24, 1), 10, Network(crop=7, filters=FILTERS))


def test_number_of_parameters_and_size_of_initial_weights():
    model = network.build((28, 28, 1), 10, Network(crop=2, filters=[32, 64, 128, 128]))
    assert model.count_params() == 243_114
    kernel = model.get_layer("conv3").kernel.numpy()
    assert kernel.std() == pytest.approx(np.sqrt(2 / (3 * 3 * 128)), rel=0.02)  # He's


@pytest.mark.parametrize("change", [lambda x: 0.3 * x + 0.5, lambda x: 0.7 - 0.1 * x])
def test_brightness_contrast_and_polarity_do_not_count(change):
    """Inverted images come out the same in a fresh model: the stem has no preferred sign yet."""
    model = small_network()
    found, expected = outputs(model, change(some_images())), outputs(model, some_images())
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_a_blank_image_is_nothing_whatever_its_grey():
    grey = np.full((1, 28, 28, 1), 0.4, np.float32)
    np.testing.assert_allclose(network.Standardise(epsilon=1e-5)(grey), 0, atol=1e-3)


def test_moving_statistics_follow_a_tenth_of_the_way_at_each_step():
    model, images = small_network(), some_images(50)
    model(images, training=True)
    norm = model.get_layer("norm0")
    before = keras.Model(model.input, norm.input)(images).numpy().reshape(-1, norm.gamma.shape[0])
    np.testing.assert_allclose(norm.moving_mean, 0.1 * before.mean(axis=0), atol=1e-5)


def test_fused_normalisation_gives_what_keras_own_does():
    images = np.random.default_rng(1).normal(3, 2, (50, 6, 5, 4)).astype(np.float32)
    fused, stock = (
        kind(momentum=0.7, epsilon=0.1)
        for kind in (network.FusedBatchNormalization, keras.layers.BatchNormalization)
    )
    outcomes = []
    for layer in (fused, stock):
        layer.build(images.shape)
        layer.gamma.assign([1, 2, 0.5, -1])
        layer.beta.assign([0, 1, -1, 2])
        with tf.GradientTape() as tape:
            batch = tf.constant(images)
            tape.watch(batch)
            trained = layer(batch, training=True)
            loss = tf.reduce_sum(trained * tf.sin(trained))
        gradients = tape.gradient(loss, [batch, layer.gamma.value, layer.beta.value])
        outcomes.append([trained, *gradients, *layer.weights, layer(images, training=False)])
    for one, other in zip(*outcomes, strict=True):
        # A relative 1 / (50 · 6 · 5 - 1) between the biased variance and the unbiased one.
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=2e-3)
