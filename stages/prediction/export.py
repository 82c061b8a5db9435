"""A model as LiteRT files (.tflite), which predict without TensorFlow: in floats and in int8.

They start in a tenth of a second where TensorFlow takes several, and run on phones and small
boards, too. All conversions are made by `lite`: TensorFlow says that tf.lite will leave it one day
(tensorflow#102071). What will replace it is litert-torch, and ai-edge-quantizer for int8.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from stages.base.data import scaled
from stages.base.files import atomic_output
from stages.base.quiet import silent_stderr
from stages.network.architecture import Standardise
from stages.network.conversion import converted
from stages.network.runtime import keras, tf
from stages.prediction.views import averaged_logits


class ScaleAndOffset(keras.layers.Layer):
    """Multiplies each channel by a constant and adds another; both of shape (channels,)."""

    def __init__(self, scale: np.ndarray, offset: np.ndarray, **options):
        super().__init__(**options)
        self.scale, self.offset = scale, offset

    def call(self, inputs: tf.Tensor, mask=None) -> tf.Tensor:
        return inputs * self.scale + self.offset

    def get_config(self) -> dict:
        return super().get_config() | {"scale": self.scale, "offset": self.offset}


class Magnitude(keras.layers.Layer):
    """The absolute value, in place of max(x, -x): the converter to int8 gives both of a maximum's
    inputs the range of its output, and would cut all negative numbers off.
    """

    def call(self, pair: list[tf.Tensor]) -> tf.Tensor:
        return tf.abs(pair[0])


def portable(model: keras.Model) -> keras.Model:
    """A copy of a trained model that predicts the same but for the last bits, on all processors.

    Keras' normalisations multiply by a reciprocal square root, which TensorFlow estimates with an
    instruction that gives other bits on other makes of processors. Here it is a division by a root;
    for batch normalisation, a constant factor and offset per channel.
    """

    def replace(layer: keras.layers.Layer) -> keras.layers.Layer | None:
        if isinstance(layer, keras.layers.LayerNormalization):
            return Standardise.from_config(layer.get_config())
        if not isinstance(layer, keras.layers.BatchNormalization):
            return None
        gamma, beta, mean, variance = (each.numpy().astype(float) for each in layer.weights)
        scale = gamma / np.sqrt(variance + layer.epsilon)
        return ScaleAndOffset(np.float32(scale), np.float32(beta - mean * scale), name=layer.name)

    return converted(model, replace)


def export(model: keras.Model, shift: int, temperature: float, path: Path) -> None:
    """Write a LiteRT file that predicts any number of images; the same model, the same bytes.

    Its outputs are `logits`, the mean of the views', `probabilities`, and `features`: what the
    layer `classifier` gets of the image itself.

    Args:
        model: of `portable`, from images, float32, shape (N, height, width, channels).
        shift: of the views, see views.py.
        temperature: the probabilities are softmax(logits / temperature).
        path: of the file, which appears whole or not at all.
    """
    logits = averaged_logits(model, shift)
    features = keras.Model(model.input, model.get_layer("classifier").input)

    def predict(images: tf.Tensor) -> dict[str, tf.Tensor]:
        values, seen = logits(images), features(images)
        probabilities = tf.nn.softmax(values / temperature)
        return {"logits": values, "probabilities": probabilities, "features": seen}

    with atomic_output(path) as temporary:
        temporary.write_bytes(lite(logits, predict))


def export_int8(model: keras.Model, shift: int, images: np.ndarray, path: Path) -> None:
    """Write a LiteRT file that computes in whole numbers only.

    In: pixels - 128, int8, shape (N, height, width, channels). Out: logits, int8; the file has
    their scale. Views are averaged as in the other file, but pass the model as a batch: one copy of
    it is enough.

    Args:
        model, shift, path: as of `export`.
        images: uint8, shape (n, height, width, channels): some training images, which show the
            converter the range of each layer's values.
    """

    def replace(layer: keras.layers.Layer) -> keras.layers.Layer | None:
        return Magnitude(name=layer.name) if layer.name == "absolute" else None

    logits = converted(averaged_logits(model, 0), replace)
    (height, width), classes = images.shape[1:3], logits.output_shape[1]
    moves = ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0)) if shift else ((0, 0),)

    def predict(images: tf.Tensor) -> dict[str, tf.Tensor]:
        padded = tf.pad(images, [[0, 0], [shift, shift], [shift, shift], [0, 0]])
        corners = [(shift * (1 - y), shift * (1 - x)) for y, x in moves]
        views = [padded[:, top : top + height, left : left + width] for top, left in corners]
        of_views = tf.reshape(logits(tf.concat(views, 0)), (len(moves), -1, classes))
        return {"logits": tf.reduce_mean(of_views, 0)}

    with atomic_output(path) as temporary:
        temporary.write_bytes(lite(logits, predict, images))


def lite(model: keras.Model, predict: Callable, images: np.ndarray | None = None) -> bytes:
    """The LiteRT file of a function; in whole numbers if there are images to find their ranges.

    Args:
        model: its input tells the shape of an image.
        predict: from a tensor of images, any number of them, to a dictionary of tensors; calls
            `model`.
        images: uint8, shape (n, height, width, channels).
    """
    archive = keras.export.ExportArchive()
    archive.track(model)
    spec = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="images")
    archive.add_endpoint("predict", predict, input_signature=[spec])
    with tempfile.TemporaryDirectory() as folder, silent_stderr():
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["predict"])
        if images is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: (
                {"images": scaled(image[None])} for image in images
            )
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.int8
        return converter.convert()
