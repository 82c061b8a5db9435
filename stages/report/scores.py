"""What is measured of predictions: the numbers in the metrics files."""

from collections.abc import Collection

import numpy as np
from scipy import stats


def wilson_interval(successes: int, trials: int) -> dict[str, float]:
    """95 % confidence interval of a share (E. B. Wilson, 1927), good also close to 1."""
    interval = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    return {"low": float(interval.low), "high": float(interval.high)}


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
    """Area under the risk-coverage curve (Y. Geifman and R. El-Yaniv, 2017).

    The error rate of the k most confident predictions, averaged over k from 1 to N: small if the
    network is unsure where it errs.
    """
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    wrong = (probabilities.argmax(axis=1) != labels)[order]
    return float((np.cumsum(wrong) / np.arange(1, len(labels) + 1)).mean())


def headline(
    labels: np.ndarray, probabilities: np.ndarray, disputed: Collection[int] = ()
) -> dict[str, float]:
    """The few numbers to compare runs by: accuracy, errors, undisputed, loss, ece.

    Args:
        labels: integers, shape (N,).
        probabilities: rows that sum to 1, shape (N, classes).
        disputed: indices of images whose label people doubt.

    Returns:
        accuracy: share of images whose most likely class is the label; errors: how many others;
        undisputed: the accuracy without disputed images, if there are any; loss: mean
        cross-entropy in nats; ece: expected calibration error, a share.
    """
    correct = probabilities.argmax(axis=1) == labels
    result = {"accuracy": float(correct.mean()), "errors": int((~correct).sum())}
    if len(disputed):
        result["undisputed"] = float(np.delete(correct, list(disputed)).mean())
    of_label = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    tiny = np.finfo(np.float32).tiny  # a probability that underflowed is not certainty
    loss = -np.log(np.maximum(of_label, tiny)).mean()
    return result | {"loss": float(loss), "ece": calibration_error(labels, probabilities)}


def report(labels: np.ndarray, probabilities: np.ndarray, classes: tuple[str, ...]) -> dict:
    """All scores of one set of predictions, as nested numbers.

    Accuracy with its 95 % interval, errors, accuracy when the second guess counts too; how good the
    probabilities are: loss, calibration error, Brier score (mean squared distance to the truth,
    from 0 to 2; Brier, 1950); precision, recall and F1 of each class and their plain mean (macro).
    A class that is never predicted has precision 0, one that never occurs recall 0.
    """
    from sklearn import metrics  # here: the import takes half a second

    result, every = headline(labels, probabilities), range(len(classes))
    result["accuracy_95"] = wilson_interval(len(labels) - result["errors"], len(labels))
    top2 = metrics.top_k_accuracy_score(labels, probabilities, k=2, labels=every)
    squares = (probabilities - np.eye(len(classes))[labels]) ** 2
    result |= {"top2_accuracy": float(top2), "brier_score": float(squares.sum(axis=1).mean())}
    per_class = metrics.precision_recall_fscore_support(
        labels, probabilities.argmax(axis=1), labels=every, zero_division=0
    )
    for name, values in zip(("precision", "recall", "f1"), per_class[:3], strict=True):
        by_class = {classes[label]: float(value) for label, value in enumerate(values)}
        result[name] = {"macro": float(values.mean())} | by_class
    return result


def percent(share: float, digits: int = 2) -> str:
    """A share as "99.65 %"; what is not quite all or none is never rounded to 100 or 0 %."""
    least, value = 10.0**-digits, 100 * share
    if 0 < share < 1:
        value = min(max(value, least), 100 - least)
    return f"{value:.{digits}f} %"
