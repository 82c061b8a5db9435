"""A look at the data before anything trains: how many images, what they look like, what is wrong.

metrics/data.csv, metrics/data.json and plots/data/classes.png go into Git; problems.csv names each
file that cannot be loaded and each image that shows the same picture as another.
"""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from stages.base.data import SPLITS, DatasetInfo
from stages.base.files import write_json
from stages.report import drawing

TABLE, NUMBERS = Path("metrics/data.csv"), Path("metrics/data.json")
PICTURE, PROBLEMS = Path("plots/data/classes.png"), Path("data/processed/problems.csv")
COLOURS = {"train": "#0072b2", "validation": "#e69f00", "test": "#595959"}  # Okabe and Ito, 2008
# Pixels, 200 to an inch: a sample, between samples, the longest bar, room for its number, drawing.
CELL, GAP, BAR, SPACE, LETTER = 84, 6, 240, 110, 24
SAMPLES = 300  # in the picture, of all classes together, about
ROWS = 25  # classes below each other


class Dataset(NamedTuple):
    """All images, and what was found about them.

    images: uint8, shape (N, height, width, channels). labels: shape (N,).
    parts: the split of each. names: of its file, or the file of the source and the number there.
    digests: checksums of their pixels. groups: equal for images of the same picture.
    alike: whether there are so many much like it that these were not kept together.
    files: what is known of pictures, see stages/dataset/folder.py; empty for a published dataset.
    """

    info: DatasetInfo
    images: np.ndarray
    labels: np.ndarray
    parts: np.ndarray
    names: np.ndarray
    digests: np.ndarray
    groups: np.ndarray
    alike: np.ndarray
    files: dict

    @property
    def seen(self) -> np.ndarray:
        """Whether training or validation has the same picture, bool, shape (N,)."""
        return np.isin(self.groups, self.groups[self.parts != "test"])

    def counts(self, chosen: np.ndarray | slice = slice(None)) -> np.ndarray:
        """How many (chosen) images each class has."""
        return np.bincount(self.labels[chosen], minlength=len(self.info.classes))


def write(dataset: Dataset, temporary: Callable[[Path], Path]) -> None:
    """Write all files of the look; `temporary` is of atomic_outputs."""
    copies = same_pictures(dataset)
    unreadable = dataset.files.get("unreadable", {})
    with open(temporary(TABLE), "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["class", *SPLITS])
        columns = [dataset.counts(dataset.parts == split) for split in SPLITS]
        writer.writerows(zip(dataset.info.classes, *columns, strict=True))
    with open(temporary(PROBLEMS), "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["problem", "file", "class", "split", "other_file", "other_class", "other_split"]
        )
        writer.writerows(copies)
        writer.writerows((reason, name, *5 * [""]) for name, reason in unreadable.items())
    counts = dataset.counts()
    numbers = {
        "dataset": dataset.info.name,
        "images": len(dataset.labels),
        "smallest_class": int(counts.min()),
        "largest_class": int(counts.max()),
        "unreadable_files": len(unreadable),
        "same_pictures": len(copies),
        "in_two_classes": sum(copy[2] != copy[5] for copy in copies),
        "test_images_seen": int(dataset.seen[dataset.parts == "test"].sum()),
        "much_alike": int(dataset.alike.sum()),
    }
    write_json(temporary(NUMBERS), numbers)
    drawing.save(draw(dataset, numbers), temporary(PICTURE))
    print(summary(dataset, numbers))


def same_pictures(dataset: Dataset) -> list[tuple[str, ...]]:
    """The images that show the same picture as another: what, and where both are.

    Those in two classes come first, then those in two splits.
    """
    order = np.lexsort(
        (dataset.digests, [SPLITS.index(part) for part in dataset.parts], dataset.groups)
    )
    _, start, sizes = np.unique(dataset.groups[order], return_index=True, return_counts=True)
    rows = []
    for first, size in zip(start[sizes > 1], sizes[sizes > 1], strict=True):
        one, *others = order[first : first + size]
        for other in others:
            exact = dataset.digests[one] == dataset.digests[other]
            places = [
                (dataset.names[i], dataset.info.classes[dataset.labels[i]], dataset.parts[i])
                for i in (other, one)
            ]
            problem = f"{'same pixels' if exact else 'same picture'} as another"
            rows.append((problem, *places[0], *places[1]))
    return sorted(rows, key=lambda row: (row[2] == row[5], row[3] == row[6]))


def summary(dataset: Dataset, numbers: dict) -> str:
    """What was found, a line for each kind of it."""
    totals = [f"{(dataset.parts == split).sum():,} {split}" for split in SPLITS]
    least, most = (f"{numbers[key]:,}" for key in ("smallest_class", "largest_class"))
    sizes = f"{least} to {most}" if least != most else f"{least} each"
    lines = [f"{', '.join(totals)} images; {len(dataset.info.classes)} classes of {sizes}"]
    for key, text in {
        "unreadable_files": "Files that cannot be loaded: {}",
        "same_pictures": "Images of the same picture as another: {}",
        "in_two_classes": "Of these in another class than the other: {}",
        "test_images_seen": "Test images that are among training or validation images, too: {}",
        "much_alike": "Images so much alike that they were divided like different pictures: {}",
    }.items():
        if numbers[key]:
            lines.append(text.format(f"{numbers[key]:,}"))
    return "\n".join(lines + [f"Which: {PROBLEMS}"] * (len(lines) > 1))


def draw(dataset: Dataset, numbers: dict) -> Image.Image:
    """Each class: its name, a bar for its images by split, and some training images."""
    font, classes = drawing.font(LETTER), drawing.names(dataset.info.classes)
    rows = min(len(classes), ROWS)
    blocks = -(-len(classes) // rows)
    per_class = min(max(SAMPLES // len(classes), 2), 10)
    left = int(max(map(font.getlength, classes))) + 3 * GAP
    width, height = left + BAR + SPACE + per_class * (CELL + GAP), CELL + GAP
    lines = [
        drawing.drawable(dataset.info.name, "dataset"),
        *summary(dataset, numbers).splitlines(),
        sizes_found(dataset),
    ]
    step = int(LETTER * 1.5)
    head = step * len(lines) + 4 * GAP
    across = max(blocks * width, *(int(font.getlength(line)) for line in lines)) + 2 * GAP
    image = Image.new("RGB", (across, head + rows * height), "white")
    pen = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        pen.text((GAP, GAP + number * step), line, "black", font)
    x = GAP + int(font.getlength(lines[0] + "    "))
    for split in SPLITS:  # what the colours of the bars mean
        pen.text((x, GAP), f"■ {split}", COLOURS[split], font)
        x += int(font.getlength(f"■ {split}  "))
    counts = {split: dataset.counts(dataset.parts == split) for split in SPLITS}
    for label, name in enumerate(classes):
        x, y = label // rows * width + GAP, head + label % rows * height
        middle = y + CELL // 2
        pen.text((x, middle), name, "black", font, anchor="lm")
        x += left
        for split in SPLITS:
            length = round(BAR * counts[split][label] / numbers["largest_class"])
            pen.rectangle((x, middle - 9, x + max(length, 1) - 1, middle + 9), COLOURS[split])
            x += length
        pen.text((x + GAP, middle), f"{dataset.counts()[label]:,}", "black", font, anchor="lm")
        x = label // rows * width + GAP + left + BAR + SPACE
        members = np.flatnonzero((dataset.labels == label) & (dataset.parts == "train"))
        members = members[np.argsort(dataset.digests[members])][:per_class]
        for place, member in enumerate(members):
            sample = Image.fromarray(dataset.images[member].squeeze()).convert("RGB")
            method = Image.Resampling.BOX if sample.width > CELL else Image.Resampling.NEAREST
            image.paste(sample.resize((CELL, CELL), method), (x + place * height, y))
    return image


def sizes_found(dataset: Dataset) -> str:
    """The sizes of the pictures, and what became of them."""
    height, width, channels = dataset.info.shape
    image = f"images of {width}×{height} pixels, {'grey' if channels == 1 else 'in colour'}"
    if "sizes" not in dataset.files:
        return image.capitalize()
    sizes = np.concatenate([np.array(each) for each in dataset.files["sizes"].values()])
    order = np.argsort(sizes.prod(axis=1), kind="stable")
    least, median, most = ("×".join(map(str, sizes[order[i]])) for i in (0, len(order) // 2, -1))
    sizes_told = least if least == most else f"{least} to {most}, in the middle {median}"
    enlarged = int((sizes.min(axis=1) < min(width, height)).sum())
    told = f"Pictures of {sizes_told} pixels became {image}"
    return told + (f"; {enlarged:,} were enlarged" if enlarged else "")
