"""The pictures that look behind the accuracy: are the probabilities right, is a class read worse
than the others or is that chance, and which parts of an image decide.

What is estimated from few images is drawn with its 95 % Wilson interval.
"""

from collections.abc import Callable

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from stages.report import style as figures
from stages.report import scores
from stages.report.style import BLUE, GREY, ORANGE

PATCH = 5  # side of the square that `occlusion` erases, in pixels


def reliability(
    labels: np.ndarray, probabilities: np.ndarray, before: np.ndarray, bins: int = 15
) -> Figure:
    """How often the network errs against how often it says so, before and after scaling.

    Both axes are logarithmic: nearly all images are read with a confidence of more than 90 %. A
    bin without error is a triangle on the lower edge, its interval above it.

    Args:
        labels: shape (N,).
        probabilities: after temperature scaling, shape (N, classes).
        before: the same before it.
        bins: of equal mass; those of `scores.calibration_error`.
    """
    figure = figures.chart(
        9,
        5,
        f"Does the network err as often as it says? {len(labels):,} test images",
        f"{min(bins, len(labels))} equal groups by confidence. Point: error rate of a group with "
        "its 95 % interval, triangle: no error. On the dashed line the probabilities are right; "
        "above it the network is over-confident, below it under-confident.",
    )
    axes = figure.subplots()
    low = min(10.0 ** np.floor(np.log10(100 / len(labels))), 10)  # %, one error in all or less
    keys = []
    for values, name, colour, marker in (
        (before, "before temperature scaling", GREY, "s"),
        (probabilities, "after temperature scaling", BLUE, "o"),
    ):
        confidence = values.max(axis=1).astype(np.float64)
        wrong = values.argmax(axis=1) != labels
        for part in scores.equal_mass_bins(confidence, bins):
            errors = int(wrong[part].sum())
            interval = scores.wilson_interval(errors, len(part))
            said = max(100 * (1 - confidence[part].mean()), low)
            axes.plot(
                [said, said],
                [max(100 * interval["low"], low), 100 * interval["high"]],
                color=colour,
                linewidth=1.2,
                alpha=0.6,
            )
            axes.plot(
                said,
                100 * errors / len(part) if errors else low,
                marker=marker if errors else "v",
                color=colour,
                markersize=7,
                clip_on=False,
                markeredgecolor="white",
                zorder=3,
            )
        error = scores.calibration_error(labels, values, bins)
        label = f"{name}: calibration error {100 * error:.2f} %"
        keys.append(Line2D([], [], color=colour, marker=marker, markersize=7, label=label))
    axes.plot([low, 100], [low, 100], color="black", linewidth=1, linestyle="--")
    axes.set(
        xscale="log",
        yscale="log",
        xlim=(low, 100),
        ylim=(low, 100),
        xlabel="what it says: 1 − confidence, %",
        ylabel="what happens: error rate, %",
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_locator(NullLocator())
    axes.grid()
    axes.legend(handles=keys, loc="upper left")
    return figure


def confidence_histogram(labels: np.ndarray, probabilities: np.ndarray) -> Figure:
    """Counts of right and wrong answers by confidence, on a log scale that shows a single one.

    Args:
        labels: shape (N,).
        probabilities: shape (N, classes).
    """
    confidence = np.minimum(probabilities.max(axis=1).astype(np.float64), 1)
    right = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, 21)
    counts = {
        name: np.histogram(confidence[mask], edges)[0]
        for name, mask in (("right", right), ("wrong", ~right))
    }
    both = counts["right"] + counts["wrong"]
    first = min(5 * int(np.flatnonzero(both)[0]), 80)  # %, where the axis begins
    figure = figures.chart(
        9,
        4.4,
        f"How sure it is of {right.sum():,} right and {(~right).sum():,} wrong answers",
        f"Bars count test images, on a log scale. {both[-1]:,} of {len(labels):,} are read with a "
        f"confidence of 95 % or more, and {counts['wrong'][-1]:,} of these wrongly.",
    )
    axes = figure.subplots()
    for (name, count), colour, hatch, side in zip(
        counts.items(), (BLUE, ORANGE), ("", "////"), (0, 1), strict=True
    ):
        bars = axes.bar(
            100 * (edges[:-1] + 0.003 + 0.022 * side),
            count,
            2.2,
            align="edge",
            color=colour,
            edgecolor="white",
            linewidth=0,
            hatch=hatch,
            label=name,
        )
        axes.bar_label(
            bars, [f"{n:,}" if n else "" for n in count], fontsize=8, color=colour, padding=1
        )
    axes.set(
        yscale="log",
        xlim=(first, 100.5),
        ylim=(0.5, max(map(max, counts.values())) * 2),
        xlabel="confidence: probability of the class it was read as, %",
        ylabel="test images",
    )
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_yticks([tick for tick in 10.0 ** np.arange(8) if tick <= axes.get_ylim()[1]])
    axes.set_xticks(range(first, 101, 5))
    axes.grid(axis="y")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return figure


def class_errors(labels: np.ndarray, probabilities: np.ndarray, classes: tuple[str, ...]) -> Figure:
    """Error rate of each class with its 95 % interval, and of all as a line.

    Args:
        labels: shape (N,).
        probabilities: shape (N, classes).
        classes: names by label.
    """
    wrong = probabilities.argmax(axis=1) != labels
    overall = 100 * wrong.mean()
    figure = figures.chart(
        9,
        0.34 * len(classes) + 1,
        f"Error rate of each class: {wrong.sum():,} errors in {len(labels):,} test images",
        f"Point: share misread, with its 95 % interval (Wilson). Dashed: all classes, {overall:.2f}"
        " %. A class whose interval holds the dashed line may differ from the others by chance.",
    )
    axes = figure.subplots()
    axes.axvline(overall, color="black", linewidth=1, linestyle="--")
    for label in range(len(classes)):
        errors, total = int(wrong[labels == label].sum()), int((labels == label).sum())
        text = f"{errors:,} of {total:,}" if total else "no images"
        axes.annotate(
            text,
            (1, label),
            (6, 0),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=GREY,
        )
        if total:
            interval = scores.wilson_interval(errors, total)
            ends = [100 * interval["low"], 100 * interval["high"]]
            axes.plot(ends, [label, label], color=BLUE, linewidth=2.5, alpha=0.5)
            axes.plot(100 * errors / total, label, "o", color=BLUE, clip_on=False, zorder=3)
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="misread, % of the class", ylabel="true class")
    axes.set_xlim(left=0)
    axes.set_ylim(len(classes) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    return figure


def occlusion(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: tuple[str, ...],
    predict: Callable[[np.ndarray], np.ndarray],
) -> Figure:
    """What the network needs to see: an image per class, erased square by square (Zeiler and
    Fergus, 2014).

    Shown is the right answer of median confidence of each class; classes without one are left out.

    Args:
        images, labels, probabilities, classes: as of `pictures.sample_predictions`.
        predict: from float32 images, shape (N, 28, 28, 1), to probabilities, shape (N, classes);
            what gave `probabilities`.
    """
    right = probabilities.argmax(axis=1) == labels
    chosen = []
    for label in range(len(classes)):
        members = np.flatnonzero(right & (labels == label))
        if len(members):
            order = np.argsort(probabilities[members, label], kind="stable")
            chosen.append(members[order[len(members) // 2]])
    if not chosen:
        return figures.sheet(7, 0, "What it needs to see", "No image was read rightly.")[0]
    cell, gap = figures.column_cell(classes)
    side, reach = images.shape[1], PATCH // 2
    figure, grid = figures.image_grid(
        rows=2,
        columns=len(chosen),
        cell=cell,
        above=0.05,
        title=f"What it needs to see: {len(chosen)} of {len(labels):,} test images, partly erased",
        note=f"Above: the more orange a pixel, the more probability the class loses when the "
        f"{PATCH}×{PATCH} pixels around it are erased. Below: the worst of these erasures and what "
        "is read then, ✓ right, ✗ wrong.",
    )
    for (above, below), index in zip(grid.T, chosen, strict=True):
        label = labels[index]
        erased = np.repeat(np.asarray(images[index])[None], side * side, axis=0)
        for pixel, (row, column) in enumerate(np.ndindex(side, side)):
            rows, columns = (slice(max(at - reach, 0), at + reach + 1) for at in (row, column))
            erased[pixel, rows, columns] = 0
        # Most squares hold no ink: erasing them changes nothing, and needs no prediction.
        changed = np.any(erased != images[index], axis=(1, 2, 3))
        found = np.repeat(probabilities[index][None], side * side, axis=0)
        if changed.any():
            found[changed] = predict(erased[changed])
        loss = np.clip(probabilities[index, label] - found[:, label], 0, 1).reshape(side, side, 1)
        paper = 1 - 0.4 * np.asarray(images[index]).reshape(side, side, 1)
        figures.show(above, paper * (1 - loss) + loss * to_rgb(ORANGE), right=True)
        figures.verdict(above, classes[label], probabilities[index, label], right=True, gap=gap)
        worst = int(loss.argmax())
        reading = int(found[worst].argmax())
        figures.show(below, erased[worst], reading == label)
        figures.verdict(below, classes[reading], found[worst, reading], reading == label, gap=gap)
    return figure
