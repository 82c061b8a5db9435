"""The command: python -m apps.classify PHOTO… [--json | --csv] [--show FOLDER]

PHOTO is a picture, a folder, a glob or `-` for standard input. A file that cannot be loaded is
named on stderr, the others are classified, and the exit code is 1.
"""

import argparse
import csv
import itertools
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from apps.classify import Digits, classify_one, model
from apps.classify.pictures import Picture, files_in, pages_of
from stages.base.files import atomic_output
from stages.base.stage import UserError, run_stage

FIELDS = ("file", "row", "label", "probability", "second", "second_probability", "accepted", "box")
MAKER = "python -m apps.classify --show"  # noted in the files it writes
THREADS = 2  # decoding and filters release Python's lock


def records(name: str, digits: Digits) -> list[dict]:
    """A digit each: its label, how sure, the second choice, where it is."""
    result = []
    for number in range(len(digits.labels)):
        first, second = np.argsort(-digits.probabilities[number], kind="stable")[:2]
        result.append(
            {
                "file": name,
                "row": int(digits.rows[number]),
                "label": digits.names[first],
                "probability": round(float(digits.probabilities[number, first]), 4),
                "second": digits.names[second],
                "second_probability": round(float(digits.probabilities[number, second]), 4),
                "accepted": bool(digits.accepted[number]),
                "box": [round(float(edge), 1) for edge in digits.boxes[number]],
            }
        )
    return result


def table(name: str, digits: Digits) -> str:
    """A line for each row of digits: the number, its least sure digit, that one's second choice."""
    if not len(digits.labels):
        return f"{name}\tno digit"
    lines = []
    found = records(name, digits)
    for row, text in enumerate(digits.text().split("\n")):
        worst = min((each for each in found if each["row"] == row), key=lambda e: e["probability"])
        sure = min(worst["probability"], 0.999)  # none is quite certain
        lines.append(f"{name}\t{text}\t{sure:.1%}\t{worst['label']} or {worst['second']}")
    return "\n".join(lines)


def written(source: Picture) -> str:
    """A source's name in one line: what would end a cell or a line is escaped."""
    name = str(source) if isinstance(source, Path) else "-"
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in name)


def shown_as(sources: list[Picture], folder: Path) -> list[Path]:
    """For each source a file of its own in the folder: new, or written by `show` before."""
    places: list[Path] = []
    for source in sources:
        stem = source.stem if isinstance(source, Path) else "stdin"
        for number in itertools.count(1):
            place = folder / (f"{stem}-{number}.png" if number > 1 else f"{stem}.png")
            taken = any(place.name.casefold() == other.name.casefold() for other in places)
            if not taken and (not os.path.lexists(place) or is_ours(place, sources)):
                places.append(place)
                break
    return places


def is_ours(path: Path, sources: list[Picture]) -> bool:
    """Whether `show` wrote this file, and nobody wants it classified."""
    if path.is_symlink() or not path.is_file():
        return False
    if any(isinstance(one, Path) and one.exists() and one.samefile(path) for one in sources):
        return False
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return image.info.get("Software") == MAKER
    except OSError:
        return False


def show(source: Picture, digits: Digits, path: Path) -> None:
    """Write the picture with a box around each digit, and below it what the model saw."""
    if hasattr(source, "seek"):
        source.seek(0)
    pages = pages_of(source, "RGB")
    across = max(1, max(page.width for page, _ in pages) // 60)
    lines = -(-len(digits.labels) // across)
    height = sum(page.height for page, _ in pages)
    sheet = Image.new("RGB", (60 * across + 59, height + 80 * lines), "white")
    tops, below = [], 0.0  # of each page, in the source's pixels, and how to draw there
    for page, factor in pages:
        at = sum(each.height for each, _ in pages[: len(tops)])
        sheet.paste(page, (0, at))
        tops.append((below, at, factor))
        below += page.height / factor
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for number, (box, accepted) in enumerate(zip(digits.boxes, digits.accepted, strict=True)):
        colour = (0, 140, 60) if accepted else (210, 60, 0)
        start, at, factor = [each for each in tops if each[0] <= box[1] + 1][-1]
        left, top, right, bottom = (box - (0, start, 0, start)) * factor + (0, at, 0, at)
        name = digits.names[digits.labels[number]] + ("" if accepted else "?")
        draw.rectangle((left - 2, top - 2, right + 1, bottom + 1), outline=colour, width=2)
        draw.text((left, max(0, top - 20)), name, colour, font=font)
        x, y = number % across * 60, height + number // across * 80
        seen = Image.fromarray(np.uint8(255 * digits.images[number])).resize((56, 56))
        sheet.paste(seen, (x + 2, y + 2))
        text = f"{name} {min(digits.probabilities[number].max(), 0.99):.0%}"
        draw.text((x + 4, y + 60), text, colour, font=ImageFont.load_default(13))
    text = PngInfo()
    text.add_text("Software", MAKER)
    with atomic_output(path) as temporary:
        sheet.save(temporary, "PNG", pnginfo=text)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m apps.classify", description=__doc__)
    parser.add_argument("photos", nargs="+", metavar="PHOTO")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--json", action="store_true", help="a list of all digits")
    kinds.add_argument("--csv", action="store_true", help="a line for each digit")
    parser.add_argument("--show", type=Path, metavar="FOLDER", help="write pictures with boxes")
    options = parser.parse_args()
    for stream in (sys.stdout, sys.stderr):  # a name may have signs that it cannot write
        stream.reconfigure(errors="backslashreplace")

    info, failed, rows = model().info, 0, []
    if info.shows_digits and info.name != "mnist":
        note = f"the model was trained on {info.name}: the labels are its classes"
        print(f"note: {note}", file=sys.stderr)
    sources = []
    for argument in options.photos:
        try:
            sources += files_in(argument)
        except UserError as error:
            failed += 1
            print(f"error: {error}", file=sys.stderr)

    places = shown_as(sources, options.show) if options.show else [None] * len(sources)

    def work(source: Picture, place: Path | None) -> Digits | UserError:
        try:
            digits = classify_one(source)
        except UserError as error:
            return error
        if place:
            show(source, digits, place)
        return digits

    with ThreadPoolExecutor(THREADS) as pool:
        if not (options.json or options.csv):
            print(f"file\t{'digits' if info.shows_digits else 'class'}\tleast sure\t")
        for source, digits in zip(sources, pool.map(work, sources, places), strict=True):
            if isinstance(digits, UserError):
                failed += 1
                print(f"error: {digits}", file=sys.stderr)
            elif options.json or options.csv:
                rows += records(str(source) if isinstance(source, Path) else "-", digits)
            else:
                print(table(written(source), digits))
    if options.json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
    elif options.csv:
        writer = csv.DictWriter(sys.stdout, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | {"box": " ".join(map(str, row["box"]))} for row in rows)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    run_stage(main)
