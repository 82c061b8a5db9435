"""Stage preprocess: normalised arrays in three splits, data/processed/{train,validation,test}.

Loads the IDX files and writes the arrays block by block, so the memory needed does not grow with
the number of images. The arrays get their names only when all files have been read to the end: a
damaged one changes nothing.
"""

from contextlib import ExitStack
from pathlib import Path

import numpy as np

from stages.base import arrays, params
from stages.base.stage import UserError, run_stage
from stages.dataset import catalogue, idx
from stages.dataset.catalogue import RAW, TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS
from stages.dataset.settings import Download, Preprocess, held_out

IMAGE_SIZE = 28  # pixels


def preprocess(raw: Path, processed: Path, classes: int, settings: Preprocess) -> dict[str, int]:
    """Turn the four IDX files in `raw` into the arrays in `processed`.

    Images become float32 in [0, 1] (the byte / 255), shape (N, 28, 28, 1); labels stay uint8,
    shape (N,). Both keep the order of the files.

    Args:
        raw: folder with the four gzipped IDX files.
        processed: folder for {train,validation,test}/{images,labels}.npy.
        classes: labels must be below this.
        settings: how many images are for validation, and which.

    Returns:
        Images per split.

    Raises:
        UserError: an input is missing or damaged, images and labels don't belong together, or
            validation_size does not fit the training set. `processed` is then as it was before.
    """
    train_labels = load_labels(raw / TRAIN_LABELS, raw / TRAIN_IMAGES, classes)
    test_labels = load_labels(raw / TEST_LABELS, raw / TEST_IMAGES, classes)
    count = held_out(settings.validation_size, len(train_labels))
    validation = stratified_sample(train_labels, count, settings.seed)
    parts = {  # by file of images: its labels, and which of them belong to each split
        raw / TRAIN_IMAGES: (train_labels, {"train": ~validation, "validation": validation}),
        raw / TEST_IMAGES: (test_labels, {"test": np.ones(len(test_labels), bool)}),
    }
    counts = {}
    with ExitStack() as outputs:  # at its end, all outputs get their final names
        enter = outputs.enter_context
        for path, (labels, splits) in parts.items():
            appends = {}
            for split, members in splits.items():
                folder, counts[split] = processed / split, int(members.sum())
                shape = (counts[split], IMAGE_SIZE, IMAGE_SIZE, 1)
                enter(arrays.appending(folder / "labels.npy", shape[:1], np.uint8))(labels[members])
                appends[split] = enter(arrays.appending(folder / "images.npy", shape, np.float32))
            start = 0
            for block in idx.read_blocks(path, dimensions=3):
                for split, members in splits.items():
                    chosen = members[start : start + len(block)]
                    appends[split]((block[chosen] / np.float32(255))[..., np.newaxis])
                start += len(block)
    return counts


def load_labels(path: Path, images: Path, classes: int) -> np.ndarray:
    """The labels in `path`, uint8, shape (N,), checked against the header of their `images`.

    Raises:
        UserError: a label is out of range, or there are not as many labels as 28×28 images.
    """
    count, *size = idx.read_shape(images, dimensions=3)
    if size != [IMAGE_SIZE, IMAGE_SIZE]:
        raise UserError(f"{images}: expected images of 28×28 pixels, found {size[0]}×{size[1]}")
    (found,) = idx.read_shape(path, dimensions=1)
    if found != count:
        raise UserError(f"{path}: expected {count:,} labels, one per image, found {found:,}")
    labels = np.concatenate(list(idx.read_blocks(path, dimensions=1, block_size=2**20)))
    if labels.max() >= classes:
        raise UserError(
            f"{path}: expected labels from 0 to {classes - 1}, found {labels.max()} "
            f"at index {labels.argmax():,}"
        )
    return labels


def stratified_sample(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Choose `count` of the labels at random, from each class in proportion to its frequency.

    Args:
        labels: uint8, shape (N,).
        count: below N.
        seed: of numpy's default generator.

    Returns:
        bool, shape (N,), with `count` true values: of each class its share, rounded up or down.
    """
    shares = np.bincount(labels) * count / len(labels)
    counts = shares.astype(int)
    largest_remainders_first = np.argsort(counts - shares, kind="stable")
    counts[largest_remainders_first[: count - counts.sum()]] += 1
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), bool)
    for label, number in enumerate(counts):
        chosen[rng.choice(np.flatnonzero(labels == label), number, replace=False)] = True
    return chosen


def main() -> None:
    dataset = catalogue.find(params.load("download", Download).dataset)
    settings = params.load("preprocess", Preprocess)
    counts = preprocess(RAW, arrays.PROCESSED, len(dataset.classes), settings)
    print(", ".join(f"{count:,} {split}" for split, count in counts.items()), "images")


if __name__ == "__main__":
    run_stage(main)
