"""Random affine transformation of training images: rotation, shift, zoom, shear and flip at once.

They are multiplied into one matrix per image, so that each image is resampled, and so blurred,
only once. Random numbers are a pure function of `seed`: that is what makes a run repeatable.
"""

import math

from stages.base.settings import Augment
from stages.network.runtime import keras, tf


def random_affine(images: tf.Tensor, limits: Augment, seed: tf.Tensor) -> tf.Tensor:
    """Transform each image by its own random matrix about the image's centre.

    Args:
        images: float32, shape (N, height, width, channels).
        limits: rotation in degrees, shift in pixels, zoom and shear as fractions. Each is drawn
            uniformly between minus and plus its limit; zoom and shift separately for x and y.
            A zoom of z shows 1 + z of the image's extent, so what it shows shrinks by that factor.
            With flip, every other image is mirrored.
        seed: int64, shape (2,).

    Returns:
        float32, shape of `images`; bilinear interpolation, zeros from outside the image.
    """
    if not any((limits.rotation, limits.shift, limits.zoom, limits.shear, limits.flip)):
        return images
    count, height, width, _ = images.shape
    draws = tf.random.stateless_uniform((6, count), seed, minval=-1, maxval=1)
    angle = draws[0] * (limits.rotation * math.pi / 180)
    shift_x, shift_y = draws[1] * limits.shift, draws[2] * limits.shift
    zoom_x, zoom_y = 1 + draws[3] * limits.zoom, 1 + draws[4] * limits.zoom
    shear = draws[5] * limits.shear
    if limits.flip:
        zoom_x *= tf.sign(tf.random.stateless_uniform((count,), seed + 1, minval=-1, maxval=1))
    # Rows of rotation · shear · zoom; like Keras, from a pixel of the output to one of the input.
    cos, sin = tf.cos(angle), tf.sin(angle)
    xx, xy = cos * zoom_x, (cos * shear - sin) * zoom_y
    yx, yy = sin * zoom_x, (sin * shear + cos) * zoom_y
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    x0 = centre_x + shift_x - xx * centre_x - xy * centre_y
    y0 = centre_y + shift_y - yx * centre_x - yy * centre_y
    zero = tf.zeros_like(xx)
    matrices = tf.stack([xx, xy, x0, yx, yy, y0, zero, zero], axis=1)
    return keras.ops.image.affine_transform(images, matrices, "bilinear", "constant")
