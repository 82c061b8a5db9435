"""The dataset `digits`: 1,797 small scans that scikit-learn carries, made to look like MNIST.

With it, everything runs without a network. It is not MNIST: there are fewer images, of a lower
resolution; the metrics files name the dataset that was used.
"""

from pathlib import Path

import numpy as np

from stages.dataset import idx
from stages.dataset.catalogue import TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS

TEST_SIZE = 360  # the last fifth: scans are sorted by writer, so training sees few test writers


def write_digits(folder: Path) -> None:
    """Write the four IDX files of `digits` into `folder`.

    The 8×8 scans (0 to 16) become 20×20 by linear interpolation and get MNIST's margin of 4 pixels:
    1,437 training and 360 test images, uint8, 28×28.
    """
    from scipy import ndimage  # here: these imports take a second
    from sklearn.datasets import load_digits

    bunch = load_digits()
    scans = ndimage.zoom(bunch.images, (1, 2.5, 2.5), order=1, mode="grid-constant", grid_mode=True)
    images = np.rint(scans / 16 * 255).astype(np.uint8)
    images = np.pad(images, ((0, 0), (4, 4), (4, 4)))
    labels = bunch.target.astype(np.uint8)
    idx.write(folder / TRAIN_IMAGES, images[:-TEST_SIZE])
    idx.write(folder / TRAIN_LABELS, labels[:-TEST_SIZE])
    idx.write(folder / TEST_IMAGES, images[-TEST_SIZE:])
    idx.write(folder / TEST_LABELS, labels[-TEST_SIZE:])
