"""Stage 2, preprocess: normalised arrays, split into train, validation and test, in data/processed.

Reads the IDX files block by block and writes six .npy files, so the memory it needs does not grow
with the images. Nothing appears under a final name before every input has been read to its end.
"""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
from tqdm import tqdm

from stages.base import arrays
from stages.dataset import catalogue as datasets
from stages.dataset import idx
from stages.base import params
from stages.base.arrays import PROCESSED
from stages.dataset.catalogue import RAW, TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS
from stages.base.stage import UserError, run_stage

SIDE = 28  # pixels


def preprocess(
    raw: Path, processed: Path, classes: int, validation_size: int | float, seed: int
) -> dict[str, int]:
    """Turn the four IDX files in `raw` into the six arrays in `processed`.

    Images become float32 in [0, 1] (the byte / 255), shape (N, 28, 28, 1); labels stay uint8,
    shape (N,). Both keep the order of the files.

    Args:
        raw: folder with the four gzipped IDX files.
        processed: folder for {train,validation,test}_{images,labels}.npy.
        classes: labels must be below this.
        validation_size: a number of images, or a share of the training set, for validation.
        seed: which images those are.

    Returns:
        Images per split.

    Raises:
        UserError: an input is missing or damaged, images and labels don't belong together, or
            validation_size does not fit the training set. `processed` is then as it was before.
    """
    train_labels = read_labels(raw / TRAIN_LABELS, raw / TRAIN_IMAGES, classes)
    test_labels = read_labels(raw / TEST_LABELS, raw / TEST_IMAGES, classes)
    held_out = stratified_sample(train_labels, validation_size, seed)
    splits = {  # file of images: its labels, and the splits that its images go to
        raw / TRAIN_IMAGES: (train_labels, {"train": ~held_out, "validation": held_out}),
        raw / TEST_IMAGES: (test_labels, {"test": np.ones(len(test_labels), bool)}),
    }
    counts = {}
    with ExitStack() as outputs:  # its end, after the last input was read, renames all outputs
        for path, (labels, members) in splits.items():
            appenders = {}
            for split, member in members.items():
                counts[split] = int(member.sum())
                for name, shape, dtype in (
                    ("images", (counts[split], SIDE, SIDE, 1), np.float32),
                    ("labels", (counts[split],), np.uint8),
                ):
                    appenders[split, name] = outputs.enter_context(
                        arrays.appending(processed / f"{split}_{name}.npy", shape, dtype)
                    )
                appenders[split, "labels"](labels[member])
            start = 0
            with tqdm(desc=path.name, total=len(labels), unit=" images", disable=None) as progress:
                for block in idx.read_blocks(path, dimensions=3):
                    images = (block / np.float32(255))[..., np.newaxis]
                    for split, member in members.items():
                        appenders[split, "images"](images[member[start : start + len(block)]])
                    start += len(block)
                    progress.update(len(block))
    return counts


def read_labels(path: Path, images: Path, classes: int) -> np.ndarray:
    """The labels in `path`, uint8, shape (N,), checked against the header of their `images`.

    Raises:
        UserError: a label is out of range, or there are not as many labels as 28×28 images.
    """
    count, *size = idx.read_shape(images, dimensions=3)
    if size != [SIDE, SIDE]:
        raise UserError(f"{images}: expected images of {SIDE}×{SIDE}, found {size[0]}×{size[1]}")
    (found,) = idx.read_shape(path, dimensions=1)
    if found != count:
        raise UserError(f"{path} has {found:,} labels, {images} has {count:,} images")
    labels = np.concatenate(list(idx.read_blocks(path, dimensions=1, block_size=2**20)))
    if labels.max() >= classes:
        raise UserError(
            f"{path}: expected labels from 0 to {classes - 1}, found {labels.max()} "
            f"at index {labels.argmax():,}"
        )
    return labels


def stratified_sample(labels: np.ndarray, size: int | float, seed: int) -> np.ndarray:
    """Choose `size` of the labels at random, from each class in proportion to its frequency.

    Args:
        labels: uint8, shape (N,).
        size: a number (int), or a share of N (float in (0, 1), rounded).
        seed: of numpy's default generator.

    Returns:
        bool, shape (N,), with `size` true values; per class within one of its exact share.

    Raises:
        UserError: size is not below N.
    """
    count = size if isinstance(size, int) else round(size * len(labels))
    if count >= len(labels):
        raise UserError(
            f"preprocess.validation_size: {count:,} images of a training set of {len(labels):,} "
            "would leave none to train on"
        )
    frequencies = np.bincount(labels)
    shares = frequencies * count / len(labels)
    counts = shares.astype(int)
    missing = count - counts.sum()
    counts[np.argsort(counts - shares, kind="stable")[:missing]] += 1  # largest remainders first
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), bool)
    for label, number in enumerate(counts):
        chosen[rng.choice(np.flatnonzero(labels == label), number, replace=False)] = True
    return chosen


def main() -> None:
    settings = params.load()
    classes = len(datasets.find(settings.download.dataset).classes)
    counts = preprocess(
        RAW, PROCESSED, classes, settings.preprocess.validation_size, settings.preprocess.seed
    )
    print(", ".join(f"{count:,} {split}" for split, count in counts.items()), "images")


if __name__ == "__main__":
    run_stage(main)
