"""How the pictures look: a title above, a note below, colours, images with captions.

Correct and wrong are told apart by a mark and a frame as well as by colour, in hues that people
with colour-blindness can tell apart (Okabe and Ito, 2008).
"""

import io
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from stages.base.files import replacing
from stages.report.scores import percent

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#595959"  # correct, wrong, all else
SEED_COLOURS = (BLUE, "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#000000", ORANGE)
DPI = 110
IMAGE, TITLE, NOTE = 112, 52, 66  # pixels: side of an image, room for a title and for a note

matplotlib.rc("font", size=9)
matplotlib.rc("axes", titlesize="medium", titlepad=4)
matplotlib.rc("axes.formatter", min_exponent=3)  # 0.01 instead of a power of ten
matplotlib.rc("axes.spines", top=False, right=False)
matplotlib.rc("grid", color="#dddddd", linewidth=0.6)
matplotlib.rc("legend", frameon=False)
matplotlib.rc("lines", markersize=5)


def chart(width: float, height: float, title: str, note: str) -> Figure:
    """An empty figure, sizes in inches, with its title above and a note below."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.12)
    place = {"x": 0.1 / width, "ha": "left", "wrap": True}
    figure.suptitle(title, size=13, weight="bold", **place)
    figure.supxlabel(note, size=9.5, color=GREY, **place)
    return figure


def gallery(cells: list, columns: int, classes: tuple[str, ...], title: str, note: str) -> Figure:
    """Images with their predictions, those of misclassified images in thick frames.

    Args:
        cells: row by row: the image, the text above it, its label, its predictions as pairs of a
            class and its probability, the most likely first; None leaves a place empty.
        columns: images in a row.
        classes: names by label.
        title, note: of the figure.
    """
    rows = -(-len(cells) // columns)
    # In pixels: each pixel of an image becomes a square of whole ones, which takes least to store.
    width = max(IMAGE + 12, 8 * (max(map(len, classes)) + 9))
    height = IMAGE + 33 + 17 * max(len(cell[3]) for cell in cells if cell)
    across, down = max(columns * width, 770), rows * height + TITLE + NOTE
    note = f"Below each image: its prediction and the probability, ✓ correct, ✗ wrong. {note}"
    figure = chart(across / DPI, down / DPI, title, note)
    figure.set_layout_engine("none")
    grid = (0, NOTE / down, columns * width / across, rows * height / down)
    axes = figure.add_axes(grid, xlim=(0, columns * width), ylim=(rows * height, 0))
    axes.set_axis_off()
    shown = [(place, *cell) for place, cell in enumerate(cells) if cell]
    for place, image, above, label, guesses in shown:
        lines = [f"{'✓' if c == label else '✗'} {classes[c]}  {percent(p, 1)}" for c, p in guesses]
        colour, frame = (BLUE, 0.8) if guesses[0][0] == label else (ORANGE, 2.4)
        x, top = place % columns * width + width // 2, place // columns * height + 24
        left, bottom = x - IMAGE // 2, top + IMAGE
        extent = (left, left + IMAGE, bottom, top)
        axes.imshow(image.squeeze(), "gray_r", vmin=0, vmax=1, extent=extent, aspect="auto")
        axes.add_patch(Rectangle((left, top), IMAGE, IMAGE, fill=False, color=colour, lw=frame))
        axes.text(x, top - 4, above, ha="center", va="bottom")
        axes.text(x, bottom + 5, "\n".join(lines), color=colour, ha="center", va="top")
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write `figure` as PNG of 256 colours, a third the size; the same figure, the same bytes."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    with replacing(path) as temporary, Image.open(drawn) as image:
        image.convert("RGB").quantize(256).save(temporary, format="png", optimize=True)
