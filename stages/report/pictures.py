"""The pictures of what was read: sample predictions, mistakes, confusion matrix, learning curves.

The same inputs give the same bytes.
"""

import io
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from PIL import Image

from stages.report import style as figures
from stages.base.files import replacing
from stages.report.style import GREY, MARKERS, SEEDS, SIDE, percent

DPI = 130
WIDEST = 12.4  # inches: a gallery takes fewer columns rather than be wider


def save(figure: Figure, path: Path) -> None:
    """Write `figure` as PNG of 256 colours, a third the size, without the version of matplotlib."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    with replacing(path) as temporary, Image.open(drawn) as image:
        colours = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        colours.save(temporary, format="png", optimize=True)


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
    misread = bool((predicted != labels).any())
    cell, gap = figures.column_cell(classes)
    figure, grid = figures.image_grid(
        rows=per_class + misread,
        columns=len(classes),
        cell=cell,
        above=0.05,
        title=f"{per_class} random test image{'s' * (per_class > 1)} of each class"
        + misread * ", and its most confident mistake (last row)",
        note="Columns: the true class. Below each image: what it was read as and with what "
        f"probability, ✓ right, ✗ wrong (thick frame). Drawn from {len(labels):,} images.",
    )
    for label, column in enumerate(grid.T):
        figures.caption(column[0], classes[label], -1, fontsize=9.5, weight="bold")
        members = np.flatnonzero(labels == label)
        shown = list(rng.permutation(members)[:per_class])
        shown += [None] * (per_class - len(shown))
        wrong = members[predicted[members] != label]
        shown.append(wrong[confidence[wrong].argmax()] if len(wrong) else None)
        for axes, index in zip(column, shown, strict=False):  # without mistakes, no last row
            if index is not None:
                name, right = classes[predicted[index]], predicted[index] == label
                figures.show(axes, images[index], right)
                figures.verdict(axes, name, confidence[index], right, gap=gap)
    return figure


def mistakes(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: tuple[str, ...],
    limit: int,
    disputed: Collection[int] = (),
) -> Figure:
    """The misread images, most confident first.

    Args:
        images, labels, probabilities, classes: as of `sample_predictions`.
        limit: images shown, at most.
        disputed: indices of images whose label is in doubt; these get a question mark.
    """
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    shown = wrong[np.argsort(-confidence[wrong], kind="stable")][:limit]
    title = f"{len(wrong):,} of {len(labels):,} test images are misread"
    if len(shown) < len(wrong):
        title += f"; the {len(shown)} most confident"
    return _gallery(images, labels, probabilities, classes, shown, disputed, title)


def uncertain(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: tuple[str, ...],
    limit: int,
    disputed: Collection[int] = (),
) -> Figure:
    """The right answers with the least lead over the second guess; arguments as of `mistakes`."""
    right = np.flatnonzero(probabilities.argmax(axis=1) == labels)
    second, first = np.partition(probabilities[right], -2, axis=1)[:, -2:].T
    shown = right[np.argsort(first - second, kind="stable")][:limit]
    title = f"The {len(shown)} least certain of {len(right):,} right answers"
    return _gallery(images, labels, probabilities, classes, shown, disputed, title)


def _gallery(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: tuple[str, ...],
    shown: np.ndarray,
    disputed: Collection[int],
    title: str,
) -> Figure:
    """The images of the indices `shown`, each with its label and the two most likely classes."""
    width = figures.cell_width(classes, more=9)
    rows = -(-len(shown) // max(1, min(10, int(WIDEST / width))))
    if not rows:
        return figures.sheet(7, 0, title, "There is no image to show.")[0]
    note = "Above each image: its label and its number in the test set. Below: the two most likely "
    note += "classes, ✓ right, ✗ wrong."
    doubtful = np.isin(shown, list(disputed))
    if doubtful.any():
        note += f" (?): people doubt the label itself ({doubtful.sum()} of {len(shown)})."
    figure, grid = figures.image_grid(
        rows, -(-len(shown) // rows), (width, SIDE + 0.62), above=0.2, title=title, note=note
    )
    for axes, index, doubt in zip(grid.flat, shown, doubtful, strict=False):
        most_likely = np.argsort(-probabilities[index], kind="stable")[:2]
        figures.show(axes, images[index], most_likely[0] == labels[index])
        label = classes[labels[index]] + (" (?)" if doubt else "")
        figures.caption(axes, f"{label}   #{index}", -1)
        for line, guess in enumerate(most_likely):
            share = probabilities[index, guess]
            figures.verdict(axes, classes[guess], share, guess == labels[index], line)
    return figure


def confusion_matrix(counts: np.ndarray, classes: tuple[str, ...]) -> Figure:
    """Counts of actual (rows) against predicted (columns); colour shows the share of the row."""
    size = len(classes)
    wrong = ~np.eye(size, dtype=bool)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    worst = (shares * wrong).max()
    errors = counts[wrong].sum()
    note = "Blue: right. Orange: wrong, the darker the greater the share of the row"
    note += f" (darkest: {percent(worst)}). Recall: the share of the row that is right."
    figure = figures.chart(
        max(0.66 * size + 2.2, 7),
        0.5 * size + 1.3,
        f"{errors:,} errors in {counts.sum():,} test images",
        note if errors else "No image is misread.",
    )
    axes = figure.subplots()
    orange = LinearSegmentedColormap.from_list("errors", ["#fdeee3", "#ee8f4d"])
    cells = np.ones((size, size, 3))
    cells[~wrong] = to_rgb("#c6dff0")
    cells[wrong & (counts > 0)] = orange(shares[wrong & (counts > 0)] / max(worst, 1e-9))[:, :3]
    axes.imshow(cells, aspect="auto")
    for row, column in np.ndindex(counts.shape):
        count = counts[row, column]
        axes.text(
            column,
            row,
            f"{count:,}" if count else "·",
            ha="center",
            va="center",
            color="black" if count else "#aaaaaa",
            weight="bold" if count and row != column else "normal",
        )
    for row in range(size):
        total = max(counts[row].sum(), 1)
        axes.text(size - 0.35, row, percent(counts[row, row] / total), va="center")
    axes.text(size - 0.35, -0.8, "recall", va="center", weight="bold")
    turned = {"rotation": 35, "ha": "right"} if figures.long_names(classes) else {}
    axes.set_xticks(range(size), classes, **turned)
    axes.set_yticks(range(size), classes)
    axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#e5e5e5", linewidth=0.8)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="read as", ylabel="true class")
    return figure


def learning_curves(curves: dict[int, pd.DataFrame]) -> Figure:
    """Error rate and loss by epoch: a hue and marker per seed, lines dashed for training images.

    Args:
        curves: by seed, one row per epoch with train_accuracy, train_loss and, where there is a
            validation set, validation_accuracy, validation_loss.
    """
    number, epochs = len(curves), max(map(len, curves.values()))
    several = number > 1
    title = f"{number} network{'s' * several}, {epochs} epoch{'s' * (epochs > 1)}"
    if all("validation_loss" in frame for frame in curves.values()):
        error = 100 - 100 * np.mean([f["validation_accuracy"].iloc[-1] for f in curves.values()])
        title += f": {error:.2f} % validation error{' on average' * several} at the end"
    splits = {"train": ("train (augmented)", "--"), "validation": ("validation", "-")}
    figure = figures.chart(
        11,
        4,
        title,
        "Training images are randomly distorted, and scored while the weights still change: they "
        "can be harder than validation images. Each is one view: the network that is kept may "
        "average several.",
    )
    panels = figure.subplots(1, 2)
    for index, frame in enumerate(curves.values()):
        steps = np.arange(1, len(frame) + 1)
        for split, (_, dashes) in splits.items():
            if f"{split}_loss" in frame:
                style = {
                    "linestyle": dashes,
                    "linewidth": 1.6 if split == "validation" else 1.1,
                    "color": SEEDS[index % len(SEEDS)] if several or split != "train" else GREY,
                    "marker": MARKERS[index % len(MARKERS)] * (split == "validation"),
                    "markersize": 4.5,
                }
                panels[0].plot(steps, 100 * (1 - frame[f"{split}_accuracy"]), **style)
                panels[1].plot(steps, frame[f"{split}_loss"], **style)
    error, loss = panels
    error.set(title="error rate", ylabel="% of images")
    if any((line.get_ydata() > 0).any() for line in error.lines):
        error.set_yscale("log", nonpositive="mask")  # no error has no place on a log axis: a gap
        error.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        error.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        error.yaxis.set_minor_locator(NullLocator())
    loss.set(title="loss (cross-entropy with label smoothing)", ylabel="nats")
    for axes in panels:
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid()
    keys = [
        Line2D([], [], color="black" if several else line.get_color(), label=label, ls=dashes)
        for (split, (label, dashes)), line in zip(splits.items(), error.lines, strict=False)
    ]
    if several:
        keys += [
            Line2D(
                [],
                [],
                linestyle="",
                marker=MARKERS[index % len(MARKERS)],
                color=SEEDS[index % len(SEEDS)],
                label=f"seed {seed}",
            )
            for index, seed in enumerate(curves)
        ]
    loss.legend(handles=keys, loc="upper left", bbox_to_anchor=(1, 1))
    return figure
