"""Random changes of what training images look like: paper, light, pen and scanner, not shape.

MNIST shows clean ink on clean paper, one digit in the middle, and nothing else. People also read
digits on grey or uneven paper, in white ink, crossed by a line, blurred, noisy, or as an
outline. A part of each batch is changed in one of six ways, each with random parameters. Clean
images come last, since a model is judged by these, too: the parts are full at first and then fall
(see `level`).

Random numbers are a pure function of `seed`, as in augment.py; each use has a seed of its own,
split or folded from it, so that no two share numbers. No reciprocal or reciprocal square root is
computed: TensorFlow estimates these by an instruction that gives other bits on other makes of
processors.
"""

import math

from stages.base.settings import Photometric
from stages.network.runtime import tf

SIDE = 28  # pixels: lengths below are for images of MNIST's size, and grow with the image


def illumination(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Grey paper, shadow or fog: a smooth random field hides up to 75 % of the contrast."""
    count, height, width, _ = images.shape
    first, second = tf.unstack(tf.random.split(seed))
    coarse = tf.random.stateless_uniform((count, 7, 7, 1), first, minval=-0.5, maxval=0.5)
    brightness, unevenness, amount = _draws(3, count, second)
    field = unevenness * 1.5 * tf.image.resize(coarse, (height, width), "bicubic")
    return images + 0.75 * amount * (tf.clip_by_value(brightness + field, 0, 1) - images)


def strokes(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """A line across the image, of ink or of eraser: straight or wavy, whole or dashed."""
    draws = _draws(11, images.shape[0], seed)
    along, across = (values / _unit(images) for values in _turned(images, draws[0]))
    across += 16 * draws[1] - 8  # pixels from the centre
    height = tf.where(draws[2] < 0.35, 0.0, 3.5 * draws[3])  # of the waves, pixels
    # Radians per pixel: a wave is 5 to 20 pixels long, short ones are more frequent.
    turns = 2 * math.pi / (5 + 15 * draws[4] * draws[4])
    phase = turns * along + 2 * math.pi * draws[5]
    slope = height * turns * tf.cos(phase)
    distance = tf.abs(across - height * tf.sin(phase)) / tf.sqrt(1 + slope * slope)
    line = tf.clip_by_value(1 + draws[6] - distance, 0, 1)  # 1 to 3 pixels wide, soft edges
    dashes = tf.sin(2 * math.pi * (along / (3 + 5 * draws[7]) + draws[8])) > -0.2
    line = tf.where((draws[9] < 0.5) | dashes, line, 0.0)
    return tf.where(draws[10] < 0.75, tf.maximum(images, line), images * (1 - line))


def blur(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Out of focus or moved: Gaussian blur, in a random direction stronger than across it."""
    angle, long, short = _draws(3, images.shape[0], seed)
    unit = min(_unit(images), 2)  # more blur would take most of the training's time
    side = 2 * round(6 * unit) + 1
    along, across = _turned(tf.zeros((1, side, side, 1)), angle)  # the kernels, (N, side, side, 1)
    # Standard deviations, pixels.
    long, short = unit * (0.5 + 3 * long), unit * (0.4 + 1.4 * short)
    kernels = tf.exp(-0.5 * ((along / long) ** 2 + (across / short) ** 2))
    kernels /= tf.reduce_sum(kernels, axis=(1, 2, 3), keepdims=True)
    channels = tf.transpose(images, (3, 1, 2, 0))  # an image a channel: each has its own kernel
    blurred = tf.nn.depthwise_conv2d(
        channels, tf.transpose(kernels, (1, 2, 0, 3)), strides=(1, 1, 1, 1), padding="SAME"
    )
    return tf.transpose(blurred, (3, 1, 2, 0))


def polarity(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Inverted beyond a random line, or on both sides of a band; a line may miss the image."""
    angle, place, band = _draws(3, images.shape[0], seed)
    _, across = _turned(images, angle)
    distance = tf.where(band < 0.5, across, tf.abs(across))
    return tf.where(distance > _unit(images) * (32 * place - 16), 1 - images, images)


def noise(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Grain (uniform, up to ± 0.5), and up to 25 % of the pixels replaced by black or white."""
    first, second = tf.unstack(tf.random.split(seed))
    grain, share = _draws(2, images.shape[0], first)
    random = tf.random.stateless_uniform((2, *images.shape), second)
    noisy = tf.clip_by_value(images + grain * (random[0] - 0.5), 0, 1)
    share = 0.25 * share
    return tf.where(random[1] < share, tf.cast(random[1] < share / 2, tf.float32), noisy)


def outline(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Only the edge of the ink: the pixels just inside, or those just outside."""
    (side,) = _draws(1, images.shape[0], seed)
    grown = tf.nn.max_pool2d(images, 3, 1, "SAME")
    shrunk = -tf.nn.max_pool2d(-images, 3, 1, "SAME")
    return tf.where(side < 0.5, grown - images, images - shrunk)


FAMILIES = (illumination, strokes, blur, polarity, noise, outline)


def level(progress: tf.Tensor, settings: Photometric) -> tf.Tensor:
    """The part of the shares that is in force at `progress`, from 0 (first step) to 1 (last)."""
    fallen = tf.clip_by_value((progress - settings.full_until) / (1 - settings.full_until), 0, 1)
    return 1 - fallen * (1 - settings.at_end)


def random_photometric(
    images: tf.Tensor, settings: Photometric, seed: tf.Tensor, progress: tf.Tensor
) -> tf.Tensor:
    """Change a part of a batch, each image in at most one way.

    Args:
        images: float32 in [0, 1], shape (N, height, width, channels), in random order: the first
            go to the first family, and so on.
        settings: the share of each family, and how the shares fall.
        seed: int64, shape (2,).
        progress: float32, the part of the training that is over, from 0 to 1.

    Returns:
        float32 in [0, 1], shape of `images`.
    """
    count, start, share, parts = images.shape[0], 0, 0.0, []
    for number, family in enumerate(FAMILIES):
        share += getattr(settings, family.__name__)
        end = min(round(count * share), count)
        if not (size := end - start):
            continue
        part = images[start:end]
        first, second = tf.unstack(tf.random.split(tf.random.fold_in(seed, number)))
        (chance,) = _draws(1, size, first)
        parts.append(tf.where(chance < level(progress, settings), family(part, second), part))
        start = end
    return tf.concat([*parts, images[start:]], axis=0)


def _unit(images: tf.Tensor) -> float:
    """How many pixels of these images are one of MNIST's."""
    return min(images.shape[1:3]) / SIDE


def _draws(number: int, count: int, seed: tf.Tensor) -> list[tf.Tensor]:
    """So many random numbers in [0, 1) for each image, each of shape (count, 1, 1, 1)."""
    return tf.unstack(tf.random.stateless_uniform((number, count, 1, 1, 1), seed))


def _turned(images: tf.Tensor, angle: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Coordinates of the pixels from the centre, turned by `angle`, a part of a full turn.

    Returns:
        Two tensors, pixels, shape (N, height, width, 1).
    """
    _, height, width, _ = images.shape
    y = tf.reshape(tf.range(height, dtype=tf.float32) - (height - 1) / 2, (1, height, 1, 1))
    x = tf.reshape(tf.range(width, dtype=tf.float32) - (width - 1) / 2, (1, 1, width, 1))
    cos, sin = tf.cos(2 * math.pi * angle), tf.sin(2 * math.pi * angle)
    return cos * x + sin * y, cos * y - sin * x
