"""Stage 4, evaluate: the one look at the test set; numbers into metrics, pictures into plots.

Each network is scored alone; with several seeds, what is shown and what counts as the prediction is
the mean of their probabilities.
"""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from stages.base import arrays
from stages.prediction import calibration
from stages.network import curves
from stages.dataset import catalogue as datasets
from stages.report import diagnostics
from stages.network import saved as models
from stages.base import params
from stages.report import pictures
from stages.report import scores
from stages.base.files import replacing, replacing_together
from stages.base.stage import run_stage

DISPUTED = Path(__file__).with_name("disputed_labels.csv")
METRICS_FILE = Path("metrics/evaluate.json")
CONFUSION_MATRIX = Path("metrics/confusion_matrix.csv")
PREDICTIONS = Path("plots/confusion.csv")
PICTURES = Path("plots")


def evaluate(
    labels: np.ndarray, probabilities: dict[int, np.ndarray], classes: tuple[str, ...]
) -> tuple[dict, np.ndarray]:
    """Score the networks alone and together.

    Args:
        labels: integers, shape (N,).
        probabilities: by seed, shape (N, classes).
        classes: names by label.

    Returns:
        The report of the mean prediction; with several seeds it has the reports of each under
        `seeds`, their mean and standard deviation (of a sample, n - 1) under `mean` and `std`, and
        the number of images that all of them misread.
        The mean prediction, float32, shape (N, classes).
    """
    mean = scores.mean_prediction(list(probabilities.values()))
    result = scores.report(labels, mean, classes)
    if len(probabilities) > 1:
        reports = {
            str(seed): scores.report(labels, of_seed, classes)
            for seed, of_seed in probabilities.items()
        }
        every = list(reports.values())
        result["mean"] = scores.across(every, np.mean)
        result["std"] = scores.across(every, lambda values: np.std(values, ddof=1))
        result["seeds"] = reports
        wrong = [of_seed.argmax(axis=1) != labels for of_seed in probabilities.values()]
        result["errors_of_all_seeds"] = int(np.all(wrong, axis=0).sum())
    return result, mean


def remove_strays(seeds: list[int]) -> None:
    """Delete the networks and curves of seeds that have left train.seeds.

    DVC does not, and this stage depends on both folders as a whole: without this, their checksums
    would tell what had been trained before. DVC's cache keeps the networks for a seed's return.
    """
    kept = {f"seed-{seed}" for seed in seeds}
    for path in [*models.MODELS.glob("seed-*.keras"), *curves.CURVES.glob("seed-*")]:
        if path.stem not in kept:
            print(f"{path}: removed, its seed is no longer in train.seeds")
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def disputed_labels(dataset: str) -> np.ndarray:
    """Indices of the test images of `dataset` whose label is in doubt; empty if none are known."""
    frame = pd.read_csv(DISPUTED, comment="#")
    return frame.loc[frame["dataset"] == dataset, "index"].to_numpy()


def write_csv(frame: pd.DataFrame, path: Path, **options) -> None:
    """Write `frame` with line feeds on every system, whole or not at all."""
    with replacing(path) as temporary:
        frame.to_csv(temporary, lineterminator="\n", encoding="utf-8", **options)


def main() -> None:
    settings = params.load()
    seeds = settings.train.seeds
    remove_strays(seeds)
    classes = datasets.find(settings.download.dataset).classes
    images, labels = arrays.load_split(arrays.PROCESSED, "test")
    networks = {seed: models.load(models.path_of(seed), len(classes)) for seed in seeds}
    probabilities, unscaled = {}, []
    for seed, model in networks.items():
        probabilities[seed] = models.predict(model, images)
        temperature = calibration.temperature(model)
        unscaled.append(calibration.unscaled(probabilities[seed], temperature))
        print(f"seed {seed}: accuracy {np.mean(probabilities[seed].argmax(1) == labels):.2%}")
    result, mean = evaluate(labels, probabilities, classes)
    heading = {
        "dataset": settings.download.dataset,
        "test_images": len(labels),
        "networks": len(seeds),
    }
    mean_unscaled = scores.mean_prediction(unscaled)
    result["calibration_error_unscaled"] = scores.calibration_error(labels, mean_unscaled)
    predicted = mean.argmax(axis=1)
    counts = confusion_matrix(labels, predicted, labels=range(len(classes)))
    result["confusions"] = scores.frequent_confusions(counts, classes)
    disputed = disputed_labels(settings.download.dataset)
    if len(disputed):
        undisputed = np.delete(predicted == labels, disputed)
        result["accuracy_undisputed"] = float(undisputed.mean())
    names = np.array(classes)
    frame = pd.DataFrame(
        {
            "index": np.arange(len(labels)),
            "actual": names[labels],
            "predicted": names[predicted],
            "confidence": mean.max(axis=1).astype(np.float64).round(6),
        }
    )
    shown = images, labels, mean, classes
    drawn = {
        "predictions": pictures.sample_predictions(
            *shown, settings.evaluate.samples, settings.evaluate.seed
        ),
        "mistakes": pictures.mistakes(*shown, settings.evaluate.mistakes, disputed),
        "uncertain": pictures.uncertain(*shown, settings.evaluate.uncertain, disputed),
        "confusion_matrix": pictures.confusion_matrix(counts, classes),
        "class_errors": diagnostics.class_errors(labels, mean, classes),
        "reliability": diagnostics.reliability(labels, mean, mean_unscaled),
        "confidence": diagnostics.confidence_histogram(labels, mean),
        "occlusion": diagnostics.occlusion(
            *shown,
            lambda erased: scores.mean_prediction(
                [models.predict(model, erased) for model in networks.values()]
            ),
        ),
        "learning_curves": pictures.learning_curves(
            {seed: curves.read(curves.CURVES / f"seed-{seed}") for seed in seeds}
        ),
    }
    matrix = pd.DataFrame(counts, classes, classes)
    with replacing_together() as new:
        scores.write_json(new(METRICS_FILE), heading | result)
        write_csv(matrix, new(CONFUSION_MATRIX), index_label="actual")
        write_csv(frame, new(PREDICTIONS), index=False)
        for name, figure in drawn.items():
            pictures.save(figure, new(PICTURES / f"{name}.png"))
    print(
        f"{settings.download.dataset}: {result['errors']} errors in {len(labels):,} test images, "
        f"accuracy {result['accuracy']:.2%}, {len(seeds)} network{'s' * (len(seeds) > 1)}"
    )


if __name__ == "__main__":
    run_stage(main)
