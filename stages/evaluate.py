"""Stage evaluate: the one look at the test images; numbers into metrics, pictures into plots.

Each network is scored alone; with several seeds, the prediction is the mean of their probabilities.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from stages.base import arrays, params
from stages.base.files import replacing_together, write_csv, write_json
from stages.base.stage import run_stage
from stages.dataset import catalogue
from stages.dataset.settings import Download
from stages.network.settings import Seeds, folder_of
from stages.prediction.predict import Predictor, load_results
from stages.report import pictures, scores
from stages.report.settings import Evaluate

METRICS = Path("metrics/evaluate.json")
MISCLASSIFIED = Path("metrics/misclassified.csv")
DETAILS = Path("metrics/details")
PLOTS = Path("plots/evaluate")


def details(
    labels: np.ndarray, probabilities: dict[int, np.ndarray], classes: tuple[str, ...]
) -> dict:
    """All scores of the mean prediction, and with several seeds those of each network.

    Args:
        labels: integers, shape (N,).
        probabilities: by seed, shape (N, classes).
        classes: names by label.

    Returns:
        Nested numbers; with several seeds also `seeds`, the scores of each, `mean` and `std` (of a
        sample, n - 1) of these, and `errors_of_all_seeds`, how many images all misclassify.
    """
    every = list(probabilities.values())
    result = scores.report(labels, scores.mean_prediction(every), classes)
    if len(every) > 1:
        reports = [scores.report(labels, of_seed, classes) for of_seed in every]
        result["mean"] = scores.across(reports, np.mean)
        result["std"] = scores.across(reports, lambda values: np.std(values, ddof=1))
        result["seeds"] = {
            str(seed): report for seed, report in zip(probabilities, reports, strict=True)
        }
        wrong = [of_seed.argmax(axis=1) != labels for of_seed in every]
        result["errors_of_all_seeds"] = int(np.all(wrong, axis=0).sum())
    return result


def main() -> None:
    seeds = params.load("seeds", Seeds)
    name = params.load("download", Download).dataset
    settings = params.load("evaluate", Evaluate)
    dataset = catalogue.find(name)
    classes = dataset.classes
    images, labels = arrays.load_split("test")
    probabilities, unscaled = {}, []
    for seed in seeds:
        probabilities[seed], logits = Predictor(seed, len(classes))(images)
        unscaled.append(scores.softmax(logits))
        print(f"seed {seed}: accuracy {np.mean(probabilities[seed].argmax(1) == labels):.2%}")
    mean = scores.mean_prediction(list(probabilities.values()))
    mean_unscaled = scores.mean_prediction(unscaled)

    found = details(labels, probabilities, classes)
    headline = scores.headline(labels, mean, dataset.disputed)
    for split, key in (("train", "train"), ("validation", "val")):
        if accuracies := [of[split]["accuracy"] for of in load_results().values() if split in of]:
            headline[key] = round(float(np.mean(accuracies)), 4)
    if len(seeds) > 1:
        headline |= {"mean": found["mean"]["accuracy"], "std": found["std"]["accuracy"]}
    counts = confusion_matrix(labels, mean.argmax(axis=1), labels=range(len(classes)))
    found["ece_unscaled"] = scores.calibration_error(labels, mean_unscaled)
    found["confusions"] = scores.frequent_confusions(counts, classes)
    low, high = (scores.percent(found["accuracy_95"][end]) for end in ("low", "high"))
    table = {
        "dataset": f"{name}, {len(labels):,} test images",
        "accuracy": scores.percent(headline["accuracy"]),
        "95 % interval": f"{low} to {high}",
        "errors": f"{headline['errors']:,}",
        "loss": f"{headline['loss']:.4f} nats",
        "calibration error (ece)": f"{100 * headline['ece']:.2f} points",
    }
    names = np.array(classes)
    predictions = pd.DataFrame(
        {
            "index": np.arange(len(labels)),
            "actual": names[labels],
            "predicted": names[mean.argmax(axis=1)],
            "confidence": mean.max(axis=1).astype(np.float64).round(4),
        }
    )
    wrong = predictions[predictions["actual"] != predictions["predicted"]]
    shown = images, labels, mean, classes
    curves = {seed: pd.read_csv(folder_of(seed) / "curves.csv") for seed in seeds}
    drawn = {
        "learning_curves": pictures.learning_curves(curves),
        "confusion_matrix": pictures.confusion_matrix(counts, classes),
        "predictions": pictures.sample_predictions(
            *shown, settings.samples, settings.seed, dataset.disputed
        ),
        "misclassified": pictures.misclassified(*shown, settings.misclassified, dataset.disputed),
        "reliability": pictures.reliability(labels, mean, mean_unscaled),
    }
    with replacing_together() as new:
        write_json(new(METRICS), {key: round(value, 5) for key, value in headline.items()})
        write_csv(new(MISCLASSIFIED), wrong, index=False)
        write_json(new(DETAILS / "scores.json"), {"dataset": name, "images": len(labels)} | found)
        frame = pd.DataFrame({"measure": table.keys(), "value": table.values()})
        write_csv(new(DETAILS / "headline.csv"), frame, index=False)
        write_csv(
            new(DETAILS / "confusion_matrix.csv"),
            pd.DataFrame(counts, classes, classes),
            index_label="actual",
        )
        write_csv(new(DETAILS / "predictions.csv"), predictions, index=False)
        for picture, figure in drawn.items():
            pictures.save(figure, new(PLOTS / f"{picture}.png"))
    print(f"{name}: {len(wrong)} errors in {len(labels):,} test images, accuracy ", end="")
    print(scores.percent(headline["accuracy"]))


if __name__ == "__main__":
    run_stage(main)
