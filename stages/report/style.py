"""How the pictures look: a title above, a note below, colours, images with captions.

Correct and wrong are told apart by a mark and a frame as well as by colour, in hues that people
with colour-blindness can tell apart (Okabe and Ito, 2008).
"""

import io
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from stages.base.files import replacing

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#595959"  # correct, wrong, all else
SEED_COLOURS = (BLUE, "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#000000", ORANGE)
IMAGE_INCHES = 1.1
DPI = 110

matplotlib.rcParams.update(
    {
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.titlesize": "medium",
        "grid.color": "#dddddd",
        "grid.linewidth": 0.6,
        "legend.frameon": False,
    }
)


def chart(width: float, height: float, title: str, note: str) -> Figure:
    """An empty figure, sizes in inches, with its title above and a note below."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    place = {"x": 0.1 / width, "ha": "left", "wrap": True}
    figure.suptitle(title, size=13, weight="bold", **place)
    figure.supxlabel(note, size=9.5, color=GREY, **place)
    return figure


def cell_width(classes: tuple[str, ...]) -> float:
    """Inches that an image needs with the longest name of a class in its captions."""
    return max(IMAGE_INCHES + 0.1, 0.07 * (max(map(len, classes)) + 8))


def gallery(
    cells: list[tuple[np.ndarray, bool, str, str] | None],
    columns: int,
    size: tuple[float, float],
    title: str,
    note: str,
) -> Figure:
    """Images in rows, each in a thin frame, or in a thick one if its prediction is wrong.

    Args:
        cells: row by row: the image, whether its prediction is correct, the text above it, the
            text below it; None leaves a place empty.
        columns: images in a row.
        size: width and height of an image with its captions, in inches.
        title, note: of the figure.
    """
    rows = -(-len(cells) // columns)
    figure = chart(max(columns * size[0], 7), rows * size[1] + 0.8, title, note)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, cell in zip(grid, cells, strict=False):
        if cell is not None:
            image, correct, above, below = cell
            colour = BLUE if correct else ORANGE
            axes.set_axis_on()
            axes.imshow(image.squeeze(), cmap="gray_r", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
            axes.set_title(above, size=8.5, pad=3)
            axes.set_xlabel(below, size=8.5, color=colour, labelpad=3)
            axes.spines[:].set(visible=True, color=colour, linewidth=0.8 if correct else 2.4)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write `figure` as PNG of 256 colours, a third the size; the same figure, the same bytes."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    with replacing(path) as temporary, Image.open(drawn) as image:
        colours = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        colours.save(temporary, format="png", optimize=True)
