"""Training batches: shuffled and augmented inside TensorFlow's graph, while the last one trains.

Order and augmentation of a batch are a pure function of (seed, epoch, step): not of what ran
before, nor of how many threads prepare it. A batch's images are read from their array when its turn
comes: training on a memory-mapped file needs the memory of a few batches, however long the file.
"""

import numpy as np

from stages.base.data import scaled
from stages.base.settings import SEED_LIMIT, Train
from stages.network.augment import random_affine
from stages.network.photometric import random_photometric
from stages.network.runtime import tf


def visits(count: int, settings: Train) -> int:
    """How often an epoch visits each of so many images, so that it has enough steps."""
    return -(-settings.least_steps * settings.batch_size // count)


def training_batches(
    images: np.ndarray, labels: np.ndarray, classes: int, settings: Train, epochs: range, seed: int
) -> tf.data.Dataset:
    """The batches of some epochs, in order.

    Each epoch visits the images in a new random order, several times if there are few (see
    `visits`). Those left over after the last full batch are skipped in that epoch; they are others
    in the next.

    Args:
        images: uint8, shape (N, height, width, channels); may be memory-mapped, is not copied.
        labels: uint8, shape (N,).
        classes: width of the one-hot labels.
        settings: batch_size, and how images are changed at random.
        epochs: which ones; it stops where the training does. The batches of an epoch do not
            depend on the epochs before it.
        seed: non-negative; different seeds give unrelated orders and transformations.

    Returns:
        len(epochs) · (visits · N // batch_size) elements: images, float32 in [0, 1], shape
        (batch_size, height, width, channels), and one-hot float32 labels, shape (batch_size,
        classes); with balanced class weights also the images' weights, float32, shape
        (batch_size,).
    """
    count, batch_size = len(images), settings.batch_size
    places = visits(count, settings) * count
    steps = places // batch_size
    weights = None
    if settings.class_weights == "balanced":
        counts = np.bincount(labels, minlength=classes)
        weights = tf.constant(count / np.maximum(counts, 1) / np.count_nonzero(counts), tf.float32)
    labels = tf.constant(labels)
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    # Order, movement and photometric changes each have random numbers of their own.
    shuffle_seed = tf.constant(seed, tf.int64)
    augment_seed = shuffle_seed + SEED_LIMIT
    photometric_seed = augment_seed + SEED_LIMIT

    def load(rows: np.ndarray) -> np.ndarray:
        return scaled(images[rows])

    def shuffled(epoch: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(
            tf.range(places) % count, tf.stack([shuffle_seed, epoch])
        )
        rows = tf.data.Dataset.from_tensor_slices(order)
        numbers = tf.data.Dataset.range(epoch * steps, (epoch + 1) * steps)
        return tf.data.Dataset.zip(numbers, rows.batch(batch_size, drop_remainder=True))

    @tf.autograph.experimental.do_not_convert  # saves a second: none of its branches is on a tensor
    def batch(step: tf.Tensor, rows: tf.Tensor) -> tuple[tf.Tensor, ...]:
        # stateful=False: as a stateful function it could not run in two threads at once.
        read = tf.numpy_function(load, [rows], tf.float32, stateful=False)
        chosen = tf.ensure_shape(read, (batch_size, *images.shape[1:]))
        moved = random_affine(chosen, settings.augment, tf.stack([augment_seed, step]))
        progress = tf.cast(step / (epochs.stop * steps), tf.float32)
        of_step = tf.stack([photometric_seed, step])
        changed = random_photometric(moved, settings.photometric, of_step, progress)
        own = tf.gather(labels, rows)
        pair = changed, tf.one_hot(own, classes)
        return pair if weights is None else (*pair, tf.gather(weights, tf.cast(own, tf.int32)))

    # With nothing to tune, the thread that does is only in the way: it may be asleep for as long
    # again as the training took, up to a minute, and its end is waited for.
    options = tf.data.Options()
    options.autotune.enabled = False
    return (
        tf.data.Dataset.range(epochs.start, epochs.stop)
        .flat_map(shuffled)
        .map(batch, num_parallel_calls=threads, deterministic=True)
        .prefetch(4)
        .with_options(options)
    )
