"""Training batches: shuffled and augmented inside TensorFlow's graph, while the last one trains.

Order and augmentation of a batch are a pure function of (seed, epoch, step): not of what ran
before, nor of how many threads prepare it. A batch's images are read from their array when its turn
comes: training on a memory-mapped file needs the memory of a few batches, however long the file.

A file that is larger than the memory would be read from the disk in the order of the batches, image
by image. So an array of more than WINDOW images is shuffled in two steps: its blocks of consecutive
images are put in random order, then the images of WINDOW / BLOCK blocks at a time. The blocks of a
window are read while the window before is trained on. A batch then has images from 512 random
places of the array, in place of all places.
"""

import mmap
from collections.abc import Callable

import numpy as np

from stages.base.params import SEED_LIMIT
from stages.network.augment import random_affine
from stages.network.photometric import random_photometric
from stages.network.runtime import tf
from stages.network.settings import Train

BLOCK = 256  # images read together: 0.8 MB
WINDOW = 512 * BLOCK  # images that are shuffled together: 0.4 GB; up to here each order is possible


def training_batches(
    images: np.ndarray, labels: np.ndarray, classes: int, settings: Train, epochs: range, seed: int
) -> tf.data.Dataset:
    """The batches of some epochs, in order.

    Each epoch visits the images in a new random order. Those left over after the last full batch
    are skipped in that epoch; they are others in the next.

    Args:
        images: float32, shape (N, height, width, channels); may be memory-mapped, is not copied.
        labels: uint8, shape (N,).
        classes: width of the one-hot labels.
        settings: batch_size, at most N, and how images are changed at random.
        epochs: which ones; it stops where the training does. The batches of an epoch do not
            depend on the epochs before it.
        seed: non-negative; different seeds give unrelated orders and transformations.

    Returns:
        len(epochs) · (N // batch_size) elements: images like `images`, shape (batch_size, ...), and
        one-hot float32 labels, shape (batch_size, classes).
    """
    count, batch_size = len(images), settings.batch_size
    steps = count // batch_size
    labels = tf.constant(labels)
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    # Order, movement and photometric changes each have random numbers of their own.
    shuffle_seed = tf.constant(seed, tf.int64)
    augment_seed = shuffle_seed + SEED_LIMIT
    photometric_seed = augment_seed + SEED_LIMIT

    def shuffled(epoch: tf.Tensor) -> tf.data.Dataset:
        rows = order(count, tf.stack([shuffle_seed, epoch]), images)
        numbers = tf.data.Dataset.range(epoch * steps, (epoch + 1) * steps)
        return tf.data.Dataset.zip(numbers, rows.batch(batch_size, drop_remainder=True))

    @tf.autograph.experimental.do_not_convert  # saves a second: none of its branches is on a tensor
    def batch(step: tf.Tensor, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # stateful=False: as a stateful function it could not run in two threads at once.
        read = tf.numpy_function(images.__getitem__, [rows], images.dtype, stateful=False)
        chosen = tf.ensure_shape(read, (batch_size, *images.shape[1:]))
        moved = random_affine(chosen, settings.augment, tf.stack([augment_seed, step]))
        progress = tf.cast(step / (epochs.stop * steps), tf.float32)
        pair = tf.stack([photometric_seed, step])
        changed = random_photometric(moved, settings.photometric, pair, progress)
        return changed, tf.one_hot(tf.gather(labels, rows), classes)

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


def order(count: int, seed: tf.Tensor, images: np.ndarray) -> tf.data.Dataset:
    """The numbers from 0 to count - 1, each once, in random order; see the top of this file.

    Args:
        count: of images.
        seed: int64, shape (2,).
        images: from which they will be read.
    """
    shuffle, slices = tf.random.experimental.stateless_shuffle, tf.data.Dataset.from_tensor_slices
    if count <= WINDOW:
        return slices(shuffle(tf.range(count), seed))
    blocks = shuffle(tf.range(-(-count // BLOCK)), seed)

    def announced(number: tf.Tensor, chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return number, tf.numpy_function(read_ahead(images), [chosen], tf.int32, stateful=False)

    def window(number: tf.Tensor, chosen: tf.Tensor) -> tf.data.Dataset:
        rows = tf.reshape(chosen[:, None] * BLOCK + tf.range(BLOCK), [-1])
        rows = rows[rows < count]  # the last block may be shorter
        return slices(shuffle(rows, tf.random.fold_in(seed, number + 1)))

    windows = slices(blocks).batch(WINDOW // BLOCK).enumerate()
    return windows.map(announced).prefetch(1).flat_map(window)


def read_ahead(images: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A function that lets the system read blocks of a memory-mapped array, and nothing else.

    By itself it would read megabytes around each image, and with little memory drop them unused.
    """
    mapped = getattr(images, "_mmap", None)
    if not hasattr(mapped, "madvise"):  # an array in memory; or Windows
        return lambda blocks: blocks
    mapped.madvise(mmap.MADV_RANDOM)

    def announce(blocks: np.ndarray) -> np.ndarray:
        size = BLOCK * images[0].nbytes
        for block in blocks:
            start = (images.offset + int(block) * size) // mmap.PAGESIZE * mmap.PAGESIZE
            length = min(size + mmap.PAGESIZE, len(mapped) - start)
            mapped.madvise(mmap.MADV_WILLNEED, start, length)
        return blocks

    return announce
