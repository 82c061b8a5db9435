"""Stage export: the first network where no Python is: a page to draw on, and an int8 file.

The page, models/exported/draw.html, is the template apps/draw/page.html with the network in it. The
file, models/exported/int8.tflite, is for phones and small boards: whole numbers from the pixels to
the logits. Both are compared with the Keras file on the test images; nothing is chosen on them.
"""

import base64
import json
from pathlib import Path

import numpy as np
import pandas as pd
from ai_edge_litert.interpreter import Interpreter
from scipy.special import softmax

from apps.classify import reject
from stages.base import arrays, params
from stages.base.files import replacing, write_csv
from stages.base.quiet import silent_stderr
from stages.base.stage import run_stage
from stages.dataset import catalogue
from stages.dataset.settings import Download
from stages.network import saved
from stages.network.runtime import keras, tf
from stages.network.settings import Seeds, folder_of
from stages.prediction.export import ScaleAndOffset, converter, exact
from stages.prediction.predict import BATCH, PACKAGED, THREADS, Predictor, load_results
from stages.prediction.settings import Package
from stages.prediction.views import averaged_logits

TEMPLATE = Path("apps/draw/page.html")
PAGE = Path("models/exported/draw.html")
COMPARED = Path("metrics/export.csv")
INT8 = Path("models/exported/int8.tflite")
REPRESENTATIVE = 200  # training images that show the converter which range each layer's values have


class Magnitude(keras.layers.Layer):
    """The absolute value, in place of max(x, -x): the converter gives both of a maximum's inputs
    the range of its output, and would cut all negative numbers off.
    """

    def call(self, pair: list[tf.Tensor]) -> tf.Tensor:
        return tf.abs(pair[0])


def write_page(trained: keras.Model, shift: int, temperature: float, dataset: str) -> keras.Model:
    """Write the page with a trained network, whose weights are rounded to float16.

    Returns:
        The network that is in the page: `exact` of the rounded one.
    """
    rounded = keras.models.clone_model(trained)
    rounded.set_weights([np.float16(weight) for weight in trained.get_weights()])
    network = exact(rounded)
    layers, kernels, vectors = [], [], []
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D):
            size, _, inputs, outputs = layer.kernel.shape
            shape = {"size": size, "inputs": inputs, "outputs": outputs}
            layers.append(shape | {"stride": layer.strides[0], "pool": False})
            kernels.append(layer.kernel)
        elif isinstance(layer, keras.layers.MaxPooling2D):
            layers[-1]["pool"] = True
        elif isinstance(layer, ScaleAndOffset):
            vectors += [layer.scale, layer.offset]
    classifier, known = network.get_layer("classifier"), reject.load()
    entry = catalogue.find(dataset)
    content = {
        "subject": entry.subject,
        "classes": entry.classes,
        "crop": network.get_layer("crop").cropping[0][0],
        "epsilon": network.get_layer("standardise").epsilon,
        "shift": shift,
        "temperature": temperature,
        "layers": layers,
        "threshold": known.threshold,
        "least": reject.LEAST,
        "kernels": _base64([*kernels, classifier.kernel], "<f2"),
        "centres": _base64([known.centres[0]], "<f2"),
        "vectors": _base64([*vectors, classifier.bias], "<f4"),
    }
    text = json.dumps(content, ensure_ascii=False).replace("<", "\\u003c")  # no tag ends the data
    with replacing(PAGE) as temporary:
        page = TEMPLATE.read_text(encoding="utf-8").replace(">NETWORK<", f">{text}<")
        temporary.write_text(page, encoding="utf-8", newline="\n")
    return network


def _base64(parts: list, kind: str) -> str:
    arrays_of_kind = [np.asarray(part).astype(kind) for part in parts]
    return base64.b64encode(b"".join(part.tobytes() for part in arrays_of_kind)).decode()


def write_int8(network: keras.Model, shift: int, images: np.ndarray) -> None:
    """Write a network of `exact` as a LiteRT file that computes in whole numbers only.

    In: pixels - 128, int8, shape (N, 28, 28, 1). Out: logits, int8; the file has their scale. Views
    are averaged as in the other files, but pass the network as a batch: one copy of it is enough.

    Args:
        images: float32 in [0, 1], shape (n, 28, 28, 1): some training images.
    """

    def convert(layer: keras.layers.Layer) -> keras.layers.Layer:
        return Magnitude(name=layer.name) if layer.name == "absolute" else layer

    logits = keras.models.clone_model(averaged_logits(network, 0), clone_function=convert)
    size, classes = images.shape[1], logits.output_shape[1]
    moves = ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0)) if shift else ((0, 0),)

    def predict(images: tf.Tensor) -> dict[str, tf.Tensor]:
        padded = tf.pad(images, [[0, 0], [shift, shift], [shift, shift], [0, 0]])
        corners = [(shift * (1 - y), shift * (1 - x)) for y, x in moves]
        views = [padded[:, top : top + size, left : left + size] for top, left in corners]
        of_views = tf.reshape(logits(tf.concat(views, 0)), (len(moves), -1, classes))
        return {"logits": tf.reduce_mean(of_views, 0)}

    with converter(logits, predict) as lite, replacing(INT8) as temporary:
        lite.optimizations = [tf.lite.Optimize.DEFAULT]
        lite.representative_dataset = lambda: ({"images": image[None]} for image in images)
        lite.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        lite.inference_input_type = lite.inference_output_type = tf.int8
        temporary.write_bytes(lite.convert())


def predict_int8(images: np.ndarray) -> np.ndarray:
    """Logits, float32, shape (N, classes), by the int8 file; images as for `Predictor`."""
    with silent_stderr():
        interpreter = Interpreter(str(INT8), num_threads=THREADS)
        runner = interpreter.get_signature_runner("predict")
    scale, zero = runner.get_output_details()["logits"]["quantization"]
    parts = [
        runner(images=np.int8(np.rint(images[start : start + BATCH] * 255) - 128))["logits"]
        for start in range(0, len(images), BATCH)
    ]
    return (np.concatenate(parts).astype(np.float32) - zero) * scale


def compare(seed: int, page: keras.Model, temperature: float) -> pd.DataFrame:
    """Each file's size, errors on the test images, and how far it is from the Keras file.

    Args:
        page: the network in the page, from images to logits, with the page's rounded kernels.

    Returns:
        A row per file: `file`, its name; `kB`; `errors`; `other`, on how many images it predicts
        another class than the Keras file; `difference`, the largest of a probability.
    """
    images, labels = arrays.load_split("test")
    original = PACKAGED / f"seed-{seed}.keras"
    reference = saved.load(original)
    lite = Predictor(seed)
    found = {
        original: _in_batches(reference, images),
        original.with_suffix(".tflite"): lite(images)[0],
        INT8: softmax(predict_int8(images) / temperature, axis=1),
        PAGE: softmax(_in_batches(page, images) / temperature, axis=1),
    }
    expected = found[original]
    rows = [
        {
            "file": path.name,
            "kB": round(path.stat().st_size / 1000),
            "errors": int((values.argmax(axis=1) != labels).sum()),
            "other": int((values.argmax(axis=1) != expected.argmax(axis=1)).sum()),
            "difference": round(float(np.abs(values - expected).max()), 4),
        }
        for path, values in found.items()
    ]
    return pd.DataFrame(rows)


def _in_batches(model: keras.Model, images: np.ndarray) -> np.ndarray:
    starts = range(0, len(images), BATCH)
    return np.concatenate([model.predict_on_batch(images[at : at + BATCH]) for at in starts])


def main() -> None:
    seed = params.load("seeds", Seeds)[0]
    shift = params.load("package", Package).average_shift
    dataset = params.load("download", Download).dataset
    temperature = load_results()[str(seed)]["temperature"]
    trained = saved.load(folder_of(seed) / "network.keras")
    images, _ = arrays.load_split("train")
    write_int8(exact(trained), shift, images[:: -(-len(images) // REPRESENTATIVE)])
    in_page = averaged_logits(write_page(trained, shift, temperature, dataset), shift)
    frame = compare(seed, in_page, temperature)
    write_csv(COMPARED, frame, index=False)
    print(frame.to_string(index=False))


if __name__ == "__main__":
    run_stage(main)
