"""Muon, the optimizer: Nesterov SGD whose steps on convolution kernels are made orthogonal.

A gradient is mostly a few strong directions. Muon replaces the momentum of each kernel, seen as a
matrix, by the nearest matrix whose singular values are all about 1, so that weak directions are
learnt as fast as strong ones.

Method: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024),
kellerjordan.github.io/posts/muon; kernels normalised as in K. Jordan's airbench94_muon.
Keras' own Muon leaves convolution kernels to Adam, hence this file.
"""

from stages.network.runtime import keras, tf

# Quintic of the Newton–Schulz iteration, from the source above: steep at 0, so that five rounds
# bring singular values between 0.003 and 1 to between 0.7 and 1.2.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ROUNDS = 5
MOMENTUM = 0.6  # airbench94_muon's; orthogonal steps need less smoothing than plain ones


class Muon(keras.optimizers.SGD):
    """Muon for the inner convolutions' kernels, Nesterov SGD for all other variables.

    All convolutions are inner ones but the first, whose layer is called `stem`.

    Args:
        learning_rate: a schedule or number for SGD.
        muon_ratio: Muon's rate as a multiple of `learning_rate`.
        momentum, weight_decay: of SGD. Muon has no decay: it keeps each kernel's norm at the square
            root of its number of filters. Batch normalisation makes up for any norm.
    """

    def __init__(self, learning_rate, muon_ratio: float, momentum: float, weight_decay: float):
        super().__init__(learning_rate, momentum, nesterov=True, weight_decay=weight_decay)
        self.muon_ratio = muon_ratio

    def build(self, variables: list[keras.Variable]) -> None:
        self.is_inner = [is_inner_kernel(variable) for variable in variables]
        self.exclude_from_weight_decay(
            var_list=[kernel for kernel in variables if is_inner_kernel(kernel)],
            var_names=["bias", "gamma", "beta"],
        )
        super().build(variables)

    def update_step(self, gradient, variable, learning_rate) -> None:
        index = self._get_variable_index(variable)
        if not self.is_inner[index]:
            super().update_step(gradient, variable, learning_rate)
            return
        velocity = self.momentums[index]
        velocity.assign(MOMENTUM * velocity + gradient)
        filters = variable.shape[-1]
        step = tf.reshape(gradient + MOMENTUM * velocity, (-1, filters))
        step = tf.reshape(orthogonalise(step), variable.shape)
        kernel = variable * (filters**0.5 / (tf.norm(variable) + 1e-7))
        variable.assign(kernel - learning_rate * self.muon_ratio * step)


def is_inner_kernel(variable: keras.Variable) -> bool:
    """Whether Muon steps this variable: the kernel of a convolution that is not the stem."""
    return len(variable.shape) == 4 and "stem" not in variable.path.split("/")


def orthogonalise(matrix: tf.Tensor) -> tf.Tensor:
    """The matrix with the same singular vectors and singular values of about 1 (0.7 to 1.2).

    Args:
        matrix: float32, two dimensions.

    Returns:
        float32, the same shape.
    """
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = tf.transpose(matrix) if tall else matrix  # the products below are of the shorter side
    x /= tf.norm(x) + 1e-7
    for _ in range(ROUNDS):
        square = tf.matmul(x, x, transpose_b=True)
        x = a * x + tf.matmul(b * square + c * tf.matmul(square, square), x)
    return tf.transpose(x) if tall else x
