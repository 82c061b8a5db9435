"""The pictures of evaluate and robustness. The same inputs give the same bytes."""

from collections.abc import Collection

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

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
WIDEST = 12.5  # inches of images in a row
LOWEST = 0.01  # %, where the axes of error rates begin
EDGE = f"Less than {LOWEST} % is drawn at the edge."
FEWEST_ERRORS, MOST_GROUPS = 5, 10  # of the reliability diagram


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
        labels: integers, shape (N,).
        probabilities: shape (N, classes).
        classes: names by label.
        per_class: random images of each class; fewer if there are fewer.
        seed: which images those are.
        disputed: indices of images whose label people doubt; these get a question mark.
    """
    rng = np.random.default_rng(seed)
    wrong = probabilities.argmax(axis=1) != labels
    title = f"Predictions of random test images, {per_class} of each class"
    if wrong.any():
        title += "; last row: the most confident error of the class"
    shown = np.full((per_class + wrong.any(), len(classes)), -1)  # -1: no image
    for label in range(len(classes)):
        chosen = rng.permutation(np.flatnonzero(labels == label))[:per_class]
        shown[: len(chosen), label] = chosen
        errors = np.flatnonzero(wrong & (labels == label))
        if len(errors):
            shown[-1, label] = errors[probabilities[errors].max(axis=1).argmax()]
    data = images, labels, probabilities, classes, disputed
    return _gallery(*data, shown.ravel(), len(classes), 1, title)


def misclassified(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: tuple[str, ...],
    limit: int,
    disputed: Collection[int] = (),
) -> Figure:
    """The misclassified images with the two most likely classes, most confident first.

    Args:
        images, labels, probabilities, classes, disputed: as of `sample_predictions`.
        limit: images shown, at most.
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    confidence = probabilities[wrong].max(axis=1)
    shown = wrong[np.argsort(-confidence, kind="stable")][:limit]
    title = f"{len(wrong):,} of {len(labels):,} test images are misclassified"
    if not len(wrong):
        return style.chart(7, 1, title, "There is no image to show.")
    if len(shown) < len(wrong):
        title += f"; the {len(shown)} most confident"
    data = images, labels, probabilities, classes, disputed
    columns = min(int(WIDEST / style.cell_width(classes)), len(shown))
    return _gallery(*data, shown, columns, 2, title)


def _gallery(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: tuple[str, ...],
    disputed: Collection[int],
    shown: np.ndarray,
    columns: int,
    guesses: int,
    title: str,
) -> Figure:
    """The images of the indices `shown`, with so many of the most likely classes of each."""
    cells = []
    for index in shown:
        label, most_likely = labels[index], np.argsort(-probabilities[index], kind="stable")
        doubt = " (?)" if index in disputed else ""
        below = "\n".join(
            _verdict(classes[guess], probabilities[index, guess], guess == label)
            for guess in most_likely[:guesses]
        )
        above = f"{classes[label]}{doubt}  #{index}"
        cell = images[index], most_likely[0] == label, above, below
        cells.append(None if index < 0 else cell)
    note = "Above each image: its label and its number in the test set. Below: what is predicted "
    note += "with what probability, ✓ correct, ✗ wrong. Thick frame: misclassified."
    if len(disputed):
        note += " (?): people doubt the label itself."
    height = style.IMAGE_INCHES + 0.25 + 0.15 * guesses
    return style.gallery(cells, columns, (style.cell_width(classes), height), title, note)


def _verdict(name: str, share: float, correct: bool) -> str:
    """A predicted class with its mark and its probability."""
    return f"{'✓' if correct else '✗'} {name}  {percent(share, 1)}"


def corruptions(
    examples: dict[str, tuple[np.ndarray, int, float]], label: int, classes: tuple[str, ...]
) -> Figure:
    """One image, as it is and under each corruption, with its prediction.

    Args:
        examples: by corruption: the image, float32 in [0, 1], shape (height, width), the predicted
            label, its probability.
        label: the true one.
        classes: names by label.
    """
    cells = [
        (
            image,
            predicted == label,
            name.replace("_", " "),
            _verdict(classes[predicted], share, predicted == label),
        )
        for name, (image, predicted, share) in examples.items()
    ]
    title = f"A test image of class {classes[label]} under {len(examples) - 1} corruptions"
    note = "Below each image: the predicted class and its probability, ✓ correct, ✗ wrong (thick "
    note += "frame)."
    size = style.cell_width(classes), style.IMAGE_INCHES + 0.4
    return style.gallery(cells, 6, size, title, note)


def confusion_matrix(counts: np.ndarray, classes: tuple[str, ...]) -> Figure:
    """Counts of actual (rows) against predicted (columns); errors stand out in orange."""
    size = len(classes)
    wrong = ~np.eye(size, dtype=bool) & (counts > 0)
    totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shares = counts / totals
    orange = LinearSegmentedColormap.from_list("errors", ["#fdeee3", "#ee8f4d"])
    cells = np.ones((size, size, 3))
    cells[range(size), range(size)] = to_rgb("#c6dff0")
    cells[wrong] = orange(shares[wrong] / shares[wrong].max(initial=1e-9))[:, :3]
    figure = style.chart(
        max(0.62 * size + 2, 7),
        max(0.5 * size + 1.6, 4),
        f"{counts[wrong].sum():,} errors in {counts.sum():,} test images",
        "Blue: correct. Orange: wrong, the darker the greater the share of the row. Recall: the "
        "share of the row that is correct.",
    )
    axes = figure.subplots()
    axes.imshow(cells, aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        weight = "bold" if wrong[row, column] else "normal"
        text = f"{count:,}" if count else "·"
        axes.text(column, row, text, ha="center", va="center", weight=weight)
    turned = {"rotation": 35, "ha": "right"} if max(map(len, classes)) > 3 else {}
    axes.set_xticks(range(size), classes, **turned)
    axes.set_yticks(range(size), classes)
    axes.set(xlabel="predicted class", ylabel="true class")
    recall = axes.secondary_yaxis("right")
    recall.set_yticks(range(size), [percent(share, 1) for share in np.diag(shares)])
    recall.set_ylabel("recall")
    for side in (axes, recall):
        side.tick_params(length=0)
        side.spines[:].set_visible(False)
    return figure


def learning_curves(curves: dict[int, pd.DataFrame]) -> Figure:
    """Error rate and loss by epoch: a colour and marker per seed, dashed for training images.

    Args:
        curves: by seed, one row per epoch with epoch (from 1), train_accuracy, train_loss and,
            where there is a validation set, validation_accuracy, validation_loss.
    """
    frames = pd.concat(curves, names=["seed"])
    epochs = frames["epoch"].max()
    title = f"Learning curves, epochs 1 to {epochs}"
    if "validation_accuracy" in frames:
        last = frames.groupby("seed")["validation_accuracy"].last().mean()
        title += f": validation error {percent(1 - last)} in the end"
    figure = style.chart(
        11,
        4.6,
        title,
        "Training images are randomly distorted and measured while the weights still change: they "
        "can be harder than validation images. All are of one view; the network that is kept can "
        f"average several. {EDGE}",
    )
    error, loss = figure.subplots(1, 2)
    for index, (seed, frame) in enumerate(curves.items()):
        for split, dashes in (("train", "--"), ("validation", "-")):
            if f"{split}_loss" in frame:
                look = {
                    "label": f"{split}, seed {seed}",
                    "linestyle": dashes,
                    "marker": "os^Dv"[index % 5],
                    "markersize": 4.5,
                    "color": SEED_COLOURS[index % len(SEED_COLOURS)],
                    "markerfacecolor": "white" if split == "train" else None,
                    "clip_on": False,
                }
                rates = 100 * (1 - frame[f"{split}_accuracy"])
                error.plot(frame["epoch"], rates.clip(LOWEST), **look)
                loss.plot(frame["epoch"], frame[f"{split}_loss"], **look)
    _log_percent(error, "y")
    error.set(title="error rate, % of images")
    loss.set(
        title="loss: cross-entropy with label smoothing, nats", ylim=(0, max(1, loss.get_ylim()[1]))
    )
    for axes in (error, loss):
        axes.set(xlabel="epoch", xlim=(0.5, epochs + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid()
    handles, names = error.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right upper")
    return figure


def reliability(labels: np.ndarray, probabilities: np.ndarray, before: np.ndarray) -> Figure:
    """How often the network errs against how often it says it will, before and after scaling.

    Groups hold equally many errors, not equally many images: of most images the network is certain
    and correct, and groups of these alone would be empty of errors.

    Args:
        labels: integers, shape (N,).
        probabilities: after temperature scaling, shape (N, classes).
        before: the same before it.
    """
    figure = style.chart(
        8,
        5.6,
        f"Are the probabilities true? {len(labels):,} test images",
        "Images are sorted by the probability of an error that the network states, and cut into "
        f"groups of equally many errors, at least {FEWEST_ERRORS}. Bars: 95 % interval (Wilson). "
        "On the dashed line the probabilities are true; above it the network is over-confident, "
        f"below it under-confident. {EDGE}",
    )
    axes = figure.subplots()
    _log_percent(axes, "x")
    _log_percent(axes, "y")
    axes.plot([LOWEST, 100], [LOWEST, 100], color="black", linewidth=1, linestyle="--")
    for values, name, colour, marker in (
        (before, "before temperature scaling", GREY, "s"),
        (probabilities, "after temperature scaling", BLUE, "o"),
    ):
        wrong = values.argmax(axis=1) != labels
        stated = 1 - values.max(axis=1).astype(np.float64)
        points = []
        for group in _groups_of_errors(wrong, stated):
            errors, size = int(wrong[group].sum()), len(group)
            interval = scores.wilson_interval(errors, size)
            points.append([stated[group].mean(), errors / size, *interval.values()])
        x, y, low, high = np.maximum(100 * np.transpose(points), LOWEST)
        error = 100 * scores.calibration_error(labels, values)
        label = f"{name}: calibration error {error:.2f} points"
        look = {"color": colour, "fmt": marker, "markersize": 7, "clip_on": False}
        axes.errorbar(x, y, (y - low, high - y), label=label, **look)
    axes.set(xlabel="stated: 1 − confidence, %", ylabel="found: error rate, %")
    axes.grid()
    axes.legend(loc="upper left")
    return figure


def _groups_of_errors(wrong: np.ndarray, stated: np.ndarray) -> list[np.ndarray]:
    """Indices by falling `stated`, cut half-way between errors into groups of equally many."""
    order = np.argsort(-stated, kind="stable")
    errors = np.flatnonzero(wrong[order])
    number = int(np.clip(len(errors) // FEWEST_ERRORS, 1, MOST_GROUPS))
    parts = np.array_split(errors, number)
    cuts = [(one[-1] + other[0] + 1) // 2 for one, other in zip(parts, parts[1:], strict=False)]
    return np.split(order, cuts)


def _log_percent(axes: Axes, side: str) -> None:
    """Make the "x" or "y" axis logarithmic, with the same limits for all data."""
    axes.set(**{f"{side}scale": "log", f"{side}lim": (LOWEST, 100)})
    axis = getattr(axes, f"{side}axis")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())
