"""How the pictures look: a title above, a note below, colours, images with captions, charts.

Images and tables are drawn by Pillow, which takes a tenth of Matplotlib's time for them; charts by
Matplotlib. Both use the font that Matplotlib carries and nothing of what a user has set: so the
same inputs give the same bytes. Correct and wrong are told apart by a mark and a frame as well as
by colour, in hues that people with colour-blindness can tell apart (Okabe and Ito, 2008).
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from PIL.ImageFont import FreeTypeFont

from stages.report.drawing import DPI, font, names
from stages.report.scores import percent

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#595959"  # correct, wrong, all else
SEED_COLOURS = (BLUE, "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#000000", ORANGE)
# All lengths are in pixels.
TITLE, TEXT, NOTE, LINE = 32, 22, 23, 1.3  # sizes of letters; height of a line, in letters
MARGIN, GAP = 16, 28  # around the picture; between title, content and note
NARROWEST = 1300  # the title and the note need so much
IMAGE = 196  # side of an image: seven pixels for one of MNIST's


class Cell(NamedTuple):
    """An image of a gallery.

    image: uint8, shape (height, width, 1 or 3).
    above: the text above it.
    label: of the image.
    predicted: pairs of a label and its probability, the likeliest first.
    """

    image: np.ndarray
    above: str
    label: int
    predicted: list[tuple[int, float]]


def page(title: str, size: tuple[int, int], note: str) -> tuple[Image.Image, int]:
    """A picture with a title and a note, and between them room for a content of some size.

    Returns:
        The picture, and where its content begins, counted from the top; from the left: MARGIN.
    """
    width = max(size[0], NARROWEST)
    above, below = wrapped(title, font(TITLE, True), width), wrapped(note, font(NOTE), width)
    top = MARGIN + height_of(above, TITLE) + GAP
    bottom = top + size[1] + GAP
    height = bottom + height_of(below, NOTE) + MARGIN
    picture = Image.new("RGB", (width + 2 * MARGIN, height), "white")
    draw = ImageDraw.Draw(picture)
    write(draw, (MARGIN, MARGIN), above, font(TITLE, True), "black", "la")
    write(draw, (MARGIN, bottom), below, font(NOTE), GREY, "la")
    return picture, top


def wrapped(text: str, face: FreeTypeFont, width: int) -> list[str]:
    """The text in lines that are at most `width` wide."""
    lines = [""]
    for word in text.split(" "):  # not at no-break spaces
        longer = f"{lines[-1]} {word}".strip()
        if face.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def height_of(lines: Sequence[str], size: int) -> int:
    return round(len(lines) * LINE * size)


def width_of(texts: Sequence[str], face: FreeTypeFont) -> int:
    return max(round(face.getlength(text)) for text in texts)


def write(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    lines: Sequence[str],
    face: FreeTypeFont,
    colour: str,
    anchor: str,
) -> None:
    """Draw lines of text; `anchor` says which point of the first line is at `place`, see Pillow."""
    for number, line in enumerate(lines):
        at = (place[0], place[1] + round(number * LINE * face.size))
        draw.text(at, line, colour, face, anchor)


def gallery(
    title: str, cells: Sequence[Cell | None], columns: int, classes: tuple[str, ...], note: str
) -> Image.Image:
    """Images with their predictions, those of misclassified images in thick frames.

    Args:
        title, note: of the picture.
        cells: row by row; None leaves a place empty.
        columns: images in a row.
        classes: names by label.
    """
    face, named = font(TEXT), names(classes)

    def lines_below(cell: Cell) -> list[str]:
        marks = ["✓" if of == cell.label else "✗" for of, _ in cell.predicted]
        parts = zip(marks, cell.predicted, strict=True)
        return [f"{mark} {named[of]}  {percent(share, 1)}" for mark, (of, share) in parts]

    shown = [(place, cell, lines_below(cell)) for place, cell in enumerate(cells) if cell]
    texts = [text for _, cell, below in shown for text in (cell.above, *below)]
    sides = shown[0][1].image.shape[:2]
    zoom = max(1, round(IMAGE / max(sides)))  # whole pixels, which stay sharp
    height, width = (zoom * side for side in sides)
    across = max(width, width_of(texts, face)) + 20
    above = round(LINE * TEXT) + 2
    down = above + height + height_of(max((lines for *_, lines in shown), key=len), TEXT) + 24
    picture, start = page(title, (columns * across, -(-len(cells) // columns) * down), note)
    draw = ImageDraw.Draw(picture)
    for place, cell, lines in shown:
        middle = MARGIN + place % columns * across + across // 2
        left, top = middle - width // 2, start + place // columns * down + above
        right = cell.predicted[0][0] == cell.label
        colour, frame = (BLUE, 2) if right else (ORANGE, 6)
        pixels = cell.image if cell.image.shape[2] == 3 else cell.image[..., 0]
        enlarged = Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST)
        box = (left - frame, top - frame, left + width + frame - 1, top + height + frame - 1)
        draw.rectangle(box, outline=colour, width=frame)
        picture.paste(enlarged, (left, top))
        write(draw, (middle, top - 8), [cell.above], face, "black", "md")
        write(draw, (middle, top + height + 8), lines, face, colour, "ma")
    return picture


def matrix(
    title: str,
    counts: np.ndarray,
    classes: tuple[str, ...],
    beside: Sequence[Sequence[str]],
    note: str,
) -> Image.Image:
    """A table of counts, rows are labels: correct ones in blue, errors in orange.

    Depth of colour is the cube root of the share of the row, so that one error is seen beside a
    thousand correct images; a count of zero stays empty.

    Args:
        title, note: of the picture.
        counts: integers, shape (classes, classes).
        classes: names by label.
        beside: columns of text to the right of the table: a heading, and a text for each row.
    """
    field = int(np.clip(2200 / len(counts), 18, 92))  # its side; of 200 classes still visible
    face, named = font(min(TEXT, field - 4)), names(classes)
    digits = font(int(np.clip(1.5 * (field - 6) / len(str(counts.max())), 8, TEXT)))
    longest, side = width_of(named, face), field * len(counts)
    flat = longest < field - 6  # else the names of the columns are turned
    left, above = MARGIN + longest + 3 * TEXT, 2 * TEXT + (2 * TEXT if flat else longest + 12)
    ends = [left + side]  # right ends of the columns beside the table
    for column in beside:
        ends.append(ends[-1] + TEXT + width_of(column, face))
    picture, start = page(title, (ends[-1] - MARGIN, above + side), note)
    top, draw = start + above, ImageDraw.Draw(picture)
    write(draw, (left + side / 2, start), ["predicted"], font(TEXT), GREY, "ma")
    turned = Image.new("RGB", (side, 2 * TEXT), "white")
    write(ImageDraw.Draw(turned), (side / 2, 0), ["actual"], font(TEXT), GREY, "ma")
    picture.paste(turned.rotate(90, expand=True), (MARGIN, top))
    for end, (heading, *texts) in zip(ends[1:], beside, strict=True):
        write(draw, (end, top - 8), [heading], face, GREY, "rs")
        for label, text in enumerate(texts):
            write(draw, (end, top + (label + 0.5) * field), [text], face, "black", "rm")
    if not flat:
        turned = Image.new("RGB", (longest, side), "white")
        for label, name in enumerate(named):
            place = (0, (label + 0.5) * field)
            write(ImageDraw.Draw(turned), place, [name], face, "black", "lm")
        picture.paste(turned.rotate(90, expand=True), (left, top - longest - 8))
    depth = np.cbrt(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    for label, name in enumerate(named):
        y = top + label * field
        write(draw, (left - 10, y + field / 2), [name], face, "black", "rm")
        if flat:
            place = (left + (label + 0.5) * field, top - 8)
            write(draw, place, [name], face, "black", "ms")
        for other, count in enumerate(counts[label].tolist()):
            x = left + other * field
            share = 0.1 + 0.9 * depth[label, other] if count else 0
            colour = blend(BLUE if label == other else ORANGE, share)
            draw.rectangle((x, y, x + field, y + field), colour, "#dddddd")
            if count:
                ink = "white" if share > 0.6 else "black"
                write(draw, (x + field / 2, y + field / 2), [str(count)], digits, ink, "mm")
    return picture


def blend(colour: str, share: float) -> tuple[int, ...]:
    """White with so much of a colour in it, 0 to 1."""
    parts = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return tuple(round(255 + share * (part - 255)) for part in parts)


def figure(width: int, height: int) -> "Figure":
    """An empty figure of Matplotlib, of some pixels; `chart` makes a picture of it."""
    os.environ["MPLBACKEND"] = "agg"  # whatever is set; an unknown one would end the import
    import matplotlib  # here: pictures without a chart do without it
    from matplotlib.figure import Figure

    matplotlib.rcdefaults()  # whatever a file matplotlibrc says
    matplotlib.rc("font", size=9)
    matplotlib.rc("axes", titlesize="medium", titlepad=4)
    matplotlib.rc("axes.spines", top=False, right=False)
    matplotlib.rc("grid", color="#dddddd", linewidth=0.6)
    matplotlib.rc("legend", frameon=False)
    matplotlib.rc("lines", markersize=5)
    return Figure(figsize=(width / DPI, height / DPI), dpi=DPI)


def plain_ticks(axis: "Axis") -> None:
    """On a logarithmic axis, 0.01 for a power of ten, which takes a fourth of the time to draw."""
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(lambda value, _: "")


def chart(title: str, content: "Figure", note: str) -> Image.Image:
    """A figure between a title and a note."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(content)
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    picture, top = page(title, drawn.size, note)
    picture.paste(drawn, (MARGIN, top))
    return picture
