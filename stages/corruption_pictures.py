"""The pictures of the stage robustness: an image under each corruption, and the error rates."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from stages.pictures import BLUE, GREY, ORANGE, _digit, _percent


def gallery(
    examples: dict[str, tuple[np.ndarray, int, float]], label: int, classes: tuple[str, ...]
) -> Figure:
    """One image, clean and under each corruption, with what the networks make of it.

    Args:
        examples: by corruption: the image, float32 in [0, 1], shape (height, width), the predicted
            label, its probability.
        label: the true one.
        classes: names by label.
    """
    columns = 6
    rows = -(-len(examples) // columns)
    gap = "\n" if max(map(len, classes)) > 3 else "  "
    figure = Figure(figsize=(1.3 * columns + 0.3, 1.7 * rows + 0.9), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, (name, (image, predicted, confidence)) in zip(
        grid.flat, examples.items(), strict=False
    ):
        axes.set_axis_on()
        axes.set_title(name.replace("_", " "), fontsize=10)
        right = predicted == label
        caption = f"{'✓' if right else '✗'} {classes[predicted]}{gap}{_percent(confidence)}"
        _digit(axes, image, caption, right)
    figure.suptitle(f"A test image of class {classes[label]}, clean and corrupted", fontsize=12)
    figure.supxlabel(
        "below each: ✓ right or ✗ wrong (thick frame), the prediction, its probability",
        fontsize=9,
        color=GREY,
    )
    return figure


def error_rates(scores: dict[str, dict], clean: dict, mean_error: float, images: int) -> Figure:
    """Error rate under each corruption with its 95 % interval, the worst on top.

    Args:
        scores: by the corruption's name, `accuracy` and `accuracy_95` as shares.
        clean: the same of the images as they were, drawn as a line.
        mean_error: mean error rate under the corruptions, as a share.
        images: how many were corrupted, for the heading.
    """
    ordered = sorted(scores, key=lambda name: -scores[name]["accuracy"])  # the last is on top
    figure = Figure(figsize=(8, 0.34 * len(ordered) + 1.6), layout="constrained")
    axes = figure.subplots()
    left = 50 / images  # a log axis has no 0: the place of half an image stands for it

    def percent(result: dict) -> list[float]:
        shares = result["accuracy_95"]["high"], result["accuracy"], result["accuracy_95"]["low"]
        return [max(100 * (1 - share), left) for share in shares]

    low, error, high = np.transpose([percent(scores[name]) for name in ordered])
    places = np.arange(len(ordered))
    axes.hlines(places, low, high, color=BLUE, linewidth=2.5)
    axes.plot(error, places, "o", color=BLUE, markersize=7)
    for place, name in enumerate(ordered):
        axes.annotate(
            _percent(1 - scores[name]["accuracy"]),
            (high[place], place),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=10,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    reference = percent(clean)[1]
    axes.axvline(reference, color=ORANGE, linewidth=1.6, linestyle="--", zorder=1)
    axes.set_xscale("log")
    axes.set_xlim(min(reference, *low) / 1.5, 200)
    axes.xaxis.set_major_locator(FixedLocator([0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_yticks(places, [name.replace("_", " ") for name in ordered], fontsize=11)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.6, len(ordered) - 0.4)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("% of images misread (logarithmic), with the 95 % interval", fontsize=11)
    axes.set_title(
        f"{images:,} test images: {_percent(1 - clean['accuracy'])} misread as they are (dashed),\n"
        f"{_percent(mean_error)} under {len(ordered)} corruptions on average",
        fontsize=12,
        loc="left",
    )
    return figure
