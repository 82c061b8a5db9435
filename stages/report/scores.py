"""What is measured of predictions: the numbers in the metrics files."""

from collections.abc import Collection

import numpy as np
from scipy import special, stats
from sklearn import metrics


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


def wilson_interval(successes: int, trials: int) -> dict[str, float]:
    """95 % confidence interval of a share (E. B. Wilson, 1927), good also close to 1."""
    interval = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    return {"low": float(interval.low), "high": float(interval.high)}


def brier_score(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean squared distance from the probabilities to the truth, from 0 to 2 (Brier, 1950)."""
    truth = np.eye(probabilities.shape[1])[labels]
    return float(((probabilities - truth) ** 2).sum(axis=1).mean())


def calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error: mean gap between confidence and accuracy, bins of equal mass.

    Images are sorted by confidence and cut into bins of as many images each (Nguyen and O'Connor,
    2015); the gaps between a bin's mean confidence and its accuracy are averaged, weighted by size.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    gaps = confidence - (probabilities.argmax(axis=1) == labels)
    parts = np.array_split(np.argsort(confidence, kind="stable"), bins)
    return float(sum(abs(gaps[part].sum()) for part in parts) / len(labels))


def risk_coverage_area(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean error rate of the most confident images, over all numbers of images kept, from 1 to N.

    It is small if the network is unsure where it errs: 0 if it is more confident of every correct
    image than of any misclassified one, but for these (Y. Geifman and R. El-Yaniv, 2017).
    """
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    wrong = (probabilities.argmax(axis=1) != labels)[order]
    return float((np.cumsum(wrong) / np.arange(1, len(labels) + 1)).mean())


def mean_prediction(probabilities: list[np.ndarray]) -> np.ndarray:
    """The mean over networks of probabilities of the same images, float32, shape (N, classes)."""
    return np.mean(probabilities, axis=0, dtype=np.float64).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits, both of shape (N, classes)."""
    return special.softmax(logits, axis=1)


def headline(
    labels: np.ndarray, probabilities: np.ndarray, disputed: Collection[int] = ()
) -> dict[str, float]:
    """The few numbers to compare runs by: accuracy, errors, undisputed, loss, ece.

    Args:
        labels: integers, shape (N,).
        probabilities: shape (N, classes).
        disputed: indices of images whose label people doubt; `undisputed` is the accuracy without
            these, left out if there are none.

    Returns:
        Shares, a count, nats, and the expected calibration error as a share.
    """
    values = accuracy_and_loss(labels, probabilities)
    correct = probabilities.argmax(axis=1) == labels
    result = {"accuracy": values["accuracy"], "errors": int((~correct).sum())}
    if len(disputed):
        result["undisputed"] = float(np.delete(correct, list(disputed)).mean())
    result["loss"] = values["loss"]
    return result | {"ece": calibration_error(labels, probabilities)}


def report(labels: np.ndarray, probabilities: np.ndarray, classes: tuple[str, ...]) -> dict:
    """All scores of one set of predictions, as nested numbers.

    Accuracy with its 95 % interval, errors, accuracy when the second guess counts too; how good the
    probabilities are (loss, Brier score, calibration error); precision, recall and F1 of each class
    and their plain mean (macro). A class that is never predicted has precision 0, one that never
    occurs recall 0.
    """
    predicted = probabilities.argmax(axis=1)
    per_class = metrics.precision_recall_fscore_support(
        labels, predicted, labels=range(len(classes)), zero_division=0
    )
    values = headline(labels, probabilities)
    return {
        **values,
        "accuracy_95": wilson_interval(len(labels) - values["errors"], len(labels)),
        "top2_accuracy": float(
            metrics.top_k_accuracy_score(labels, probabilities, k=2, labels=range(len(classes)))
        ),
        "brier_score": brier_score(labels, probabilities),
        **{
            name: {"macro": float(values.mean())}
            | {classes[label]: float(value) for label, value in enumerate(values)}
            for name, values in zip(("precision", "recall", "f1"), per_class[:3], strict=True)
        },
    }


def frequent_confusions(counts: np.ndarray, classes: tuple[str, ...], number: int = 3) -> dict:
    """The commonest kinds of error, as {"4 predicted as 9": 3, …}, ties in the order of the labels.

    Args:
        counts: confusion matrix, rows actual, columns predicted.
        classes: names by label.
        number: how many kinds, at most.
    """
    errors = counts * ~np.eye(len(classes), dtype=bool)
    order = np.argsort(-errors, axis=None, kind="stable")[:number]
    pairs = zip(*np.unravel_index(order, errors.shape), strict=True)
    return {
        f"{classes[actual]} predicted as {classes[predicted]}": int(errors[actual, predicted])
        for actual, predicted in pairs
        if errors[actual, predicted]
    }


def across(reports: list[dict], function) -> dict:
    """Apply `function` to each number of nested reports of the same keys, over the reports."""
    return {
        key: across([report[key] for report in reports], function)
        if isinstance(value, dict)
        else float(function([report[key] for report in reports]))
        for key, value in reports[0].items()
    }


def percent(share: float, digits: int = 2) -> str:
    """A share as "99.65 %"; what is not quite all or none is never rounded to 100 or 0 %."""
    least = 10.0**-digits
    value = 100 * share
    if 0 < share < 1:
        value = min(max(value, least), 100 - least)
    return f"{value:.{digits}f} %"
