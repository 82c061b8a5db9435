"""How the pictures look: a heading above, a note below, images in grids, colours.

Correct and wrong are told apart by a mark and a frame as well as by colour, in hues that people
with colour-blindness can tell apart (Okabe and Ito, 2008).
"""

import io
import textwrap
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from stages.base.files import replacing
from stages.report.scores import percent

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#595959"  # correct, wrong, all else
SEED_COLOURS = (BLUE, "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#000000", ORANGE)
DPI = 110

matplotlib.rcParams.update(
    {
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "grid.color": "#dddddd",
        "grid.linewidth": 0.6,
        "legend.frameon": False,
    }
)


def chart(width: float, height: float, title: str, note: str) -> Figure:
    """An empty figure, sizes in inches, with its title above and a note below."""
    figure = Figure(figsize=(width, height), layout="constrained")
    wrapped = textwrap.fill(title, int(width * 9))
    figure.suptitle(wrapped, x=0.01, ha="left", fontsize=13, weight="bold")
    wrapped = textwrap.fill(note, int(width * 13.5))
    figure.supxlabel(wrapped, x=0.01, ha="left", fontsize=9.5, color=GREY)
    return figure


def image_grid(
    rows: int, columns: int, cell: tuple[float, float], title: str, note: str
) -> tuple[Figure, np.ndarray]:
    """A figure with a grid of axes for images, switched off until they are used.

    Args:
        cell: width and height of an image with its captions, in inches.

    Returns:
        The figure, and its axes, shape (rows, columns).
    """
    width = max(columns * cell[0], 7)
    figure = chart(width, rows * cell[1] + 0.9, title, note)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    return figure, grid


def show(axes: Axes, image: np.ndarray, correct: bool, above: str, below: str) -> None:
    """One image, with text above and below it; in a thick frame if its prediction is wrong."""
    colour = BLUE if correct else ORANGE
    axes.set_axis_on()
    axes.imshow(image.squeeze(), cmap="gray_r", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])
    axes.set_title(above, fontsize=9, pad=3)
    axes.set_xlabel(below, fontsize=9, color=colour, labelpad=3)
    axes.spines[:].set(visible=True, color=colour, linewidth=0.8 if correct else 2.4)


def verdict(name: str, share: float, correct: bool) -> str:
    """A predicted class with its mark and its probability."""
    gap = "\n" if len(name) > 3 else "  "
    return f"{'✓' if correct else '✗'} {name}{gap}{percent(share, 1)}"


def cell_width(classes: tuple[str, ...]) -> float:
    """Inches that an image needs with the names of the classes below it."""
    return max(1.25, 0.09 * max(map(len, classes)) + 0.3)


def save(figure: Figure, path: Path) -> None:
    """Write `figure` as PNG of 256 colours, a third the size; the same figure, the same bytes."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    with replacing(path) as temporary, Image.open(drawn) as image:
        colours = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        colours.save(temporary, format="png", optimize=True)
