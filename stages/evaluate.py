"""Stage evaluate: the one look at the test images; numbers into metrics, pictures into plots.

With several seeds, the prediction is the mean of the networks' probabilities; each is also scored
alone.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import special
from sklearn.metrics import confusion_matrix

from stages.base import data, params
from stages.base.data import curves_of
from stages.base.files import replacing_together, write_csv, write_json
from stages.base.stage import run_stage
from stages.prediction.calibration import mean_prediction
from stages.prediction.predict import Ensemble
from stages.report import pictures, scores

METRICS = Path("metrics/evaluate.json")
MISCLASSIFIED = Path("metrics/misclassified.csv")
DETAILS = Path("metrics/details")
PLOTS = Path("plots/evaluate")


def main() -> None:
    known = params.load()
    seeds, settings = known.seeds, known.evaluate
    images, labels, numbers, info = data.load_split("test")
    name, classes = info.name, info.classes
    disputed = np.flatnonzero(np.isin(numbers, info.disputed))
    model, scaled, unscaled, reports = Ensemble(seeds), [], [], {}
    for seed, predictor in zip(seeds, model.predictors, strict=True):
        probabilities, logits = predictor(images)
        scaled.append(probabilities)
        unscaled.append(special.softmax(logits, axis=1))
        reports[str(seed)] = scores.report(labels, probabilities, classes)
        print(f"seed {seed}: accuracy {reports[str(seed)]['accuracy']:.2%}")
    mean, mean_unscaled = model.mean(scaled), mean_prediction(unscaled)

    found = scores.report(labels, mean, classes)
    headline = scores.headline(labels, mean, disputed)
    if len(seeds) > 1:  # `mean` and `std` take the place of two: DVC's tables have 120 columns
        del headline["errors"]
        if "undisputed" in headline:
            found["undisputed"] = headline.pop("undisputed")
        found["seeds"] = reports
        accuracies = pd.Series([of_seed["accuracy"] for of_seed in reports.values()])
        headline |= {"mean": accuracies.mean(), "std": accuracies.std()}  # of a sample: n - 1
    found["ece_unscaled"] = scores.calibration_error(labels, mean_unscaled)
    table = {
        "dataset": f"{name}, {len(labels):,} test images",
        "accuracy": scores.percent(headline["accuracy"]),
        "95 % interval": " to ".join(map(scores.percent, found["accuracy_95"].values())),
        "errors": f"{found['errors']:,}",
        "loss": f"{headline['loss']:.4f} nats",
        "calibration error (ece)": f"{100 * headline['ece']:.2f} points",
    }
    names, predicted = np.array(classes), mean.argmax(axis=1)
    predictions = pd.DataFrame({"actual": names[labels], "predicted": names[predicted]})
    predictions["confidence"] = mean.max(axis=1).astype(np.float64).round(4)
    wrong = predictions[labels != predicted]
    counts = confusion_matrix(labels, predicted, labels=range(len(classes)))
    shown = pictures.Predictions(images, labels, mean, classes, disputed)
    curves = {seed: pd.read_csv(curves_of(seed)) for seed in seeds}
    drawn = {
        "learning_curves": pictures.learning_curves(curves),
        "predictions": pictures.sample_predictions(shown, settings.samples, settings.seed),
        "misclassified": pictures.misclassified(shown, settings.misclassified),
        "reliability": pictures.reliability(labels, mean, mean_unscaled),
    }
    with replacing_together() as new:
        write_json(new(METRICS), {key: round(value, 4) for key, value in headline.items()})
        write_csv(new(MISCLASSIFIED), wrong, index_label="index")
        write_json(new(DETAILS / "scores.json"), {"dataset": name, "images": len(labels)} | found)
        frame = pd.Series(table, name="value")
        write_csv(new(DETAILS / "headline.csv"), frame, index_label="measure")
        frame = pd.DataFrame(counts, classes, classes)
        write_csv(new(DETAILS / "confusion_matrix.csv"), frame, index_label="actual")
        write_csv(new(DETAILS / "predictions.csv"), predictions, index_label="index")
        for picture, figure in drawn.items():
            pictures.save(figure, new(PLOTS / f"{picture}.png"))
    print(f"{table['dataset']}: {len(wrong)} errors, accuracy {table['accuracy']}")


if __name__ == "__main__":
    run_stage(main)
