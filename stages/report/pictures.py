"""The pictures of evaluate and robustness. The same inputs give the same bytes."""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from stages.report import scores, style
from stages.report.scores import percent
from stages.report.style import BLUE, GREY, SEED_COLOURS, save  # noqa: F401, stages call save

LOWEST = 0.01  # %: one image in the test set of MNIST
PERCENT = (0.9 * LOWEST, 110)  # limits of axes, the same for all runs, so that these compare
EDGE = f"Less than {LOWEST} % is drawn as {LOWEST} %."
# Of the reliability diagram: where groups of images may end, and how many errors each needs.
EDGES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, -np.inf)
FEWEST_ERRORS = 5


class Predictions(NamedTuple):
    """Test images, and what is known and predicted of them.

    images: float32 in [0, 1], shape (N, 28, 28, 1).
    labels: integers, shape (N,).
    probabilities: shape (N, classes).
    classes: names by label.
    disputed: indices of images whose label people doubt; these get a question mark.
    """

    images: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    classes: tuple[str, ...]
    disputed: Collection[int] = ()


def sample_predictions(data: Predictions, per_class: int, seed: int) -> Figure:
    """A column per class: images of it drawn at random, and last its most confident error.

    Args:
        data: what was predicted.
        per_class: random images of each class; fewer if there are fewer.
        seed: which images those are.
    """
    rng, size = np.random.default_rng(seed), len(data.classes)
    wrong = _misclassified(data)
    title = f"Predictions of random test images, {per_class} of each class"
    if len(wrong):
        title += "; last row: the most confident error of the class"
    shown = np.full((per_class + bool(len(wrong)), size), None)
    for label in range(size):
        chosen = rng.permutation(np.flatnonzero(data.labels == label))[:per_class]
        shown[: len(chosen), label] = chosen
    for index in reversed(wrong):
        shown[-1, data.labels[index]] = index
    return _gallery(data, shown.ravel(), size, 1, title)


def misclassified(data: Predictions, limit: int) -> Figure:
    """The misclassified images with the two most likely classes, most confident first; at most
    `limit`.
    """
    wrong = _misclassified(data)
    title = f"{len(wrong):,} of {len(data.labels):,} test images are misclassified"
    if not len(wrong):
        return style.chart(7, 1, title, "There is no image to show.")
    shown = wrong[:limit]
    title += f"; shown: {len(shown)}, most confident first"
    return _gallery(data, shown, min(10, len(shown)), 2, title)


def _misclassified(data: Predictions) -> np.ndarray:
    """Indices of the misclassified images, the most confident first."""
    wrong = np.flatnonzero(data.probabilities.argmax(axis=1) != data.labels)
    return wrong[np.argsort(-data.probabilities[wrong].max(axis=1), kind="stable")]


def _gallery(data: Predictions, shown: np.ndarray, columns: int, top: int, title: str) -> Figure:
    """The images of the indices `shown`, None for no image, with the `top` likeliest classes."""

    def cell(index: int) -> tuple:
        probabilities, label = data.probabilities[index], data.labels[index]
        likeliest = np.argsort(-probabilities, kind="stable")[:top]
        above = f"{data.classes[label]}{' (?)' if index in data.disputed else ''}  #{index}"
        return data.images[index], above, label, [(of, probabilities[of]) for of in likeliest]

    cells = [None if index is None else cell(index) for index in shown]
    note = "Thick frame: misclassified. Above: its label and its number in the test set."
    if len(data.disputed):
        note += " (?): people doubt the label itself."
    return style.gallery(cells, columns, data.classes, title, note)


def corruptions(examples: dict[str, tuple], label: int, classes: tuple[str, ...]) -> Figure:
    """One image, as it is and under each corruption, with its prediction.

    Args:
        examples: by corruption: the image, float32 in [0, 1], shape (height, width), the predicted
            label, its probability.
        label: the true one.
        classes: names by label.
    """
    cells = []
    for name, (image, predicted, share) in examples.items():
        cells.append((image, name.replace("_", " "), label, [(predicted, share)]))
    title = f"A test image of class {classes[label]} under {len(examples) - 1} corruptions"
    return style.gallery(cells, 6, classes, title, "Thick frame: misclassified.")


def learning_curves(curves: dict[int, pd.DataFrame]) -> Figure:
    """Error rate and loss by epoch: a colour and marker per seed, dashed for training images.

    Args:
        curves: by seed, one row per epoch with epoch (from 1), train_accuracy, train_loss and,
            where there is a validation set, validation_accuracy, validation_loss.
    """
    frames = pd.concat(curves, names=["seed"]).dropna(axis="columns")
    epochs = frames["epoch"].max()
    splits = [split for split in ("train", "validation") if f"{split}_loss" in frames]
    accuracy = frames.groupby("seed")[f"{splits[-1]}_accuracy"].last().mean()
    title = f"Learning curves: {splits[-1]} error {percent(1 - accuracy)} after epoch {epochs}"
    note = "Training images are randomly distorted: they can be harder than validation images. All "
    note += "are of one view; packaged networks can average several. In the title: mean of seeds. "
    figure = style.chart(11, max(4.6, 0.5 * len(curves)), title, note + EDGE)
    error, loss = figure.subplots(1, 2)
    for index, (seed, frame) in enumerate(curves.items()):
        colour, marker = SEED_COLOURS[index % len(SEED_COLOURS)], "os^Dv"[index % 5]
        for split in splits:
            dashes, fill = ("--", "white") if split == "train" else ("-", colour)
            rates = (100 * (1 - frame[f"{split}_accuracy"])).clip(LOWEST)
            look = {"color": colour, "markerfacecolor": fill, "label": f"{split}, seed {seed}"}
            for axes, values in ((error, rates), (loss, frame[f"{split}_loss"])):
                axes.plot(frame["epoch"], values, dashes + marker, **look)
    error.set(title="error rate, % of images", yscale="log", ylim=PERCENT)
    loss.set(title="loss with label smoothing, nats", ylim=(0, max(1, loss.get_ylim()[1])))
    for axes in (error, loss):
        axes.set(xlabel="epoch", xlim=(0.5, epochs + 0.5))
        axes.locator_params(axis="x", integer=True, min_n_ticks=1)
        axes.grid()
    figure.legend(handles=error.lines, loc="outside right upper")
    return figure


def reliability(labels: np.ndarray, probabilities: np.ndarray, before: np.ndarray) -> Figure:
    """How often the network errs against how often it says it will, before and after scaling.

    Args:
        labels: integers, shape (N,).
        probabilities: after temperature scaling, shape (N, classes).
        before: the same before it.
    """
    title = f"Are the probabilities true? {len(labels):,} test images"
    note = "A point is a group of images of similar confidence, with its 95 % interval (Wilson); a "
    note += f"group has {FEWEST_ERRORS} errors or more, the most confident one has the rest. Above "
    note += "the dashed line the network is over-confident, below it under-confident. "
    figure = style.chart(8, 5.6, title, note + EDGE)
    axes = figure.subplots()
    axes.plot([LOWEST, 100], [LOWEST, 100], "--", color="black", linewidth=1)
    series = {"before": (before, GREY, "s"), "after": (probabilities, BLUE, "o")}
    for name, (values, colour, marker) in series.items():
        x, y, low, high = _points(labels, values)
        error = 100 * scores.calibration_error(labels, values)
        label = f"{name} temperature scaling: calibration error {error:.2f} points"
        axes.errorbar(x, y, (y - low, high - y), fmt=marker, color=colour, label=label)
    axes.set(xscale="log", yscale="log", xlim=PERCENT, ylim=PERCENT)
    axes.set(xlabel="stated error: 1 − confidence, %", ylabel="error rate, %")
    axes.grid()
    axes.legend(loc="upper left")
    return figure


def _points(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Mean stated error, error rate and its interval of groups, %, shape (4, groups)."""
    wrong = probabilities.argmax(axis=1) != labels
    stated = 1 - probabilities.max(axis=1).astype(np.float64)
    points, high = [], np.inf
    for low in EDGES:
        group = (stated >= low) & (stated < high)
        errors, size = int(wrong[group].sum()), int(group.sum())
        if errors >= FEWEST_ERRORS or (low == EDGES[-1] and size):
            interval = scores.wilson_interval(errors, size)
            points.append([stated[group].mean(), errors / size, *interval.values()])
            high = low
    return np.maximum(100 * np.transpose(points), LOWEST)
