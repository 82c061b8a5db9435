"""The pictures of evaluate and robustness. The same inputs give the same bytes."""

from collections.abc import Collection

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from stages.report import scores, style
from stages.report.scores import percent
from stages.report.style import BLUE, GREY, SEED_COLOURS, save

__all__ = [
    "confusion_matrix",
    "corruptions",
    "learning_curves",
    "misclassified",
    "reliability",
    "sample_predictions",
    "save",
]
DOUBT = "(?): people doubt the label itself."
# Edges of the groups of the reliability diagram, stated error in %.
GROUPS = (0, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
TICKS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)  # %, of logarithmic axes


def sample_predictions(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: tuple[str, ...],
    per_class: int,
    seed: int,
    disputed: Collection[int] = (),
) -> Figure:
    """A column per class: images of it drawn at random, and last its most confident error.

    Args:
        images: float32 in [0, 1], shape (N, 28, 28, 1).
        labels: shape (N,).
        probabilities: shape (N, classes).
        classes: names by label.
        per_class: random images of each class; fewer if there are fewer.
        seed: which images those are.
        disputed: indices of images whose label people doubt; these get a question mark.
    """
    rng = np.random.default_rng(seed)
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    title = f"{per_class} random test images of each class"
    if (predicted != labels).any():
        title += ", and below them its most confident error"
    figure, grid = style.image_grid(
        per_class + bool((predicted != labels).any()),
        len(classes),
        (style.cell_width(classes), 1.45),
        title,
        "Above each column: the true class. Below each image: the predicted class and its "
        f"probability, ✓ correct, ✗ wrong (thick frame). {DOUBT}",
    )
    for label, column in enumerate(grid.T):
        members = np.flatnonzero(labels == label)
        shown = [*rng.permutation(members)[:per_class]]
        shown += [None] * (per_class - len(shown))
        wrong = members[predicted[members] != label]
        shown.append(wrong[confidence[wrong].argmax()] if len(wrong) else None)
        for row, (axes, index) in enumerate(zip(column, shown, strict=False)):
            above = "" if row else classes[label]
            if index is not None:
                name, correct = classes[predicted[index]], predicted[index] == label
                above += " (?)" * (index in disputed)
                below = style.verdict(name, confidence[index], correct)
                style.show(axes, images[index], correct, above.strip(), below)
    return figure


def misclassified(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: tuple[str, ...],
    limit: int,
    disputed: Collection[int] = (),
) -> Figure:
    """The misclassified images, most confident first; arguments as of `sample_predictions`.

    Args:
        limit: images shown, at most.
    """
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    shown = wrong[np.argsort(-confidence[wrong], kind="stable")][:limit]
    title = f"{len(wrong):,} of {len(labels):,} test images are misclassified"
    if not len(wrong):
        return style.chart(7, 1, title, "There is no image to show.")
    if len(shown) < len(wrong):
        title += f"; the {len(shown)} most confident"
    columns = min(10, len(shown))
    figure, grid = style.image_grid(
        -(-len(shown) // columns),
        columns,
        (style.cell_width(classes), 1.75),
        title,
        "Above each image: its label and its number in the test set. Below: the two most likely "
        f"classes, ✗ the wrong prediction, ✓ the label. {DOUBT}",
    )
    for axes, index in zip(grid.flat, shown, strict=False):
        label = labels[index]
        below = "\n".join(
            style.verdict(classes[guess], probabilities[index, guess], guess == label)
            for guess in np.argsort(-probabilities[index], kind="stable")[:2]
        )
        doubt = " (?)" if index in disputed else ""
        style.show(axes, images[index], False, f"{classes[label]}{doubt}  #{index}", below)
    return figure


def corruptions(
    examples: dict[str, tuple[np.ndarray, int, float]], label: int, classes: tuple[str, ...]
) -> Figure:
    """One image, clean and under each corruption, with its prediction.

    Args:
        examples: by corruption: the image, float32 in [0, 1], shape (height, width), the predicted
            label, its probability.
        label: the true one.
        classes: names by label.
    """
    columns = 6
    figure, grid = style.image_grid(
        -(-len(examples) // columns),
        columns,
        (style.cell_width(classes), 1.55),
        f"A test image of class {classes[label]} under {len(examples) - 1} corruptions",
        "Below each image: the predicted class and its probability, ✓ correct, ✗ wrong (thick "
        "frame).",
    )
    for axes, (name, (image, predicted, share)) in zip(grid.flat, examples.items(), strict=False):
        below = style.verdict(classes[predicted], share, predicted == label)
        style.show(axes, image, predicted == label, name.replace("_", " "), below)
    return figure


def confusion_matrix(counts: np.ndarray, classes: tuple[str, ...]) -> Figure:
    """Counts of actual (rows) against predicted (columns); errors stand out in orange."""
    size = len(classes)
    wrong = ~np.eye(size, dtype=bool)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    worst = (shares * wrong).max()
    figure = style.chart(
        max(0.62 * size + 2, 7),
        max(0.5 * size + 1.6, 4),
        f"{counts[wrong].sum():,} errors in {counts.sum():,} test images",
        "Blue: correct. Orange: wrong, the darker the greater the share of the row. Recall: the "
        "share of the row that is correct.",
    )
    axes = figure.subplots()
    orange = LinearSegmentedColormap.from_list("errors", ["#fdeee3", "#ee8f4d"])
    cells = np.ones((size, size, 3))
    cells[~wrong] = to_rgb("#c6dff0")
    cells[wrong & (counts > 0)] = orange(shares[wrong & (counts > 0)] / max(worst, 1e-9))[:, :3]
    axes.imshow(cells, aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        weight = "bold" if count and row != column else "normal"
        text = f"{count:,}" if count else "·"
        axes.text(column, row, text, ha="center", va="center", weight=weight)
    for row in range(size):
        total = max(counts[row].sum(), 1)
        axes.text(size - 0.4, row, percent(counts[row, row] / total, 1), va="center")
    axes.text(size - 0.4, -0.8, "recall", weight="bold")
    turned = {"rotation": 35, "ha": "right"} if max(map(len, classes)) > 3 else {}
    axes.set_xticks(range(size), classes, **turned)
    axes.set_yticks(range(size), classes)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="predicted class", ylabel="true class")
    return figure


def learning_curves(curves: dict[int, pd.DataFrame]) -> Figure:
    """Error rate and loss by epoch: a colour per seed, lines dashed for training images.

    Args:
        curves: by seed, one row per epoch with epoch (from 1), train_accuracy, train_loss and,
            where there is a validation set, validation_accuracy, validation_loss.
    """
    epochs = max(len(frame) for frame in curves.values())
    title = f"Learning curves: networks: {len(curves)}, epochs: {epochs}"
    if all("validation_accuracy" in frame for frame in curves.values()):
        last = np.mean([frame["validation_accuracy"].iloc[-1] for frame in curves.values()])
        title += f", validation error in the end: {percent(1 - last)}"
    figure = style.chart(
        10,
        4.4,
        title,
        "Training images are randomly distorted and measured while the weights still change: they "
        "can be harder than validation images. All are of one view; the network that is kept "
        "averages several. An error rate of 0 is drawn at the lower edge.",
    )
    error, loss = figure.subplots(1, 2)
    for index, (seed, frame) in enumerate(curves.items()):
        for split, dashes in (("train", "--"), ("validation", "-")):
            if f"{split}_loss" in frame:
                label = f"{split}, seed {seed}" if len(curves) > 1 else split
                own = SEED_COLOURS[index % len(SEED_COLOURS)]
                grey = split == "train" and len(curves) == 1
                look = {"ls": dashes, "marker": "o", "ms": 4, "color": GREY if grey else own}
                rates = np.maximum(100 * (1 - frame[f"{split}_accuracy"]), TICKS[0])
                error.plot(frame["epoch"], rates, label=label, clip_on=False, **look)
                loss.plot(frame["epoch"], frame[f"{split}_loss"], **look)
    log_percent(error.yaxis)
    error.set(title="error rate, % of images", ylim=(TICKS[0], 100))
    loss.set(title="loss: cross-entropy with label smoothing, nats", ylim=(0, None))
    for axes in (error, loss):
        axes.set(xlabel="epoch", xlim=(0.5, epochs + 0.5))
        axes.set_xticks(range(1, epochs + 1, -(-epochs // 10)))
        axes.grid()
    figure.legend(loc="outside right upper")
    return figure


def log_percent(axis) -> None:
    """Make an axis of `Axes` logarithmic, with ticks that people can read."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(FixedLocator(TICKS))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def reliability(labels: np.ndarray, probabilities: np.ndarray, before: np.ndarray) -> Figure:
    """How often the network errs against how often it says it will, before and after scaling.

    Images are grouped by the stated probability of an error, 1 − confidence, in steps of about a
    factor of two, so that the few uncertain images are not lost among thousands of certain ones.

    Args:
        labels: shape (N,).
        probabilities: after temperature scaling, shape (N, classes).
        before: the same before it.
    """
    figure = style.chart(
        8,
        5.2,
        f"Are the probabilities true? {len(labels):,} test images",
        "Images in groups by what the network says of its error. Point: error rate of the group "
        "with its 95 % interval (Wilson); triangle: a group without an error. On the dashed line "
        "the probabilities are true; above it the network is over-confident.",
    )
    axes = figure.subplots()
    low = TICKS[0]
    keys = []
    for values, name, colour, marker in (
        (before, "before temperature scaling", GREY, "s"),
        (probabilities, "after temperature scaling", BLUE, "o"),
    ):
        stated = 100 * (1 - values.max(axis=1).astype(np.float64))
        wrong = values.argmax(axis=1) != labels
        groups = np.digitize(stated, GROUPS[1:-1])
        for group in np.unique(groups):
            part = groups == group
            errors = int(wrong[part].sum())
            interval = scores.wilson_interval(errors, int(part.sum()))
            x = max(stated[part].mean(), low)
            y = max(100 * errors / part.sum(), low)
            ends = [max(100 * interval["low"], low), 100 * interval["high"]]
            axes.plot([x, x], ends, color=colour, linewidth=1.2, alpha=0.6)
            shape = {"marker": marker if errors else "v", "markeredgecolor": "white"}
            axes.plot(x, y, color=colour, markersize=8, clip_on=False, zorder=3, **shape)
        error = 100 * scores.calibration_error(labels, values)
        label = f"{name}: calibration error {error:.2f} points"
        keys.append(Line2D([], [], color=colour, marker=marker, markersize=8, label=label))
    axes.plot([low, 100], [low, 100], color="black", linewidth=1, linestyle="--")
    log_percent(axes.xaxis)
    log_percent(axes.yaxis)
    axes.set(xlim=(low, 100), ylim=(low, 100))
    axes.set(xlabel="stated error: 1 − confidence, %", ylabel="error rate, %")
    axes.grid()
    axes.legend(handles=keys, loc="upper left")
    return figure
