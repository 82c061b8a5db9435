"""How well digits are found and classified on drawn pages, and what passes for a digit.

    python -m benchmarks.pages

Run from the project's folder, after `dvc repro`: pages of test digits, one kind of paper, light and
pen after the other, are classified as a photo would be, and so are things that show no digit.
Nothing is chosen on them. The tables go to benchmarks/results/pages.csv and rejection.csv.
"""

import functools
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from apps.classify import Digits, classify_one, predict
from apps.classify.preparation import prepare
from benchmarks.drawn import negatives
from benchmarks.drawn import pages as drawing
from stages.base import data
from stages.base.files import atomic_outputs, write_csv
from stages.base.stage import run_stage
from stages.report import scores

CONDITIONS = Path("benchmarks/results/pages.csv")
ACCEPTED = Path("benchmarks/results/rejection.csv")
PAGES = 2  # drawn of each kind of paper, light and pen
SEED = 0  # of all chance in them
DIGITS_ON_PAGE = 24
NON_DIGITS = 100  # of each kind
CUTS = 7  # of each photograph that shows no digit

bar = functools.partial(tqdm, disable=None, leave=False)


def matched(page: drawing.Page, found: Digits) -> tuple[np.ndarray, np.ndarray]:
    """Which box is at which digit of the page.

    Returns:
        For each digit the number of its box, -1 for none; for each box whether it has no digit.
    """
    boxes = found.boxes
    inside = (boxes[:, :2] <= page.centres[:, None]) & (page.centres[:, None] <= boxes[:, 2:])
    inside = inside.all(axis=2)  # (digits, boxes)
    pairs = np.full(len(page.labels), -1)
    free = np.ones(len(boxes), bool)
    for digit, candidates in enumerate(inside):
        if (candidates & free).any():
            pairs[digit] = np.flatnonzero(candidates & free)[0]
            free[pairs[digit]] = False
    return pairs, free


def measure(kind: str, images: np.ndarray, labels: np.ndarray) -> dict:
    """Classify pages of this kind, and as many with no digit on them."""
    row = dict.fromkeys(("digits", "found", "correct", "false_boxes", "disorder", "on_blank"), 0)
    for number in range(PAGES):
        rng = np.random.default_rng([SEED, number, *kind.encode()])
        chosen = rng.permutation(len(labels))[:DIGITS_ON_PAGE]
        page = drawing.draw_page(drawing.KINDS[kind], images[chosen], labels[chosen], rng)
        found = classify_one(page.picture)
        pairs, free = matched(page, found)
        seen = pairs[pairs >= 0]
        row["digits"] += len(pairs)
        row["found"] += len(seen)
        row["correct"] += int((found.labels[seen] == page.labels[pairs >= 0]).sum())
        row["false_boxes"] += int((free & found.accepted).sum())
        row["disorder"] += int((np.diff(seen) < 0).any())
        blank = drawing.draw_page(drawing.KINDS[kind], images[:0], labels[:0], rng)
        row["on_blank"] += int(classify_one(blank.picture).accepted.sum())
    return {"condition": kind, "error": 1 - row["correct"] / row["digits"], **row}


def cut(image: np.ndarray) -> np.ndarray:
    """What is within the bounding box of the ink, as `prepare` expects it."""
    rows, columns = (np.flatnonzero(image.any(axis=axis)) for axis in (1, 0))
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def main() -> None:
    images, labels, _, info = data.load_split("test")
    images = data.scaled(images[..., 0])
    rng = np.random.default_rng(SEED)
    shown = negatives.non_digits(images, rng, NON_DIGITS)
    shown["test digits"] = list(images[rng.permutation(len(labels))[:2000]])
    accepted = (
        pd.DataFrame(
            {"accepted": predict(prepare(list(map(cut, inks))))[1].mean(), "images": len(inks)}
            for inks in shown.values()
        )
        .set_axis(list(shown))
        .round(4)
    )
    for name, pictures in negatives.photographs(rng, CUTS).items():
        taken = [classify_one(picture).accepted.any() for picture in bar(pictures, name)]
        accepted.loc[name] = np.mean(taken).round(4), len(taken)

    kinds = [
        name
        for name, kind in drawing.KINDS.items()
        if kind.source == "handwritten" or info.shows_digits
    ]
    frame = pd.DataFrame(measure(kind, images, labels) for kind in bar(kinds, "pages"))
    with atomic_outputs() as temporary:
        write_csv(temporary(CONDITIONS), frame.round(5), index=False)
        write_csv(temporary(ACCEPTED), accepted, index_label="what")
    total, worst = frame.sum(numeric_only=True), frame.loc[frame["error"].idxmax()]
    print(
        f"{scores.percent(1 - total['correct'] / total['digits'])} of the digits on drawn "
        f"pages missed or misclassified, at most {scores.percent(worst['error'])} "
        f"({worst['condition']})"
    )


if __name__ == "__main__":
    run_stage(main, __doc__)
