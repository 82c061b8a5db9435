"""How the pictures look: a heading over each, images in grids, captions, colours, letters.

Right and wrong are told apart by a mark or a frame as well as by colour, in hues that people with
colour-blindness can tell apart (Okabe and Ito, 2008). Lengths are in inches.
"""

import textwrap

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE = "#0072b2", "#d55e00"  # right, wrong
GREY = "#595959"
SEEDS = (BLUE, "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#000000", ORANGE)  # a hue per network
MARKERS = ("o", "s", "^", "D", "v")
MARGIN = 0.15
SIDE = 1.05  # of an image in a grid

matplotlib.rcParams.update(
    {
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "axes.titlesize": 11,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "grid.color": "#dddddd",
        "grid.linewidth": 0.6,
        "hatch.linewidth": 0.6,
        "legend.frameon": False,
    }
)


def sheet(width: float, body: float, title: str, note: str) -> tuple[Figure, float]:
    """A figure with its heading, and how much of the height is left to the `body` below it."""
    title = textwrap.fill(title, int(width / 0.11))
    for pair in ("✓ ", "✗ ", " %"):  # these stay on one line
        note = note.replace(pair, pair.replace(" ", "\xa0"))
    note = textwrap.fill(note, int(width / 0.069))
    below_title = 0.12 + 0.24 * (title.count("\n") + 1)
    heading = below_title + 0.18 * (note.count("\n") + 1) + 0.2
    figure = Figure(figsize=(width, heading + body))
    for top, text, style in (
        (0.1, title, {"fontsize": 13, "weight": "bold"}),
        (below_title, note, {"fontsize": 9.5, "color": GREY}),
    ):
        figure.text(MARGIN / width, 1 - top / (heading + body), text, va="top", **style)
    return figure, body / (heading + body)


def chart(width: float, body: float, title: str, note: str) -> Figure:
    """A figure with its heading, whose axes will be fitted into the body."""
    figure, share = sheet(width, body, title, note)
    figure.set_layout_engine("constrained", rect=(0, 0, 1, share), w_pad=0.1, h_pad=0.1)
    return figure


def image_grid(
    rows: int, columns: int, cell: tuple[float, float], above: float, title: str, note: str
) -> tuple[Figure, np.ndarray]:
    """A figure with its heading and a grid of square axes, switched off until they are used.

    Args:
        rows, columns: of the grid.
        cell: width and height of a square and of the room around it for captions.
        above: how much of that room is above the square.
        title, note: the heading.
    """
    inner = columns * cell[0]
    width = max(inner + 2 * MARGIN, 7)
    figure, share = sheet(width, rows * cell[1] + 0.1, title, note)
    height = figure.get_figheight()
    gap = cell[0] - SIDE
    bottom = 0.1 + cell[1] - SIDE - above
    grid = figure.subplots(
        rows,
        columns,
        squeeze=False,
        gridspec_kw={
            "left": (MARGIN + gap / 2) / width,
            "right": (MARGIN + inner - gap / 2) / width,
            "top": share - above / height,
            "bottom": bottom / height,
            "wspace": gap / SIDE,
            "hspace": cell[1] / SIDE - 1,
        },
    )
    for axes in grid.flat:
        axes.set_axis_off()
    return figure, grid


def show(axes: Axes, image: np.ndarray, right: bool) -> None:
    """One image, in a thin frame if it was read rightly, in a thick one if not."""
    axes.set_axis_on()
    axes.imshow(image.squeeze(), cmap="gray_r", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=True, color=BLUE if right else ORANGE, linewidth=0.8 if right else 2.4)


def caption(axes: Axes, text: str, line: int, **style) -> None:
    """A line below the image, or with `line` -1 above it."""
    axes.annotate(
        text,
        (0.5, line < 0),
        (0, -4 - 11.5 * line if line >= 0 else 3),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="center",
        va="bottom" if line < 0 else "top",
        **{"fontsize": 8.5} | style,
    )


def verdict(
    axes: Axes, name: str, share: float, right: bool, line: int = 0, gap: str = "  "
) -> None:
    """A predicted class with its mark and its probability, below the image."""
    text = f"{'✓' if right else '✗'} {name}{gap}{percent(share)}"
    caption(axes, text, line, color=BLUE if right else ORANGE)


def percent(share: float) -> str:
    """A share in per cent with no more digits than it needs: 100 % only when it is all."""
    return "100 %" if share == 1 else f"{min(100 * share, 99.9):.1f} %"


def cell_width(classes: tuple[str, ...], more: int) -> float:
    """Room for an image, and for a caption with `more` characters than the name of a class."""
    return max(SIDE + 0.13, 0.07 * (max(map(len, classes)) + more) + 0.1)


def column_cell(classes: tuple[str, ...]) -> tuple[tuple[float, float], str]:
    """The cell of a grid that has a column for each class; what to put between name and share."""
    if long_names(classes):
        return (cell_width(classes, more=3), SIDE + 0.44), "\n"
    return (cell_width(classes, more=9), SIDE + 0.28), "  "


def long_names(classes: tuple[str, ...]) -> bool:
    """Whether the names of the classes need more room than digits do."""
    return max(map(len, classes)) > 3
