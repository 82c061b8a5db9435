"""The pictures: sample predictions, mistakes, confusion matrix, learning curves.

Right and wrong are told apart by a mark and a frame as well as by colour, in hues that people with
colour-blindness can tell apart (Okabe and Ito, 2008). The same inputs give the same bytes.
"""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from stages.atomic import replacing

BLUE, ORANGE = "#0072b2", "#d55e00"  # right, wrong
GREY = "#666666"
DPI = 110

matplotlib.rcParams.update(
    {"font.family": "DejaVu Sans", "axes.spines.top": False, "axes.spines.right": False}
)


def save(figure: Figure, path: Path) -> None:
    """Write `figure` as PNG, without the version of matplotlib that it would put in."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})


def _digit(axes: Axes, image: np.ndarray, caption: str, right: bool) -> None:
    """One image with its caption: a thin frame if it is right, a thick one if it is wrong."""
    axes.imshow(image.squeeze(), cmap="gray_r", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(caption, fontsize=8, color=BLUE if right else ORANGE, labelpad=3)
    for spine in axes.spines.values():
        spine.set(visible=True, color=BLUE if right else ORANGE, linewidth=0.6 if right else 2.2)


def sample_predictions(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: tuple[str, ...],
    per_class: int,
    seed: int,
) -> Figure:
    """A column per class: images of it drawn at random, and last the worst of its mistakes.

    Args:
        images: float32 in [0, 1], shape (N, 28, 28, 1).
        labels: shape (N,).
        probabilities: shape (N, classes).
        classes: names by label.
        per_class: random images of each class; fewer if there are fewer.
        seed: which images those are.
    """
    rng = np.random.default_rng(seed)
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    rows, columns = per_class + 1, len(classes)
    long_names = max(map(len, classes)) > 3
    gap = "\n" if long_names else "  "
    figure = Figure(figsize=(1.05 * columns + 0.5, 1.45 * rows + 1.0), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for label in range(columns):
        members = np.flatnonzero(labels == label)
        shown = list(rng.permutation(members)[:per_class])
        shown += [None] * (per_class - len(shown))
        wrong = members[predicted[members] != label]
        shown.append(wrong[confidence[wrong].argmax()] if len(wrong) else None)
        for axes, index in zip(grid[:, label], shown, strict=True):
            if index is not None:
                axes.set_axis_on()
                right = predicted[index] == label
                caption = f"{'✓' if right else '✗'} {classes[predicted[index]]}"
                caption += f"{gap}{_percent(confidence[index])}"
                _digit(axes, images[index], caption, right)
        grid[0, label].set_title(classes[label], fontsize=9 if long_names else 11, weight="bold")
    figure.suptitle(
        f"Test images by their true label (top): {per_class} of each at random,\n"
        "and in the last row the mistake made with the most confidence, if any",
        fontsize=11,
    )
    figure.supxlabel(
        "below each: ✓ right or ✗ wrong (thick frame), the prediction, its probability",
        fontsize=9,
        color=GREY,
    )
    return figure


def mistakes(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: tuple[str, ...],
    limit: int,
) -> Figure:
    """The misread images, most confident first; arguments as of `sample_predictions`."""
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    shown = wrong[np.argsort(-confidence[wrong], kind="stable")][:limit]
    gap = "\n" if max(map(len, classes)) > 3 else ", "
    columns = min(max(len(shown), 5), 10)
    rows = max(-(-len(shown) // columns), 1)
    figure = Figure(figsize=(1.15 * columns + 0.3, 1.65 * rows + 0.7), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, index in zip(grid.flat, shown, strict=False):
        axes.set_axis_on()
        caption = f"is {classes[labels[index]]}{gap}read {classes[predicted[index]]}"
        caption += f"\n{_percent(confidence[index])}  #{index}"
        _digit(axes, images[index], caption, right=False)
    figure.suptitle(
        f"{len(wrong):,} of {len(labels):,} test images are misread"
        + (f"; the {len(shown)} most confident" if len(shown) < len(wrong) else "")
        + " (probability, index in the test set)",
        fontsize=11,
    )
    return figure


def confusion_matrix(counts: np.ndarray, classes: tuple[str, ...]) -> Figure:
    """Counts of actual (rows) against predicted (columns); colour shows the share of the row."""
    size = len(classes)
    figure = Figure(figsize=(0.68 * size + 2.6, 0.6 * size + 1.6), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # The square root makes a handful of errors among a thousand visible beside the diagonal.
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(counts.shape):
        count = counts[row, column]
        axes.text(
            column,
            row,
            f"{count:,}" if count else "·",
            ha="center",
            va="center",
            fontsize=9,
            color="white" if shares[row, column] > 0.3 else "black" if count else "#bbbbbb",
            weight="bold" if count and row != column else "normal",
        )
    for row in range(size):
        total = max(counts[row].sum(), 1)
        axes.text(size - 0.3, row, _percent(counts[row, row] / total), va="center", fontsize=9)
    axes.text(size - 0.3, -0.8, "recall", va="center", fontsize=9, weight="bold")
    names = {"rotation": 45, "ha": "right"} if max(map(len, classes)) > 3 else {}
    axes.set_xticks(range(size), classes, **names)
    axes.set_yticks(range(size), classes)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    errors = counts.sum() - np.trace(counts)
    axes.set_title(
        f"Confusion matrix: {errors:,} errors in {counts.sum():,} test images", pad=22, fontsize=11
    )
    return figure


def learning_curves(curves: dict[int, pd.DataFrame]) -> Figure:
    """Error rate and loss by epoch, one line per seed.

    Args:
        curves: by seed, one row per epoch with train_accuracy, train_loss and, where there is a
            validation set, validation_accuracy, validation_loss.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    error, loss = figure.subplots(1, 2)
    for seed, frame in curves.items():
        epochs = np.arange(1, len(frame) + 1)
        for split, style, colour in (("train", "--", GREY), ("validation", "-", BLUE)):
            if f"{split}_loss" in frame:
                label = {"train": "train (augmented)"}.get(split, split)
                line = {
                    "linestyle": style,
                    "color": colour,
                    "marker": "." if split == "validation" else "",
                    "label": label if seed == next(iter(curves)) else None,
                    "alpha": max(0.4, 1 / len(curves)),
                }
                error.plot(epochs, 100 * (1 - frame[f"{split}_accuracy"]), **line)
                loss.plot(epochs, frame[f"{split}_loss"], **line)
    error.set(title="Error rate", ylabel="% of images")
    if any((line.get_ydata() > 0).any() for line in error.lines):
        error.set_yscale("log", nonpositive="mask")  # no error has no place on a log axis: a gap
        error.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        error.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        error.yaxis.set_minor_locator(NullLocator())
    loss.set(title="Loss (cross-entropy with label smoothing)", ylabel="nats")
    for axes in (error, loss):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.legend(frameon=False)
    figure.suptitle(f"Training, {len(curves)} network{'s' * (len(curves) > 1)}", fontsize=11)
    return figure


def _percent(share: float) -> str:
    """A share in per cent with no more digits than it needs: 100 % only when it is all."""
    return "100 %" if share == 1 else f"{min(100 * share, 99.9):.1f} %"
