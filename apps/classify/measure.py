"""Stage photos: how well digits are found and classified on drawn pages, and what is rejected.

The threshold under which the network is too unsure is chosen on validation images. Then pages of
test digits, one kind of paper, light and pen after the other, are classified as a photo would be.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from apps.classify import REJECTION, Digits, Rejection, classify_one, predict
from apps.classify import pages as drawing
from apps.classify.prepare import prepare
from stages.base import arrays, params
from stages.base.files import replacing_together, write_csv, write_json
from stages.base.stage import run_stage
from stages.dataset import catalogue
from stages.dataset.settings import Download
from stages.report import scores

CONDITIONS = Path("metrics/photos.csv")
ACCEPTED = Path("metrics/rejection.csv")
KEEP = 0.99  # share of validation images that are sure enough; the others set the threshold
PAGES = 2  # drawn of each kind of paper, light and pen
SEED = 0  # of all chance in them
DIGITS_ON_PAGE = 24
NON_DIGITS = 100  # of each kind
LABELS = tuple("0123456789")


def confidence(inks: list[np.ndarray], classes: int) -> np.ndarray:
    """The highest probability of each ink, shape (N,)."""
    return predict(np.stack([prepare(ink) for ink in inks]), classes).max(axis=1)


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


def measure(kind: str, images: np.ndarray, labels: np.ndarray, known: Rejection) -> dict:
    """Classify pages of this kind, and as many with no digit on them."""
    row = dict.fromkeys(("digits", "found", "correct", "false_boxes", "disorder", "on_blank"), 0)
    for number in range(PAGES):
        rng = np.random.default_rng([SEED, number, *kind.encode()])
        chosen = rng.permutation(len(labels))[:DIGITS_ON_PAGE]
        page = drawing.draw_page(drawing.KINDS[kind], images[chosen], labels[chosen], rng)
        found = classify_one(page.picture, known)
        pairs, free = matched(page, found)
        seen = pairs[pairs >= 0]
        row["digits"] += len(pairs)
        row["found"] += len(seen)
        row["correct"] += int((found.labels[seen] == page.labels[pairs >= 0]).sum())
        row["false_boxes"] += int((free & found.accepted).sum())
        row["disorder"] += int((np.diff(seen) < 0).any())
        blank = drawing.draw_page(drawing.KINDS[kind], images[:0], labels[:0], rng)
        row["on_blank"] += int(classify_one(blank.picture, known).accepted.sum())
    return {"condition": kind, "error": 1 - row["correct"] / row["digits"], **row}


def main() -> None:
    dataset = params.load("download", Download).dataset
    names = catalogue.find(dataset).classes
    images, _ = arrays.load_split("validation")
    kept = confidence(list(images[..., 0]), len(names))
    threshold = float(np.floor(np.quantile(kept, 1 - KEEP) * 1000) / 1000)

    images, labels = arrays.load_split("test")
    images = images[..., 0]
    rng = np.random.default_rng(SEED)
    shown = drawing.non_digits(images, rng, NON_DIGITS)
    shown["test digits"] = list(images[rng.permutation(len(labels))[:2000]])
    accepted = pd.DataFrame(
        {
            "accepted": (confidence(inks, len(names)) >= threshold).mean().round(4),
            "images": len(inks),
        }
        for inks in shown.values()
    ).set_axis(list(shown))

    known = Rejection(dataset, names, threshold)
    kinds = [
        name
        for name, kind in drawing.KINDS.items()
        if kind.source == "handwritten" or names == LABELS
    ]
    bar = tqdm(kinds, "photos", disable=None, leave=False)
    frame = pd.DataFrame([measure(kind, images, labels, known) for kind in bar])
    with replacing_together() as temporary:
        write_csv(temporary(CONDITIONS), frame.round(5), index=False)
        write_csv(temporary(ACCEPTED), accepted, index_label="what")
        write_json(temporary(REJECTION), known._asdict())
    total, worst = frame.sum(numeric_only=True), frame.loc[frame["error"].idxmax()]
    print(
        f"photos: {scores.percent(1 - total['correct'] / total['digits'])} of the digits on drawn "
        f"pages missed or misclassified, at most {scores.percent(worst['error'])} "
        f"({worst['condition']})"
    )


if __name__ == "__main__":
    run_stage(main)
