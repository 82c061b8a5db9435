"""The pictures of evaluate and robustness. The same inputs give the same bytes."""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from stages.base.data import Split
from stages.report import drawing, scores, style
from stages.report.scores import percent
from stages.report.style import BLUE, GREY, SEED_COLOURS, Cell

if TYPE_CHECKING:
    import pandas as pd

LOWEST = 0.01  # %: one image in the test set of MNIST
PERCENT = (0.9 * LOWEST, 110)  # limits of axes, the same for all runs, so that these compare
EDGE = f"Less than {LOWEST}\u00a0% is drawn as {LOWEST}\u00a0%."
MOST_CLASSES = 12  # in the picture of sample predictions
# Of the reliability diagram: where groups of images may end, and how many errors each needs.
EDGES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, -np.inf)
FEWEST_ERRORS = 5


def confusion_matrix(counts: np.ndarray, classes: tuple[str, ...]) -> Image.Image:
    """How many images of each class are predicted as which, and the recall of each class.

    Args:
        counts: rows are labels, columns predictions, integers, shape (classes, classes).
        classes: names by label.
    """
    images, correct = counts.sum(axis=1), counts.diagonal()
    beside = [("images", "recall", "95 % interval")]
    for total, right in zip(images.tolist(), correct.tolist(), strict=True):
        ends = (percent(end, 1) for end in scores.wilson_interval(right, total).values())
        interval = (percent(right / total, 1), " to ".join(ends)) if total else ("", "")
        beside.append((f"{total:,}", *interval))
    errors = images.sum() - correct.sum()
    title = f"Confusion matrix: {errors:,} of {images.sum():,} test images are misclassified"
    columns = list(zip(*beside, strict=True))
    note = "Rows are labels, columns predictions; an empty field is 0. Blue: correct; orange: "
    note += "errors; the darker, the larger the share of the row. Recall: the share of a class's "
    note += "images that are predicted as such, with Wilson's interval."
    return style.matrix(title, counts, classes, columns, note)


def sample_predictions(
    test: Split, probabilities: np.ndarray, per_class: int, seed: int
) -> Image.Image:
    """A column per class: images of it drawn at random, and last its most confident error.

    Args:
        test: images and labels.
        probabilities: of their classes, shape (N, classes).
        per_class: random images of each class; fewer if there are fewer.
        seed: which images those are.
    """
    rng, classes = np.random.default_rng(seed), len(test.info.classes)
    wrong = misclassified_first(test.labels, probabilities)[0]
    title = f"Predictions of random test images, {per_class} of each class"
    shown = np.arange(classes)
    if classes > MOST_CLASSES:
        errors = np.bincount(test.labels[wrong], minlength=classes)
        shown = np.sort(np.argsort(-errors, kind="stable")[:MOST_CLASSES])
        title += f" (the {MOST_CLASSES} classes with the most errors)"
    if len(wrong):
        title += "; last row: the most confident error of the class"
    rows = np.full((per_class + bool(len(wrong)), classes), None)
    for label in range(classes):
        chosen = rng.permutation(np.flatnonzero(test.labels == label))[:per_class]
        rows[: len(chosen), label] = chosen
    for index in reversed(wrong):
        rows[-1, test.labels[index]] = index
    return _gallery(test, probabilities, rows[:, shown].ravel(), len(shown), 1, title)


def misclassified(test: Split, probabilities: np.ndarray, limit: int) -> Image.Image:
    """The misclassified images with the two likeliest classes, most confident first; at most
    `limit`.
    """
    wrong = misclassified_first(test.labels, probabilities)[0]
    title = f"{len(wrong):,} of {len(test.labels):,} test images are misclassified"
    if not len(wrong):
        return style.page(title, (0, 0), "There is no image to show.")[0]
    shown = wrong[:limit]
    title += f"; shown: {len(shown)}, most confident first"
    return _gallery(test, probabilities, shown, min(10, len(shown)), 2, title)


def misclassified_first(
    labels: np.ndarray, probabilities: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of misclassified images, most confident first, and of others, least confident first.

    Where a label is wrong, the model is often sure of another class: those images come first.
    """
    confidence = probabilities.max(axis=1)
    is_wrong = probabilities.argmax(axis=1) != labels
    wrong, right = np.flatnonzero(is_wrong), np.flatnonzero(~is_wrong)
    return (
        wrong[np.argsort(-confidence[wrong], kind="stable")],
        right[np.argsort(confidence[right], kind="stable")],
    )


def as_seen(images: np.ndarray) -> np.ndarray:
    """Images, uint8, shape (N, height, width, channels), as they are shown.

    Those like MNIST's, of light ink on an empty dark ground, become dark ink on paper.
    """
    is_ink = images.shape[3] == 1 and np.median(images[:200]) < 32
    return 255 - images if is_ink else images


def _gallery(
    test: Split, probabilities: np.ndarray, shown: np.ndarray, columns: int, top: int, title: str
) -> Image.Image:
    """The images of the indices `shown`, None for no image, with the `top` likeliest classes."""
    names, images = drawing.names(test.info.classes), as_seen(test.images)

    def cell(index: int) -> Cell:
        label, number = int(test.labels[index]), int(test.numbers[index])
        likeliest = np.argsort(-probabilities[index], kind="stable")[:top]
        doubt = " (?)" if number in test.info.disputed else ""
        predicted = [(int(of), float(probabilities[index, of])) for of in likeliest]
        return Cell(images[index], f"{names[label]}{doubt}  #{number}", label, predicted)

    cells = [None if index is None else cell(index) for index in shown]
    note = "Above each image: its label and its number in the source. Below: the prediction"
    note += " and, in the second line, the next likeliest class," if top > 1 else ""
    note += " with the probability; ✓ this is the label, ✗ it is not. Thick frame: misclassified."
    if test.info.disputed:
        note += " (?): people doubt the label itself."
    return style.gallery(title, cells, columns, test.info.classes, note)


def corruptions(
    examples: dict[str, tuple[np.ndarray, int, float]], label: int, classes: tuple[str, ...]
) -> Image.Image:
    """One image, as it is and under each corruption, with its prediction.

    Args:
        examples: by corruption: the image, float32 in [0, 1], shape (height, width, 1 or 3), the
            predicted label, its probability.
        label: the true one.
        classes: names by label.
    """
    images = np.stack([np.rint(255 * image) for image, _, _ in examples.values()])
    cells = [
        Cell(image, name.replace("_", " "), label, [(predicted, share)])
        for image, (name, (_, predicted, share)) in zip(
            as_seen(images.astype(np.uint8)), examples.items(), strict=True
        )
    ]
    name = drawing.names(classes)[label]
    title = f"A test image of class {name} under {len(cells) - 1} corruptions"
    note = "Below each image: its prediction with the probability; ✓ correct, ✗ wrong."
    return style.gallery(title, cells, 7, classes, note)


def learning_curves(curves: dict[int, "pd.DataFrame"]) -> Image.Image:
    """Error rate and loss by epoch: a colour and marker per seed, dashed for training images.

    Args:
        curves: by seed, one row per epoch with epoch (from 1), train_accuracy, train_loss and,
            where there is a validation set, validation_accuracy, validation_loss.
    """
    splits = [s for s in ("train", "validation") if all(f"{s}_loss" in c for c in curves.values())]
    last = np.mean([frame[f"{splits[-1]}_accuracy"].iloc[-1] for frame in curves.values()])
    epochs = max(frame["epoch"].iloc[-1] for frame in curves.values())
    title = f"Learning curves: {splits[-1]} error {percent(1 - last)} after the last epoch"
    if len(curves) > 1:
        title += f", mean of {len(curves)} seeds"
    note = "Training images are randomly distorted: they can be harder than validation images. All "
    note += "are predicted from one view; packaged models can average several."
    height = max(840, 44 * len(curves) * len(splits) + 100)
    figure = style.figure(2200, height)
    error, loss = figure.subplots(1, 2)
    figure.subplots_adjust(0.045, 90 / height, 0.84, 1 - 50 / height, 0.13)
    rates = {
        (seed, split): 100 * (1 - frame[f"{split}_accuracy"])
        for seed, frame in curves.items()
        for split in splits
    }
    # Whole powers of ten around what there is: most runs get the same limits, and can be compared.
    every = np.concatenate(list(rates.values()))
    above, nothing = every[every > 0], bool((every <= 0).any())
    low = 10 ** np.floor(np.log10(above.min(initial=100) / (2 if nothing else 1)))
    high = 10 ** np.ceil(np.log10(above.max(initial=10 * low)))
    note += " An error rate of 0 is drawn at the lower edge." if nothing else ""
    for index, (seed, frame) in enumerate(curves.items()):
        colour, marker = SEED_COLOURS[index % len(SEED_COLOURS)], "os^Dv"[index % 5]
        for split in splits:
            dashes, fill = ("--", "white") if split == "train" else ("-", colour)
            look = {"color": colour, "markerfacecolor": fill, "label": f"{split}, seed {seed}"}
            error.plot(frame["epoch"], rates[seed, split].clip(low), dashes + marker, **look)
            loss.plot(frame["epoch"], frame[f"{split}_loss"], dashes + marker, **look)
    error.set(title="error rate, % of images", yscale="log", ylim=(0.95 * low, 1.05 * high))
    style.plain_ticks(error.yaxis)
    loss.set(title="loss with label smoothing, nats", ylim=(0, max(1, loss.get_ylim()[1])))
    for axes in (error, loss):
        axes.set(xlabel="epoch", xlim=(0.5, epochs + 0.5))
        axes.locator_params(axis="x", integer=True, min_n_ticks=1)
        axes.grid()
    figure.legend(handles=error.lines, loc="center right")
    return style.chart(title, figure, note)


def reliability(labels: np.ndarray, probabilities: np.ndarray, before: np.ndarray) -> Image.Image:
    """How often the model errs against how often it says it will, as trained and calibrated.

    Args:
        labels: integers, shape (N,).
        probabilities: of what predicts, one model or the mean of several, shape (N, classes).
        before: the same without any temperature.
    """
    title = f"Are the probabilities true? {len(labels):,} test images"
    note = "A point is a group of images of similar confidence, with its 95 % interval (Wilson); a "
    note += f"group has {FEWEST_ERRORS} errors or more, the most confident one has the rest. Above "
    note += "the dashed line the model is over-confident, below it under-confident. "
    series = {"as trained": (before, GREY, "s"), "calibrated": (probabilities, BLUE, "o")}
    if np.array_equal(before, probabilities):
        del series["calibrated"]
        note += "It is not calibrated: that takes validation images. "
    figure = style.figure(1600, 1100)
    axes = figure.subplots()
    figure.subplots_adjust(0.07, 0.08, 0.99, 0.99)
    axes.plot([LOWEST, 100], [LOWEST, 100], "--", color="black", linewidth=1)
    for name, (values, colour, marker) in series.items():
        x, y, low, high = _points(labels, values)
        error = 100 * scores.calibration_error(labels, values)
        label = f"{name}: calibration error {error:.2f} points"
        axes.errorbar(x, y, (y - low, high - y), fmt=marker, color=colour, label=label)
    axes.set(xscale="log", yscale="log", xlim=PERCENT, ylim=PERCENT)
    axes.set(xlabel="stated error: 1 − confidence, %", ylabel="error rate, %")
    style.plain_ticks(axes.xaxis)
    style.plain_ticks(axes.yaxis)
    axes.grid()
    axes.legend(loc="upper left")
    return style.chart(title, figure, note + EDGE)


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
