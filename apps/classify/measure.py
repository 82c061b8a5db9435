"""Stage photos: how well digits are found and classified on drawn pages, and what is rejected.

What looks too little like a digit is rejected (reject.py); the threshold is chosen on validation
images. Then pages of test digits, one kind of paper, light and pen after the other, are classified
as a photo would be.
"""

import functools
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.preprocessing import normalize
from stages.dataset.settings import Download
from tqdm import tqdm

from apps.classify import Digits, classify_one, glyphs, negatives, predict, predictors, reject
from apps.classify import pages as drawing
from apps.classify.prepare import prepare
from apps.classify.reject import Rejection
from stages.base import arrays, params
from stages.base.files import replacing_together, write_csv
from stages.base.stage import run_stage
from stages.dataset import catalogue
from stages.report import scores

CONDITIONS = Path("metrics/photos.csv")
ACCEPTED = Path("metrics/rejection.csv")
KEEP = 0.99  # share of validation images with a sure prediction that are accepted
GROUPS = 16  # of each class's training images
GROUPED = 5500  # training images, at most
OTHERS = 500  # printed digits that are grouped with them, and as many of single strokes
PAGES = 2  # drawn of each kind of paper, light and pen
SEED = 0  # of all chance in them
DIGITS_ON_PAGE = 24
NON_DIGITS = 100  # of each kind
CUTS = 7  # of each photograph that shows no digit
LABELS = tuple("0123456789")

bar = functools.partial(tqdm, disable=None, leave=False)


def centres_of(images: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """For each network and class, directions of the groups of its features: see `Rejection`.

    Args:
        images: prepared training images, float32, shape (N, 28, 28), at least one of each class.
        labels: shape (N,).
    """
    groups = min(GROUPS, np.bincount(labels, minlength=classes).min())
    of_networks = []
    for predictor in predictors():
        features = normalize(predictor.outputs(images[..., None])["features"])
        found = [
            KMeans(groups, n_init=1, random_state=SEED).fit(features[labels == label])
            for label in range(classes)
        ]
        of_networks.append([normalize(each.cluster_centers_) for each in found])
    return np.array(of_networks)


def choose(dataset: str, names: tuple[str, ...]) -> Rejection:
    """What is accepted as a digit: groups of training images, a threshold from validation images.

    If the classes are digits, printed ones and ones of single strokes are grouped, too: people draw
    digits that MNIST's writers did not, as a 1 with a foot.
    """
    images, labels = arrays.load_split("train")
    step = -(-len(labels) // GROUPED)
    images, labels = prepare(images[::step, ..., 0]), labels[::step]
    if names == LABELS:
        inks, of_inks = glyphs.other_styles(np.random.default_rng(SEED), OTHERS)
        images, labels = np.concatenate([images, prepare(inks)]), np.append(labels, of_inks)
    centres = centres_of(images, labels, len(names))
    known = Rejection(dataset, names, 0.0, np.float32(np.float16(centres)))  # as it is stored
    images, _ = arrays.load_split("validation")
    probabilities, features = predict(prepare(images[..., 0]))
    sure = probabilities.max(axis=1) >= reject.LEAST
    likeness = known.likeness(probabilities, features)[sure]
    threshold = np.floor(np.quantile(likeness, 1 - KEEP) * 10_000) / 10_000
    return known._replace(threshold=float(threshold))


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
    known = choose(dataset, names)
    images, labels = arrays.load_split("test")
    images = images[..., 0]
    rng = np.random.default_rng(SEED)
    shown = negatives.non_digits(images, rng, NON_DIGITS)
    shown["test digits"] = list(images[rng.permutation(len(labels))[:2000]])
    accepted = pd.DataFrame(
        {
            "accepted": known.accepts(*predict(prepare(inks))).mean().round(4),
            "images": len(inks),
        }
        for inks in shown.values()
    ).set_axis(list(shown))
    for name, pictures in negatives.photographs(rng, CUTS).items():
        taken = [classify_one(picture, known).accepted.any() for picture in bar(pictures, name)]
        accepted.loc[name] = np.mean(taken).round(4), len(taken)

    kinds = [
        name
        for name, kind in drawing.KINDS.items()
        if kind.source == "handwritten" or names == LABELS
    ]
    frame = pd.DataFrame(measure(kind, images, labels, known) for kind in bar(kinds, "pages"))
    with replacing_together() as temporary:
        write_csv(temporary(CONDITIONS), frame.round(5), index=False)
        write_csv(temporary(ACCEPTED), accepted, index_label="what")
        reject.save(known, temporary)
    total, worst = frame.sum(numeric_only=True), frame.loc[frame["error"].idxmax()]
    print(
        f"photos: {scores.percent(1 - total['correct'] / total['digits'])} of the digits on drawn "
        f"pages missed or misclassified, at most {scores.percent(worst['error'])} "
        f"({worst['condition']})"
    )


if __name__ == "__main__":
    run_stage(main)
