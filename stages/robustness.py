"""Stage robustness: how well the models predict test images that have been corrupted.

Nothing depends on it, so it can be left out: `dvc repro evaluate` stops before it. As in evaluate,
the prediction of several models is the mean of their probabilities.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from stages.base import data, params
from stages.base.data import Split
from stages.base.files import atomic_outputs, write_csv, write_json
from stages.base.settings import Robustness
from stages.base.stage import run_stage
from stages.prediction.predict import Ensemble, remove_others
from stages.report import drawing, pictures, scores
from stages.report.corruptions import CORRUPTIONS, MNIST_C, corrupt

METRICS = Path("metrics/robustness.json")
CORRUPTION_ERRORS = Path("metrics/corruptions.csv")
EXAMPLES = Path("plots/robustness/corruptions.png")


def robustness(
    test: Split, predict: Callable[[np.ndarray], np.ndarray], settings: Robustness
) -> pd.DataFrame:
    """Predict some test images as they are and under each corruption, and write what is found.

    Args:
        test: the images.
        predict: from images, float32 in [0, 1], shape (N, height, width, channels), to
            probabilities, shape (N, classes).
        settings: the section `robustness` of params.yaml.

    Returns:
        What metrics/corruptions.csv says, a row per corruption.
    """
    sample = np.random.default_rng(settings.seed).permutation(len(test.labels))[: settings.images]
    images, labels = data.scaled(test.images[sample]), test.labels[sample]
    rows, examples = {}, {}
    for name in ("none", *CORRUPTIONS):
        corrupted = images if name == "none" else corrupt(images, name, settings.seed)
        probabilities = predict(corrupted)
        predicted = probabilities.argmax(axis=1)
        examples[name] = corrupted[0], int(predicted[0]), float(probabilities[0].max())
        errors = int((predicted != labels).sum())
        rows[name] = {"error": errors / len(labels), **scores.wilson_interval(errors, len(labels))}
        rows[name] |= {"errors": errors, "images": len(labels)}
        rows[name]["ece"] = scores.calibration_error(labels, probabilities)
        rows[name]["aurc"] = scores.risk_coverage_area(labels, probabilities)
        print(f"{name}: error {scores.percent(rows[name]['error'])}", flush=True)
    frame = pd.DataFrame(rows.values(), index=rows.keys()).round(5)
    headline = {
        "corrupt": round(float(frame["error"][list(MNIST_C)].mean()), 4),
        "corrupted": f"{test.info.name}, {len(labels):,} images",
    }
    with atomic_outputs() as temporary:
        write_json(temporary(METRICS), headline)
        write_csv(temporary(CORRUPTION_ERRORS), frame, index_label="corruption")
        picture = pictures.corruptions(examples, int(labels[0]), test.info.classes)
        drawing.save(picture, temporary(EXAMPLES))
    return frame


def main() -> None:
    settings = params.load()
    remove_others(settings.seeds)
    model, test = Ensemble(settings.seeds), data.load_split("test")
    frame = robustness(test, lambda images: model(images)[0], settings.robustness)
    counted = frame["error"][list(MNIST_C)]
    mean, most = scores.percent(counted.mean()), scores.percent(counted.max())
    print(
        f"{len(counted)} corruptions: error {mean} on average, at most {most} ({counted.idxmax()})"
    )


if __name__ == "__main__":
    run_stage(main, __doc__)
