"""Stage evaluate: numbers of the test images into metrics, pictures into plots.

Nothing is chosen by what it finds. With several seeds, the prediction is the mean of the models'
probabilities; each model is also scored alone.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import softmax

from stages.base import data, params
from stages.base.data import PROCESSED, Split, curves_of
from stages.base.files import atomic_outputs, write_csv, write_json
from stages.base.settings import Evaluate
from stages.base.stage import run_stage
from stages.prediction.calibration import mean_prediction
from stages.prediction.predict import Ensemble, remove_others
from stages.report import drawing, errors, pictures, scores
from stages.report.scores import percent

METRICS = Path("metrics/evaluate.json")
SEEDS = Path("metrics/seeds.json")
HEADLINE = Path("metrics/headline.csv")
CONFUSION = Path("metrics/confusion_matrix.csv")
MISCLASSIFIED = Path("metrics/misclassified.csv")
DETAILS = Path("metrics/details")
ERRORS = DETAILS / "errors.html"
PLOTS = Path("plots/evaluate")
# Beside the test images: their files' names, if they have any, and which are in other splits, too.
FILES, SEEN = PROCESSED / "test/files.json", PROCESSED / "test/seen.npy"


def evaluate(
    test: Split,
    predicted: dict[int, np.ndarray],
    mean: np.ndarray,
    unscaled: np.ndarray,
    curves: dict[int, pd.DataFrame],
    settings: Evaluate,
) -> dict:
    """Write all that is found of predictions of the test images.

    Args:
        test: the images.
        predicted: probabilities by seed, shape (N, classes).
        mean: the prediction of all models together, of the same shape.
        unscaled: the same without any temperature.
        curves: by seed, the table that training wrote.
        settings: the section `evaluate` of params.yaml.

    Returns:
        What metrics/evaluate.json says.
    """
    images, labels, numbers, info = test
    classes, disputed = info.classes, np.flatnonzero(np.isin(numbers, info.disputed))
    headline = {"dataset": info.name, "images": len(labels), "disputed": len(disputed)}
    headline |= fewer_digits(scores.headline(labels, mean, disputed))
    if SEEN.exists() and (seen := data.load(SEEN)).any():
        headline["seen"] = int(seen.sum())
        if not seen.all():
            correct = mean.argmax(axis=1) == labels
            headline["unseen"] = round(float(correct[~seen].mean()), 6)
    details = {"dataset": info.name, "images": len(labels)} | scores.report(labels, mean, classes)
    details["ece_unscaled"] = scores.calibration_error(labels, unscaled)
    details["seeds"] = {
        str(seed): scores.report(labels, probabilities, classes)
        for seed, probabilities in predicted.items()
    }
    accuracies = [of_seed["accuracy"] for of_seed in details["seeds"].values()]
    alone = {"seeds": len(accuracies), "mean": float(np.mean(accuracies))}
    if len(accuracies) > 1:
        alone["std"] = float(np.std(accuracies, ddof=1))  # of a sample
    names, guesses = np.array(classes), mean.argmax(axis=1)
    table = pd.DataFrame({"index": numbers, "actual": names[labels], "predicted": names[guesses]})
    table["confidence"] = mean.max(axis=1).astype(np.float64).round(4)
    files = json.loads(FILES.read_text(encoding="utf-8")) if FILES.exists() else None
    if files:
        table["file"] = files
    counts = scores.confusion_matrix(labels, guesses, len(classes))
    drawn = {
        "confusion_matrix": pictures.confusion_matrix(counts, classes),
        "learning_curves": pictures.learning_curves(curves),
        "predictions": pictures.sample_predictions(test, mean, settings.samples, settings.seed),
        "misclassified": pictures.misclassified(test, mean, settings.misclassified),
        "reliability": pictures.reliability(labels, mean, unscaled),
    }
    with atomic_outputs() as temporary:
        write_json(temporary(METRICS), headline)
        write_json(temporary(SEEDS), fewer_digits(alone))
        write_csv(temporary(HEADLINE), summary(headline, details, alone), index_label="measure")
        write_csv(
            temporary(CONFUSION), pd.DataFrame(counts, classes, classes), index_label="actual"
        )
        write_csv(temporary(DETAILS / "predictions.csv"), table.sort_values("index"), index=False)
        wrong = table[guesses != labels].sort_values("index")
        write_csv(temporary(MISCLASSIFIED), wrong, index=False)
        write_json(temporary(DETAILS / "scores.json"), details)
        temporary(ERRORS).write_text(errors.page(test, mean, files), encoding="utf-8", newline="\n")
        for name, picture in drawn.items():
            drawing.save(picture, temporary(PLOTS / f"{name}.png"))
    return headline


def fewer_digits(values: dict) -> dict:
    """Nested numbers with four decimals, as many as are worth comparing."""
    return json.loads(json.dumps(values), parse_float=lambda digits: round(float(digits), 4))


def summary(headline: dict, details: dict, alone: dict) -> pd.Series:
    """The result in words, by measure."""

    def interval(key: str) -> str:
        return " to ".join(map(percent, details[f"{key}_95"].values()))

    lines = {
        "dataset": f"{headline['dataset']}, {headline['images']:,} test images",
        "accuracy": percent(headline["accuracy"]),
        "95 % interval": interval("accuracy"),
        "errors": f"{headline['errors']:,}",
        "loss": f"{headline['loss']:.4f} nats",
        "calibration error (ece)": f"{100 * headline['ece']:.2f} points",
    }
    if "unseen" in headline:
        lines["accuracy of pictures that training has not"] = percent(headline["unseen"])
    for key, name in (("balanced_accuracy", "balanced accuracy"), ("macro_f1", "macro F1")):
        if key in headline:
            lines[name] = f"{percent(headline[key])} ({interval(key)})"
    if "std" in alone:
        lines["each seed alone"] = f"{percent(alone['mean'])} ± {100 * alone['std']:.2f} points"
    return pd.Series(lines, name="value")


def main() -> None:
    settings = params.load()
    remove_others(settings.seeds)
    test, model = data.load_split("test"), Ensemble(settings.seeds)
    predicted, unscaled = {}, []
    for seed, predictor in zip(settings.seeds, model.predictors, strict=True):
        predicted[seed], logits = predictor(test.images)
        unscaled.append(softmax(logits, axis=1))
        correct = predicted[seed].argmax(axis=1) == test.labels
        print(f"seed {seed}: accuracy {percent(correct.mean())}", flush=True)
    mean = model.mean(list(predicted.values()))
    curves = {seed: pd.read_csv(curves_of(seed)) for seed in settings.seeds}
    result = evaluate(test, predicted, mean, mean_prediction(unscaled), curves, settings.evaluate)
    accuracy = f"{result['errors']:,} errors, accuracy {percent(result['accuracy'])}"
    print(f"{result['dataset']}, {result['images']:,} test images: {accuracy}; see {ERRORS}")


if __name__ == "__main__":
    run_stage(main, __doc__)
