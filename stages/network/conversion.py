"""A model with some of its layers replaced by others that compute the same."""

from collections.abc import Callable

from stages.network.runtime import keras

Layer = keras.layers.Layer


def converted(model: keras.Model, replace: Callable[[Layer], Layer | None]) -> keras.Model:
    """A copy of a model, with its weights, without its optimizer.

    Args:
        model: each layer with a name of its own.
        replace: gives the layer that takes the place of another; None for a plain copy. A layer
            gets the weights of the one it replaces, unless it has none.
    """

    def convert(layer: Layer) -> Layer:
        return replace(layer) or type(layer).from_config(layer.get_config())

    plain = keras.Model(model.inputs, model.outputs, name=model.name)
    copy = keras.models.clone_model(plain, clone_function=convert)
    for layer in copy.layers:
        if layer.weights:
            layer.set_weights(model.get_layer(layer.name).get_weights())
    return copy
