"""The dataset `digits`: 1,797 small scans that scikit-learn carries, made to look like MNIST.

With it, everything runs offline. It is not MNIST: there are fewer images, of a lower resolution;
the metrics files name the dataset that was used.
"""

from pathlib import Path

import numpy as np

from stages.base.data import DatasetInfo
from stages.dataset import idx

NAME = "digits"
TEST_SIZE = 360  # the last fifth: scans are sorted by writer, so training sees few test writers
# Alpaydin, Kaynak (UCI, 1998).
INFO = DatasetInfo(
    name=NAME,
    subject="handwritten digits",
    licence="CC BY 4.0",
    classes=tuple("0123456789"),
    height=28,  # as MNIST's
    width=28,
    channels=1,
    images={"train": 1797 - TEST_SIZE, "test": TEST_SIZE},
)


def write_digits(folder: Path) -> None:
    """Write the four IDX files of `digits` into `folder`.

    The scans of 8×8 (0 to 16) become 20×20 by linear interpolation and get MNIST's margin of 4
    pixels: 1,437 training and 360 test images, uint8.
    """
    from scipy import ndimage  # here: these imports take a second
    from sklearn.datasets import load_digits

    bunch = load_digits()
    scans = ndimage.zoom(bunch.images, (1, 2.5, 2.5), order=1, mode="grid-constant", grid_mode=True)
    images = np.rint(scans / 16 * 255).astype(np.uint8)
    images = np.pad(images, ((0, 0), (4, 4), (4, 4)))
    parts = {"train": slice(None, -TEST_SIZE), "test": slice(-TEST_SIZE, None)}
    for split, part in parts.items():
        idx.write(folder / idx.images_file(split), images[part])
        idx.write(folder / idx.labels_file(split), bunch.target[part])
