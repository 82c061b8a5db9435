"""The packaged networks on the original MNIST-C, so that their error compares with published ones.

    python -m benchmarks.mnist_c <folder of the unpacked archive>

MNIST-C (N. Mu and J. Gilmer, 2019; zenodo.org/records/3239543) has the 10,000 test images under 15
corruptions, a folder each with test_images.npy and test_labels.npy. Nothing is written: the errors
are printed. The pipeline's own corruptions (stages/report/corruptions.py) need no such files.
"""

import argparse
from pathlib import Path

import numpy as np
from tqdm import tqdm

from stages.base import params
from stages.base.stage import UserError, run_stage
from stages.network.settings import Seeds
from stages.prediction.predict import Predictor
from stages.report import scores


def load(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The test images of one corruption, float32 in [0, 1], and their labels.

    Raises:
        UserError: a file cannot be loaded, or has another shape or type.
    """
    try:
        images, labels = (np.load(folder / f"test_{kind}.npy") for kind in ("images", "labels"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: {error}") from None
    if images.dtype != np.uint8 or images.shape != (len(labels), 28, 28, 1):
        raise UserError(
            f"{folder}/test_images.npy: expected uint8 of shape ({len(labels)}, 28, 28, 1), "
            f"found {images.dtype} of shape {images.shape}"
        )
    return images.astype(np.float32) / 255, labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="with a folder for each corruption")
    root = parser.parse_args().folder
    folders = sorted(path.parent for path in root.glob("*/test_images.npy"))
    if not folders:
        raise UserError(f"{root}: expected folders with test_images.npy, found none")
    predictors = [Predictor(seed) for seed in params.load("seeds", Seeds)]
    errors = {}
    for folder in tqdm(folders, disable=None, leave=False):
        images, labels = load(folder)
        predicted = scores.mean_prediction([each(images)[0] for each in predictors]).argmax(axis=1)
        errors[folder.name] = float((predicted != labels).mean())
        tqdm.write(f"{folder.name}: {scores.percent(errors[folder.name])}")
    corrupted = [error for name, error in errors.items() if name != "identity"]
    if corrupted:
        print(f"mean of {len(corrupted)} corruptions: {scores.percent(np.mean(corrupted))}")


if __name__ == "__main__":
    run_stage(main)
