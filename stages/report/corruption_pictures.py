"""The pictures of the stage robustness: an image under each corruption, and the error rates."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from stages.report import style as figures
from stages.report.style import BLUE, SIDE


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
    columns = 9
    figure, grid = figures.image_grid(
        rows=-(-len(examples) // columns),
        columns=columns,
        cell=(figures.cell_width(classes, more=9), SIDE + 0.45),
        above=0.2,
        title=f"A test image of class {classes[label]}, clean and under {len(examples) - 1} "
        "corruptions",
        note="Below each image: what it was read as and with what probability, ✓ right, ✗ wrong "
        "(thick frame).",
    )
    for axes, (name, (image, predicted, confidence)) in zip(
        grid.flat, examples.items(), strict=False
    ):
        right = predicted == label
        figures.show(axes, image, right)
        figures.caption(axes, name.replace("_", " "), -1)
        figures.verdict(axes, classes[predicted], confidence, right)
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
    figure = figures.chart(
        9,
        0.3 * len(ordered) + 0.8,
        f"{figures.percent(mean_error)} of {images:,} test images are misread under "
        f"{len(ordered)} corruptions, on average",
        "Point: share misread under a corruption, with its 95 % interval (Wilson). Dashed: the "
        f"same images as they are, {100 * (1 - clean['accuracy']):.2f} %.",
    )
    axes = figure.subplots()
    left = 50 / images  # a log axis has no 0: the place of half an image stands for it

    def percent(result: dict) -> list[float]:
        shares = result["accuracy_95"]["high"], result["accuracy"], result["accuracy_95"]["low"]
        return [max(100 * (1 - share), left) for share in shares]

    low, error, high = np.transpose([percent(scores[name]) for name in ordered])
    places = np.arange(len(ordered))
    axes.hlines(places, low, high, color=BLUE, linewidth=2.5, alpha=0.5)
    axes.plot(error, places, "o", color=BLUE, markersize=7)
    for place, name in enumerate(ordered):
        axes.annotate(
            figures.percent(1 - scores[name]["accuracy"]),
            (high[place], place),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    reference = percent(clean)[1]
    axes.axvline(reference, color="black", linewidth=1, linestyle="--", zorder=1)
    axes.set_xscale("log")
    axes.set_xlim(min(reference, *low) / 1.5, 200)
    axes.xaxis.set_major_locator(FixedLocator([0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_yticks(places, [name.replace("_", " ") for name in ordered])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.6, len(ordered) - 0.4)
    axes.grid()
    axes.set_xlabel("misread, % of the images")
    return figure
