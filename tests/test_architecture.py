"""The network's architecture: stock layers, its sizes, and what its documentation says of it."""

import numpy as np
import pytest

from stages.network import architecture as network
from stages.network.runtime import keras, tf
from stages.network.settings import Network

FILTERS = [3, 4, 5]


def some_images(count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).random((count, 28, 28, 1), np.float32)


def outputs(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(images, training=False))


def small_network(crop: int = 2) -> keras.Model:
    keras.utils.set_random_seed(0)
    return network.build(10, Network(crop=crop, filters=FILTERS))


def test_what_is_kept_is_made_of_stock_keras_layers_and_predicts_the_same():
    model = small_network()
    kept = network.stock(model)
    again = keras.Model.from_config(kept.get_config())  # no custom objects needed
    assert again.count_params() == model.count_params()
    found = kept.predict(some_images(), verbose=0)
    np.testing.assert_allclose(found, outputs(model, some_images()), atol=1e-6)


@pytest.mark.parametrize("classes", [2, 10, 47])
@pytest.mark.parametrize("filters", [[1, 1, 1], [8, 3, 5], [2, 3, 4, 5, 6]])
def test_it_maps_images_to_probabilities(classes: int, filters: list[int]):
    model = network.build(classes, Network(crop=2, filters=filters))
    assert model.input_shape == (None, 28, 28, 1)
    assert model.output_shape == (None, classes)
    probabilities = outputs(model, some_images())
    assert probabilities.dtype == np.float32
    assert probabilities.min() >= 0
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


def test_number_of_parameters():
    model = network.build(10, Network(crop=2, filters=[32, 64, 128, 128]))
    stem = 5 * 5 * 1 * 32
    inner = 3 * 3 * 32 * 64 + 3 * 3 * 64 * 128 + 3 * 3 * 128 * 128
    norms = 32 + 64 + 128 + 128
    classifier = 128 * 10 + 10
    trainable = stem + inner + 2 * norms + classifier  # scale and offset
    assert sum(variable.numpy().size for variable in model.trainable_variables) == trainable
    assert model.count_params() == trainable + 2 * norms == 243_114  # running mean and variance


@pytest.mark.parametrize("change", [lambda x: 0.3 * x + 0.5, lambda x: 0.7 - 0.1 * x])
def test_brightness_contrast_and_polarity_do_not_count(change):
    """Inverted images come out the same in a fresh network: the stem has no preferred sign yet."""
    model = small_network()
    found, expected = outputs(model, change(some_images())), outputs(model, some_images())
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_standardise_gives_what_keras_own_layer_does_and_nothing_on_a_blank_image():
    images = np.concatenate([some_images(), np.full((1, 28, 28, 1), 0.4, np.float32)])
    found = network.Standardise(epsilon=1e-5)(images).numpy()
    stock = keras.layers.LayerNormalization(axis=(1, 2, 3), epsilon=1e-5, center=False, scale=False)
    np.testing.assert_allclose(found, stock(images), atol=1e-4)
    np.testing.assert_allclose(found[:-1].mean(axis=(1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(found[:-1].std(axis=(1, 2, 3)), 1, atol=1e-3)
    np.testing.assert_allclose(found[-1], 0, atol=1e-3)


@pytest.mark.parametrize(("crop", "side"), [(0, 14), (2, 12), (6, 8)])
def test_the_stem_halves_and_each_of_two_poolings_halves_again(crop: int, side: int):
    model = network.build(10, Network(crop=crop, filters=[1, 1, 1, 1]))
    sides = [model.get_layer(f"norm{index}").output.shape[1] for index in range(4)]
    assert sides == [side, side // 2, side // 4, side // 4]


@pytest.mark.parametrize("crop", [0, 1, 2, 6])
def test_cropped_pixels_do_not_count_and_those_inside_do_on_every_side(crop: int):
    model, images = small_network(crop), some_images()
    first, last = crop, 27 - crop
    other = 1 - images
    inside = (slice(None), slice(first, last + 1), slice(first, last + 1))
    other[inside] = images[inside]
    np.testing.assert_array_equal(outputs(model, other), outputs(model, images))
    images = np.zeros((5, 28, 28, 1), np.float32)
    images[1, first] = images[2, last] = images[3, :, first] = images[4, :, last] = 1
    blank, *edges = outputs(model, images)
    assert not any(np.array_equal(probabilities, blank) for probabilities in edges)


def test_moving_statistics_follow_a_tenth_of_the_way_at_each_step():
    model, images = small_network(), some_images(50)
    model(images, training=True)
    norm = model.get_layer("norm0")
    before = keras.Model(model.input, norm.input)(images).numpy().reshape(-1, norm.gamma.shape[0])
    np.testing.assert_allclose(norm.moving_mean, 0.1 * before.mean(axis=0), atol=1e-5)


def test_fused_normalisation_gives_what_keras_own_does():
    images = np.random.default_rng(1).normal(3, 2, (50, 6, 5, 4)).astype(np.float32)
    fused, stock = (
        kind(momentum=0.7, epsilon=1e-3)
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
