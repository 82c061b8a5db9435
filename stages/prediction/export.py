"""A network as a LiteRT file (.tflite), which predicts without TensorFlow.

It starts in a tenth of a second where TensorFlow takes several, and runs on phones and small
boards, too.
"""

import tempfile
from pathlib import Path

from stages.base.files import replacing
from stages.base.quiet import silent_stderr
from stages.network.runtime import keras, tf


def export(logits: keras.Model, temperature: float, path: Path) -> None:
    """Write a LiteRT file with two outputs, `logits` and `probabilities`, for any number of images.

    The same network gives the same bytes.

    Args:
        logits: from images, float32, shape (N, height, width, 1), to logits, shape (N, classes).
        temperature: the probabilities are softmax(logits / temperature).
        path: of the file, which appears whole or not at all.
    """

    def predict(images: tf.Tensor) -> dict[str, tf.Tensor]:
        values = logits(images)
        return {"logits": values, "probabilities": tf.nn.softmax(values / temperature)}

    archive = keras.export.ExportArchive()
    archive.track(logits)
    images = tf.TensorSpec((None, *logits.input_shape[1:]), tf.float32, name="images")
    archive.add_endpoint("predict", predict, input_signature=[images])
    with tempfile.TemporaryDirectory() as folder, silent_stderr(), replacing(path) as temporary:
        archive.write_out(folder, verbose=False)
        content = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
        temporary.write_bytes(content)
