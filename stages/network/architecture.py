"""The network: a small CNN whose arithmetic fits two CPU cores.

    28×28 → crop → 5×5 convolution, stride 2            filters[0] channels
          → 3×3 convolution, 2×2 max pooling            filters[1]
          → 3×3 convolution, 2×2 max pooling            filters[2]
          → 3×3 convolution, for each further entry     filters[3:]
          → global max pooling → fully connected → softmax

Each convolution is followed by batch normalisation and ReLU; pooling comes before both and saves
them three quarters of their work. The stride of the stem quarters the cost of all that follows:
MNIST's strokes are two to three pixels wide, and a 5×5 window still sees each of them whole.
"""

from stages.base.params import Network
from stages.network.runtime import keras, tf

SIDE = 28  # pixels


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Keras' batch normalisation, trained by one operation in place of a dozen.

    What comes out is the same but for rounding (the moving variance is the unbiased one), and a
    step of training is shorter by a tenth. `averaged_logits` puts Keras' own layer in its place.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask=None) -> tf.Tensor:
        if not training:
            return super().call(inputs, training=False)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, self.gamma, self.beta, epsilon=self.epsilon
        )
        for moving, of_batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(self.momentum * moving + (1 - self.momentum) * of_batch)
        return outputs


def build(classes: int, settings: Network) -> keras.Model:
    """An untrained network from images to probabilities.

    Args:
        classes: outputs of the fully connected classifier.
        settings: crop and filters.

    Returns:
        A model from float32 images in [0, 1], shape (N, 28, 28, 1), to float32 probabilities,
        shape (N, classes). Initial weights come from Keras' global seed.
    """
    layers = keras.layers
    images = keras.Input((SIDE, SIDE, 1), name="images")
    x = layers.Cropping2D(settings.crop, name="crop")(images)
    for index, filters in enumerate(settings.filters):
        stem = index == 0
        x = layers.Conv2D(
            filters,
            kernel_size=5 if stem else 3,
            strides=2 if stem else 1,
            padding="same",
            use_bias=False,  # batch normalisation has one
            kernel_initializer="he_normal",
            name="stem" if stem else f"conv{index}",
        )(x)
        if index in (1, 2):
            x = layers.MaxPooling2D(2, name=f"pool{index}")(x)
        # Momentum 0.9: statistics of the last ten steps or so follow weights that still move.
        x = FusedBatchNormalization(momentum=0.9, epsilon=1e-5, name=f"norm{index}")(x)
        x = layers.ReLU(name=f"relu{index}")(x)
    x = layers.GlobalMaxPooling2D(name="global_pool")(x)
    x = layers.Dense(classes, name="classifier")(x)
    return keras.Model(images, layers.Softmax(name="probabilities")(x), name="digits_cnn")


def averaged_logits(model: keras.Model, shift: int) -> keras.Model:
    """What a trained network says of an image and of four shifted copies of it, averaged.

    A digit that is misread where it stands is often read rightly a pixel beside: five views cost
    no training and save errors, at five times the work of a prediction. (Views of a test image
    averaged: A. Krizhevsky et al., 2012.)

    Args:
        model: as `build` makes it.
        shift: pixels up, down, left and right of the copies, with zeros moved in; 0 for no copies.

    Returns:
        A model from images like those of `model` to the mean of the inputs of its softmax, float32,
        shape (N, classes), of stock Keras layers only. It has copies of the weights.
    """
    layers = keras.layers
    trained = keras.Model(model.input, model.get_layer("classifier").output, name=model.name)
    logits = keras.models.clone_model(trained, clone_function=_stock)
    logits.set_weights(trained.get_weights())
    if not shift:
        return logits
    images = keras.Input(model.input_shape[1:], name="images")
    padded = layers.ZeroPadding2D(shift, name="margin")(images)
    views = []
    for name, x, y in (
        ("centre", 0, 0),
        ("left", -1, 0),
        ("right", 1, 0),
        ("up", 0, -1),
        ("down", 0, 1),
    ):
        rows, columns = ((shift - at * shift, shift + at * shift) for at in (y, x))
        views.append(logits(layers.Cropping2D((rows, columns), name=name)(padded)))
    mean = layers.Average(name="mean_logits")(views)
    return keras.Model(images, mean, name="five_views")


def _stock(layer: keras.layers.Layer) -> keras.layers.Layer:
    """A new layer like this one, of Keras' own class."""
    fused = isinstance(layer, FusedBatchNormalization)
    return (keras.layers.BatchNormalization if fused else type(layer)).from_config(
        layer.get_config()
    )
