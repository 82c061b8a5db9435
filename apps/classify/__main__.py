"""The command: python -m apps.classify PHOTO… [--json | --csv] [--show FOLDER]

PHOTO is a picture, a folder, a glob or `-` for standard input. A file that cannot be loaded is
named on stderr, the others are classified, and the exit code is 1.
"""

import argparse
import csv
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from apps.classify import Digits, classify_one, model
from apps.classify.load import Picture, files_in
from stages.base.stage import UserError, run_stage

FIELDS = ("file", "row", "label", "probability", "second", "second_probability", "accepted", "box")
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
        lines.append(
            f"{name}\t{text}\t{worst['probability']:.1%}\t{worst['label']} or {worst['second']}"
        )
    return "\n".join(lines)


def show(source: Picture, digits: Digits, path: Path) -> None:
    """Write the picture with a box around each digit, and below it what the model saw."""
    from PIL import Image, ImageDraw, ImageFont, ImageOps

    if hasattr(source, "seek"):
        source.seek(0)
    image = ImageOps.exif_transpose(Image.open(source)).convert("RGB")
    factor = min(1, 1600 / max(image.size))
    image = image.resize([max(1, round(side * factor)) for side in image.size])
    across = max(1, image.width // 60)
    lines = -(-len(digits.labels) // across)
    sheet = Image.new("RGB", (max(image.width, 60), image.height + 80 * lines), "white")
    sheet.paste(image)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for number, (box, accepted) in enumerate(zip(digits.boxes, digits.accepted, strict=True)):
        colour = (0, 140, 60) if accepted else (210, 60, 0)
        left, top, right, bottom = (float(edge * factor) for edge in box)
        name = digits.names[digits.labels[number]] + ("" if accepted else "?")
        draw.rectangle((left - 2, top - 2, right + 1, bottom + 1), outline=colour, width=2)
        draw.text((left, max(0, top - 20)), name, colour, font=font)
        x, y = number % across * 60, image.height + number // across * 80
        seen = Image.fromarray(np.uint8(255 * digits.images[number])).resize((56, 56))
        sheet.paste(seen, (x + 2, y + 2))
        sure = digits.probabilities[number].max()
        draw.text(
            (x + 4, y + 60),
            f"{name} {min(sure, 0.99):.0%}",
            colour,
            font=ImageFont.load_default(13),
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m apps.classify", description=__doc__)
    parser.add_argument("photos", nargs="+", metavar="PHOTO")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--json", action="store_true", help="a list of all digits")
    kinds.add_argument("--csv", action="store_true", help="a line for each digit")
    parser.add_argument("--show", type=Path, metavar="FOLDER", help="write pictures with boxes")
    options = parser.parse_args()

    info, failed, rows = model().info, 0, []
    if info.name != "mnist":
        note = f"the model was trained on {info.name}: the labels are its classes"
        print(f"note: {note}", file=sys.stderr)
    sources = []
    for argument in options.photos:
        try:
            sources += files_in(argument)
        except UserError as error:
            failed += 1
            print(f"error: {error}", file=sys.stderr)

    def work(source: Picture) -> Digits | UserError:
        try:
            digits = classify_one(source)
        except UserError as error:
            return error
        if options.show:
            name = source.stem if isinstance(source, Path) else "stdin"
            show(source, digits, options.show / f"{name}.png")
        return digits

    with ThreadPoolExecutor(THREADS) as pool:
        if not (options.json or options.csv):
            print("file\tdigits\tleast sure\t")
        for source, digits in zip(sources, pool.map(work, sources), strict=True):
            name = str(source) if isinstance(source, Path) else "-"
            if isinstance(digits, UserError):
                failed += 1
                print(f"error: {digits}", file=sys.stderr)
            elif options.json or options.csv:
                rows += records(name, digits)
            else:
                print(table(name, digits))
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
