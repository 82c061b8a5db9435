"""Five views of an image: a trained model sees it as it is and shifted in four directions.

A digit that is misclassified where it stands is often classified correctly when it is shifted by a
pixel. Averaging the five costs no training and saves errors, at five times the work of a
prediction. (Averaging predictions over shifted copies of a test image: A. Krizhevsky et al., 2012.)
"""

from stages.network.runtime import keras

layers = keras.layers
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


def averaged_logits(model: keras.Model, shift: int) -> keras.Model:
    """A model from images to the mean logits of their views.

    Args:
        model: from images, shape (N, height, width, 1), to probabilities, its layer `classifier`
            giving the logits; the result shares its weights.
        shift: pixels up, down, left and right, with zeros moved in; 0 for the image alone.

    Returns:
        A model from images to logits, float32, shape (N, classes).
    """
    logits = keras.Model(model.input, model.get_layer("classifier").output, name=model.name)
    if not shift:
        return logits
    images = keras.Input(model.input_shape[1:], name="images")
    padded = layers.ZeroPadding2D(shift, name="margin")(images)
    outputs = [logits(images)]
    for name, (x, y) in DIRECTIONS.items():
        rows, columns = ((shift - at * shift, shift + at * shift) for at in (y, x))
        outputs.append(logits(layers.Cropping2D((rows, columns), name=name)(padded)))
    return keras.Model(images, layers.Average(name="mean_logits")(outputs), name="five_views")


def with_temperature(logits: keras.Model, temperature: float) -> keras.Model:
    """A model from images to probabilities, softmax(logits / temperature); see calibration.py."""
    scaled = layers.Rescaling(1 / temperature, name="temperature")(logits.output)
    probabilities = layers.Softmax(name="calibrated_probabilities")(scaled)
    return keras.Model(logits.inputs, probabilities, name=logits.name)
