"""A model as data for a page: its layers, checked one by one, and their weights in base64.

apps/draw/page.html computes what these layers compute. A layer that it does not know is refused, so
that the page never predicts something else than the model.
"""

import base64

import numpy as np

from stages.base.stage import UserError
from stages.network.runtime import keras
from stages.prediction.export import portable

# In this order; those of a block may be repeated, the pooling may be missing.
FIRST = ["images", "crop", "standardise"]
LAST = ["GlobalMaxPooling2D", "Dense", "Softmax"]
SILENT = ("Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout")  # do nothing here


def page_data(trained: keras.Model) -> dict:
    """What the page needs to compute a trained model; its weights are rounded to float16.

    Args:
        trained: a model of architecture.py.

    Returns:
        crop, epsilon; layers: of each convolution its size, inputs, outputs, stride, whether it is
        pooled and what its activation is ("relu" or "absolute"); kernels and vectors in base64.

    Raises:
        UserError: there is a layer that the page cannot compute.
    """
    rounded = keras.models.clone_model(trained)
    rounded.set_weights([np.float16(weight) for weight in trained.get_weights()])
    model = portable(rounded)
    layers, kernels, vectors, kinds = [], [], [], []
    for layer in model.layers:
        kind = type(layer).__name__
        if kind in SILENT:
            continue
        if kind == "Conv2D":
            size, _, inputs, outputs = layer.kernel.shape
            plain = layer.activation is keras.activations.linear and not layer.use_bias
            same = layer.padding == "same" and layer.dilation_rate == (1, 1) and layer.groups == 1
            _check(plain and same and len({*layer.strides}) == 1, layer)
            shape = {"size": size, "inputs": inputs, "outputs": outputs}
            layers.append(shape | {"stride": layer.strides[0], "pool": False})
            kernels.append(layer.kernel)
        elif kind == "MaxPooling2D":
            _check(layer.pool_size == (2, 2) == layer.strides and layer.padding == "valid", layer)
            layers[-1]["pool"] = True
        elif kind == "ScaleAndOffset":
            vectors += [layer.scale, layer.offset]
        elif kind in ("ReLU", "Maximum"):
            layers[-1]["activation"] = "relu" if kind == "ReLU" else "absolute"
            plain = kind == "Maximum" or not (layer.max_value or layer.threshold)
            _check(plain and not getattr(layer, "negative_slope", 0), layer)
        elif kind == "Rescaling":  # of the absolute value, max(x, -x)
            _check((layer.scale, layer.offset) == (-1, 0), layer)
            continue
        kinds.append(kind)
    block = ["Conv2D", "MaxPooling2D", "ScaleAndOffset"]
    expected = ["InputLayer", "Cropping2D", "Standardise"]
    for each in layers:
        expected += [kind for kind in block if kind != "MaxPooling2D" or each["pool"]]
        expected.append({"relu": "ReLU", "absolute": "Maximum"}.get(each.get("activation"), "?"))
    for found, kind, layer in zip(kinds, expected + LAST, model.layers, strict=False):
        if found != kind:
            raise UserError(
                f"the page cannot compute this model: expected a layer {kind}, found {found}; see "
                f"stages/prediction/page.py (near {layer.name})"
            )
    _check(len(kinds) == len(expected + LAST), model.layers[-1])
    classifier = model.get_layer("classifier")
    return {
        "crop": model.get_layer("crop").cropping[0][0],
        "epsilon": model.get_layer("standardise").epsilon,
        "layers": layers,
        "kernels": encoded([*kernels, classifier.kernel], "<f2"),
        "vectors": encoded([*vectors, classifier.bias], "<f4"),
    }


def _check(computable: bool, layer: keras.layers.Layer) -> None:
    if not computable:
        raise UserError(
            f"the page cannot compute the layer {layer.name} ({type(layer).__name__}) with these "
            "options; see stages/prediction/page.py"
        )


def encoded(parts: list, kind: str) -> str:
    """Arrays one after the other, as numbers of this kind, in base64."""
    arrays = [np.asarray(part).astype(kind) for part in parts]
    return base64.b64encode(b"".join(part.tobytes() for part in arrays)).decode()
