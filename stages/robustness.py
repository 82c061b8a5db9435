"""Stage 5, robustness: how well the networks read test images that have been corrupted.

Nothing depends on it, so it can be skipped: `dvc repro evaluate` stops before it. As in evaluate,
the prediction of several networks is the mean of their probabilities.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from stages.base import arrays
from stages.report import corruption_pictures
from stages.dataset import catalogue as datasets
from stages.network import saved as models
from stages.base import params
from stages.report import pictures
from stages.report import scores
from stages.base.files import replacing_together
from stages.report.corruptions import CORRUPTIONS
from stages.base.stage import UserError, run_stage

# Clean images are read in evaluate. That it runs first has a second use: it removes the networks
# that have left train.seeds, so that the checksum of the folder `models` is that of a clean run.
CLEAN_PREDICTIONS = Path("plots/confusion.csv")
METRICS_FILE = Path("metrics/robustness.json")
EXAMPLES = Path("plots/corruptions.png")
ERROR_RATES = Path("plots/robustness.png")


def corrupt(images: np.ndarray, name: str, seed: int) -> np.ndarray:
    """The images under the corruption `name`, which has random numbers of its own.

    Args:
        images: float32 in [0, 1], shape (N, height, width).
        name: a key of CORRUPTIONS.
        seed: of the random numbers.
    """
    return CORRUPTIONS[name](images, np.random.default_rng([seed, *name.encode()]))


def clean_predictions(
    labels: np.ndarray, classes: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """What evaluate noted of each test image: the predicted label and its probability.

    Raises:
        UserError: the file is missing or not of images with these labels.
    """
    names = pd.Index(classes)
    try:
        frame = pd.read_csv(CLEAN_PREDICTIONS, dtype={"actual": str, "predicted": str})
        actual, predicted = (names.get_indexer(frame[key]) for key in ("actual", "predicted"))
        confidence = frame["confidence"].to_numpy(np.float64)
    except FileNotFoundError:
        raise UserError(f"{CLEAN_PREDICTIONS} not found: run `dvc repro evaluate`") from None
    except (ValueError, KeyError):  # no CSV, other columns, no numbers
        actual = ()
    if not np.array_equal(actual, labels):
        raise UserError(
            f"{CLEAN_PREDICTIONS} is not about the {len(labels):,} test images in "
            f"{arrays.PROCESSED}: run `dvc repro --force evaluate`"
        )
    return predicted, confidence


def main() -> None:
    settings = params.load()
    seed = settings.robustness.seed
    classes = datasets.find(settings.download.dataset).classes
    images, labels = arrays.load_split(arrays.PROCESSED, "test")
    predicted, confidence = clean_predictions(labels, classes)
    networks = [models.load(models.path_of(each), len(classes)) for each in settings.train.seeds]

    sample = np.random.default_rng(seed).permutation(len(labels))[: settings.robustness.images]
    images, labels = images[sample, :, :, 0], labels[sample]
    predicted, confidence = predicted[sample], confidence[sample]
    clean, results = scores.accuracy(labels, predicted), {}
    examples = {"clean": (images[0], predicted[0], confidence[0])}
    for name in tqdm(CORRUPTIONS, "robustness", unit=" corruptions", disable=None, leave=False):
        corrupted = corrupt(images, name, seed)
        each = [models.predict(network, corrupted[..., None]) for network in networks]
        mean = scores.mean_prediction(each)
        predicted = mean.argmax(axis=1)
        results[name] = scores.accuracy(labels, predicted)
        examples[name] = (corrupted[0], predicted[0], mean[0].max())
        tqdm.write(f"{name}: accuracy {results[name]['accuracy']:.2%}")

    mean_error = 1 - float(np.mean([result["accuracy"] for result in results.values()]))
    summary = {
        "dataset": settings.download.dataset,
        "images": len(labels),
        "networks": len(networks),
        "mean_error": mean_error,
        "clean": clean,
        "corruptions": results,
    }
    drawn = {
        EXAMPLES: corruption_pictures.gallery(examples, labels[0], classes),
        ERROR_RATES: corruption_pictures.error_rates(results, clean, mean_error, len(labels)),
    }
    with replacing_together() as new:
        scores.write_json(new(METRICS_FILE), summary)
        for path, figure in drawn.items():
            pictures.save(figure, new(path))
    print(
        f"{len(labels):,} images: {mean_error:.2%} misread under {len(results)} corruptions, "
        f"{1 - clean['accuracy']:.2%} without"
    )


if __name__ == "__main__":
    run_stage(main)
