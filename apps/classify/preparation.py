"""A digit's ink as the model knows digits: as MNIST's were prepared.

Scaled into a box of 20×20 pixels with its aspect kept, antialiased, then moved so that the centre
of mass is the centre of 28×28 pixels (LeCun, Bottou, Bengio, Haffner, "Gradient-based learning
applied to document recognition", 1998, section III.A).
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

BOX, SIDE = 20, 28


def prepare(inks: Sequence[np.ndarray]) -> np.ndarray:
    """Digits as 28×28 images.

    Args:
        inks: of N digits, each float32 in [0, 1], cut to its bounding box, shape (height, width).

    Returns:
        float32 in [0, 1], white on black, shape (N, 28, 28).
    """
    images = [prepare_one(ink) for ink in inks]
    return np.array(images, np.float32).reshape(-1, SIDE, SIDE)


def prepare_one(ink: np.ndarray) -> np.ndarray:
    """One digit's image, shape (28, 28): MNIST's centre is the corner of the middle four pixels."""
    height, width = ink.shape
    scale = BOX / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(Image.fromarray(ink).resize(size, Image.Resampling.BICUBIC))
    small = np.clip(small / max(small.max(), 1e-6), 0, 1)
    rows, columns = np.indices(small.shape)
    total = small.sum()
    image = np.zeros((SIDE, SIDE), np.float32)
    start = [
        int(np.clip(round(SIDE / 2 - (small * index).sum() / total), 0, SIDE - length))
        for index, length in ((rows, small.shape[0]), (columns, small.shape[1]))
    ]
    image[start[0] : start[0] + small.shape[0], start[1] : start[1] + small.shape[1]] = small
    return image


def whole(picture: np.ndarray) -> np.ndarray:
    """A picture of one digit, whatever its paper: grey, uint8 -> light on dark, shape (28, 28)."""
    small = np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BOX)) / 255
    edge = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
    paper = np.median(edge)
    ink = small - paper if paper < small.mean() else paper - small
    return np.float32(np.clip(ink / max(ink.max(), 1e-6), 0, 1))
