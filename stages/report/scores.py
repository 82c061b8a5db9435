"""What is measured of predictions: the numbers in the metrics files."""

from collections.abc import Collection
from statistics import NormalDist

import numpy as np

# The largest class has so many times as many images as the smallest: accuracy alone, which the
# large classes decide, then says too little. MNIST's test images: 1.3.
UNEQUAL = 1.5


def wilson_interval(successes: float, trials: float) -> dict[str, float]:
    """95 % confidence interval of a share, good also close to 0 and 1.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference" (1927).

    >>> wilson_interval(9965, 10_000)  # between 99.51 % and 99.75 %
    """
    if not trials:
        return {"low": 0.0, "high": 1.0}
    share, z = successes / trials, NormalDist().inv_cdf(0.975)
    centre = share + z**2 / (2 * trials)
    half = z * (share * (1 - share) / trials + z**2 / (4 * trials**2)) ** 0.5
    low, high = ((centre + sign * half) / (1 + z**2 / trials) for sign in (-1, 1))
    return {"low": round(low, 12), "high": round(high, 12)}  # exactly 0 and 1 at the ends


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """How many images of each class (rows) are predicted as which (columns).

    Args:
        labels, predicted: integers below `classes`, shape (N,).
        classes: how many there are.

    Returns:
        Integers, shape (classes, classes).
    """
    pairs = labels.astype(np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


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
    model is unsure where it errs.
    """
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    wrong = (probabilities.argmax(axis=1) != labels)[order]
    return float((np.cumsum(wrong) / np.arange(1, len(labels) + 1)).mean())


def headline(
    labels: np.ndarray, probabilities: np.ndarray, disputed: Collection[int] = ()
) -> dict[str, float | dict]:
    """The few numbers to compare runs by.

    Args:
        labels: integers, shape (N,).
        probabilities: rows that sum to 1, shape (N, classes).
        disputed: indices of images whose label people doubt.

    Returns:
        accuracy: share of images whose most likely class is the label; errors: how many others;
        undisputed: the accuracy without disputed images, if there are any; loss: mean
        cross-entropy in nats; ece: expected calibration error, a share. If the classes are
        UNEQUAL, also balanced_accuracy and macro_f1 with 95 % intervals, see `balanced`.
    """
    predicted = probabilities.argmax(axis=1)
    correct = predicted == labels
    result = {"accuracy": float(correct.mean()), "errors": int((~correct).sum())}
    if len(disputed):
        result["undisputed"] = float(np.delete(correct, list(disputed)).mean())
    of_label = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    tiny = np.finfo(np.float32).tiny  # a probability that underflowed is not certainty
    loss = -np.log(np.maximum(of_label, tiny)).mean()
    result |= {"loss": float(loss), "ece": calibration_error(labels, probabilities)}
    counts = confusion_matrix(labels, predicted, probabilities.shape[1])
    images = counts.sum(axis=1)
    if images.max() > UNEQUAL * images[images > 0].min():
        result |= balanced(counts)
    return result


def per_class(correct: np.ndarray, labelled: np.ndarray, predicted: np.ndarray) -> dict:
    """Precision, recall and F1 of each class; NaN for a class without images.

    A class that is never predicted has precision 0.

    Args:
        correct, labelled, predicted: how many images of each class are classified correctly, have
            its label, are predicted as such, integers, shape (classes,).
    """
    correct = np.where(labelled, correct, np.nan)
    return {
        "precision": correct / np.maximum(predicted, 1),
        "recall": correct / np.maximum(labelled, 1),
        "f1": 2 * correct / np.maximum(predicted + labelled, 1),
    }


def balanced(counts: np.ndarray) -> dict[str, float | dict]:
    """Scores in which each class counts as much as the others, with 95 % intervals.

    In a plain mean over classes, an image of a small class weighs more than others. So the interval
    is Wilson's for the number of equally weighted images that would be as good: the squared sum of
    the weights over the sum of their squares (L. Kish, "Survey Sampling", 1965). That of macro F1
    is approximate.

    Args:
        counts: the confusion matrix, rows are labels, shape (classes, classes).

    Returns:
        balanced_accuracy: mean recall of the classes that have images; macro_f1: their mean F1;
        by the same names with `_95`: low and high.
    """
    images = counts.sum(axis=1)
    present = images[images > 0]
    effective = float(len(present) ** 2 / (1 / present).sum())
    of_class = per_class(counts.diagonal(), images, counts.sum(axis=0))
    result = {}
    for name, score in (("balanced_accuracy", "recall"), ("macro_f1", "f1")):
        result[name] = float(np.nanmean(of_class[score]))
        result[f"{name}_95"] = wilson_interval(result[name] * effective, effective)
    return result


def report(labels: np.ndarray, probabilities: np.ndarray, classes: tuple[str, ...]) -> dict:
    """All scores of one set of predictions, as nested numbers.

    Accuracy with its 95 % interval, errors, accuracy when the second guess counts too; how good the
    probabilities are: loss, calibration error, Brier score (mean squared distance to the truth,
    from 0 to 2; Brier, 1950); precision, recall and F1 of each class that has images, and their
    plain means (macro).
    """
    result = headline(labels, probabilities)
    result["accuracy_95"] = wilson_interval(len(labels) - result["errors"], len(labels))
    of_label = probabilities[np.arange(len(labels)), labels]
    likelier = (probabilities > of_label[:, None]).sum(axis=1)
    squares = (probabilities - np.eye(len(classes))[labels]) ** 2
    result["top2_accuracy"] = float((likelier < 2).mean())
    result["brier_score"] = float(squares.sum(axis=1).mean())
    counts = confusion_matrix(labels, probabilities.argmax(axis=1), len(classes))
    of_classes = per_class(counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0))
    result["macro"] = {name: float(np.nanmean(values)) for name, values in of_classes.items()}
    present = np.flatnonzero(counts.sum(axis=1))
    for name, values in of_classes.items():
        result[name] = {classes[label]: float(values[label]) for label in present}
    return result


def percent(share: float, digits: int = 2) -> str:
    """A share as "99.65 %"; what is not quite all or none is never rounded to 100 or 0 %."""
    least, value = 10.0**-digits, 100 * share
    if 0 < share < 1:
        value = min(max(value, least), 100 - least)
    return f"{value:.{digits}f} %"
