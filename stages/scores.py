"""What is measured of predictions: numbers that belong into a metrics file."""

import json
from pathlib import Path

import numpy as np
from sklearn import metrics

from stages.atomic import replacing


def accuracy_and_loss(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Share of images whose most likely class is the label, and the mean cross-entropy in nats.

    Args:
        labels: integers, shape (N,).
        probabilities: rows that sum to 1, shape (N, classes).
    """
    of_label = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    tiny = np.finfo(np.float32).tiny  # a probability that underflowed is not certainty
    return {
        "accuracy": float((probabilities.argmax(axis=1) == labels).mean()),
        "loss": float(-np.log(np.maximum(of_label, tiny)).mean()),
    }


def report(labels: np.ndarray, probabilities: np.ndarray, classes: tuple[str, ...]) -> dict:
    """Accuracy, errors, loss; precision, recall and F1 of each class and their plain mean (macro).

    A class that is never predicted has precision 0, one that never occurs recall 0.
    """
    predicted = probabilities.argmax(axis=1)
    per_class = metrics.precision_recall_fscore_support(
        labels, predicted, labels=range(len(classes)), zero_division=0
    )
    scores = accuracy_and_loss(labels, probabilities)
    return {
        "accuracy": scores["accuracy"],
        "errors": int((predicted != labels).sum()),
        "loss": scores["loss"],
        **{
            name: {"macro": float(values.mean())}
            | {classes[label]: float(value) for label, value in enumerate(values)}
            for name, values in zip(("precision", "recall", "f1"), per_class[:3], strict=True)
        },
    }


def across(reports: list[dict], function) -> dict:
    """Apply `function` to each number of nested reports of the same keys, over the reports."""
    return {
        key: across([report[key] for report in reports], function)
        if isinstance(value, dict)
        else float(function([report[key] for report in reports]))
        for key, value in reports[0].items()
    }


def write_json(path: Path, content: dict) -> None:
    """Write nested numbers and strings, floats to six decimals, whole or not at all."""

    def rounded(value):
        if isinstance(value, dict):
            return {key: rounded(item) for key, item in value.items()}
        return round(value, 6) if isinstance(value, float) else value

    with replacing(path) as temporary:
        temporary.write_text(
            json.dumps(rounded(content), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
