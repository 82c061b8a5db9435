"""A network as a LiteRT file (.tflite), which predicts without TensorFlow.

It starts in a tenth of a second where TensorFlow takes several, and runs on phones and small
boards, too.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from stages.base.files import replacing
from stages.base.quiet import silent_stderr
from stages.network.architecture import Standardise
from stages.network.runtime import keras, tf
from stages.prediction.views import averaged_logits


class ScaleAndOffset(keras.layers.Layer):
    """Multiplies each channel by a constant and adds another; both of shape (channels,)."""

    def __init__(self, scale: np.ndarray, offset: np.ndarray, **options):
        super().__init__(**options)
        self.scale, self.offset = scale, offset

    def call(self, inputs: tf.Tensor, mask=None) -> tf.Tensor:
        return inputs * self.scale + self.offset


def exact(model: keras.Model) -> keras.Model:
    """A copy of a trained network that predicts the same but for the last bits, on all processors.

    Keras' normalisations multiply by a reciprocal square root, which TensorFlow estimates with an
    instruction that gives other bits on other makes of processors. Here it is a division by a root;
    for batch normalisation, a constant factor and offset per channel.
    """

    def convert(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, keras.layers.LayerNormalization):
            return Standardise.from_config(layer.get_config())
        if not isinstance(layer, keras.layers.BatchNormalization):
            return layer.from_config(layer.get_config())
        gamma, beta, mean, variance = (each.numpy().astype(float) for each in layer.weights)
        scale = gamma / np.sqrt(variance + layer.epsilon)
        return ScaleAndOffset(np.float32(scale), np.float32(beta - mean * scale), name=layer.name)

    copy = keras.models.clone_model(model, clone_function=convert)
    for layer in copy.layers:
        if layer.weights:  # batch normalisation has none any more
            layer.set_weights(model.get_layer(layer.name).get_weights())
    return copy


def export(network: keras.Model, shift: int, temperature: float, path: Path) -> None:
    """Write a LiteRT file that predicts any number of images; the same network, the same bytes.

    Its outputs are `logits`, the mean of the views', `probabilities`, and `features`: what the
    layer `classifier` gets of the image itself.

    Args:
        network: from images, float32, shape (N, height, width, 1), to probabilities.
        shift: of the views, see views.py.
        temperature: the probabilities are softmax(logits / temperature).
        path: of the file, which appears whole or not at all.
    """
    logits = averaged_logits(network, shift)
    features = keras.Model(network.input, network.get_layer("classifier").input)

    def predict(images: tf.Tensor) -> dict[str, tf.Tensor]:
        values, seen = logits(images), features(images)
        probabilities = tf.nn.softmax(values / temperature)
        return {"logits": values, "probabilities": probabilities, "features": seen}

    with converter(logits, predict) as lite, replacing(path) as temporary:
        temporary.write_bytes(lite.convert())


@contextmanager
def converter(network: keras.Model, predict: Callable) -> Iterator[tf.lite.TFLiteConverter]:
    """A converter to LiteRT of `predict`, a function of images that calls `network`.

    Args:
        network: its input tells the shape of an image.
        predict: from a tensor of images, any number of them, to a dictionary of tensors.
    """
    archive = keras.export.ExportArchive()
    archive.track(network)
    images = tf.TensorSpec((None, *network.input_shape[1:]), tf.float32, name="images")
    archive.add_endpoint("predict", predict, input_signature=[images])
    with tempfile.TemporaryDirectory() as folder, silent_stderr():
        archive.write_out(folder, verbose=False)
        yield tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["predict"])
