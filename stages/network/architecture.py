"""The model: a small CNN whose arithmetic fits two CPU cores. For MNIST:

    28×28 → crop → standardise
          → 5×5 convolution, stride 2                   filters[0] channels, 12×12
          → 3×3 convolution, 2×2 max pooling            filters[1], 6×6
          → 3×3 convolution, 2×2 max pooling            filters[2], 3×3
          → 3×3 convolution                             filters[3], 3×3
          → global max pooling → fully connected → softmax

Its depth follows the size of the images: as long as the map is larger than 4×4, it is pooled after
each convolution, and convolutions like the last one are added until it is that small.

Each convolution is followed by batch normalisation and ReLU (the stem by the absolute value);
pooling comes before both and saves them three quarters of their work. The stem's stride quarters
the cost of all that follows: MNIST's strokes are two to three pixels wide, and a 5×5 window still
sees each of them whole.
"""

from stages.base.settings import Network
from stages.base.stage import UserError
from stages.network.conversion import converted
from stages.network.runtime import keras, tf

LARGEST_MAP = 4  # pixels: what is left for the global pooling
LEAST = 8  # pixels of an image that are left by the crop


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Keras' batch normalisation, trained by one operation in place of a dozen.

    The result is the same but for rounding (the moving variance is the unbiased one). With Keras'
    layer training takes 9 % more processor time (docs/benchmarks.md). `with_keras_layers` puts that
    in its place afterwards.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask=None) -> tf.Tensor:
        if not training:
            return super().call(inputs, training=False)
        replica = tf.distribute.get_replica_context()
        if replica.num_replicas_in_sync == 1:
            outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
                inputs, self.gamma, self.beta, epsilon=self.epsilon
            )
        else:  # several workers: the statistics are those of the whole batch
            means = tf.stack([tf.reduce_mean(x, axis=(0, 1, 2)) for x in (inputs, inputs * inputs)])
            mean, square = tf.unstack(replica.all_reduce("MEAN", means))
            variance = square - mean * mean
            outputs = tf.nn.batch_normalization(
                inputs, mean, variance, self.beta, self.gamma, self.epsilon
            )
            count = tf.size(inputs) // tf.size(mean) * replica.num_replicas_in_sync
            variance *= tf.cast(count / (count - 1), tf.float32)
        for moving, of_batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(self.momentum * moving + (1 - self.momentum) * of_batch)
        return outputs


class Standardise(keras.layers.LayerNormalization):
    """Each image shifted and scaled to mean 0 and standard deviation 1 over its pixels.

    It makes the model blind to brightness and contrast. The result is that of Keras' layer but
    for rounding: that one multiplies by a reciprocal square root, whose last bits TensorFlow
    computes differently on different makes of processors. `with_keras_layers` puts that in its
    place afterwards.
    """

    def __init__(self, **options):
        super().__init__(**{"axis": (1, 2, 3), "center": False, "scale": False} | options)

    def call(self, images: tf.Tensor) -> tf.Tensor:
        centred = images - tf.reduce_mean(images, axis=self.axis, keepdims=True)
        variance = tf.reduce_mean(centred * centred, axis=self.axis, keepdims=True)
        return centred / tf.sqrt(variance + self.epsilon)


def build(shape: tuple[int, int, int], classes: int, settings: Network) -> keras.Model:
    """An untrained model from images to probabilities.

    Args:
        shape: of an image: height, width, channels.
        classes: outputs of the fully connected classifier.
        settings: crop and filters.

    Returns:
        A model from float32 images in [0, 1], shape (N, height, width, channels), to float32
        probabilities, shape (N, classes). Initial weights come from Keras' global seed.

    Raises:
        UserError: the crop leaves too little of an image.
    """
    most = (min(shape[:2]) - LEAST) // 2
    if settings.crop > most:
        raise UserError(
            f"params.yaml: train.network.crop: expected at most {most} for images of "
            f"{shape[0]}×{shape[1]} pixels, found {settings.crop}"
        )
    layers = keras.layers
    images = keras.Input(shape, name="images")
    x = layers.Cropping2D(settings.crop, name="crop")(images)
    # Epsilon: a contrast of 1 % still counts, the noise of rounding on a blank image does not.
    x = Standardise(epsilon=1e-5, name="standardise")(x)
    index, filters = 0, list(settings.filters)
    while index < len(filters):
        stem = index == 0
        x = layers.Conv2D(
            filters[index],
            kernel_size=5 if stem else 3,
            strides=2 if stem else 1,
            padding="same",
            use_bias=False,  # batch normalisation has one
            kernel_initializer="he_normal",
            name="stem" if stem else f"conv{index}",
        )(x)
        if not stem and min(x.shape[1:3]) > LARGEST_MAP:
            x = layers.MaxPooling2D(2, name=f"pool{index}")(x)
        # Momentum 0.9: statistics of the last ten steps or so follow weights that still move.
        x = FusedBatchNormalization(momentum=0.9, epsilon=1e-5, name=f"norm{index}")(x)
        # The stem's edges count alike from light to dark and from dark to light: ink may be white.
        if stem:
            x = layers.Maximum(name="absolute")([x, layers.Rescaling(-1.0, name="negative")(x)])
        else:
            x = layers.ReLU(name=f"relu{index}")(x)
        index += 1
        if index == len(filters) and min(x.shape[1:3]) > LARGEST_MAP:
            filters.append(filters[-1])
    x = layers.GlobalMaxPooling2D(name="global_pool")(x)
    x = layers.Dense(classes, name="classifier")(x)
    return keras.Model(images, layers.Softmax(name="probabilities")(x), name="cnn")


KERAS_LAYERS = {
    FusedBatchNormalization: keras.layers.BatchNormalization,
    Standardise: keras.layers.LayerNormalization,
}


def with_keras_layers(model: keras.Model) -> keras.Model:
    """A copy of a model of `build`, made of Keras' own layers only: any Keras can load it."""

    def replace(layer: keras.layers.Layer) -> keras.layers.Layer | None:
        kind = KERAS_LAYERS.get(type(layer))
        return kind and kind.from_config(layer.get_config())

    return converted(model, replace)
