"""Your own pictures, classified by the trained model: loaded, prepared, predicted, accepted or not.

A model of digits gets each digit that is found in a picture; any other gets the picture as a whole,
prepared as its training images were.

    python -m apps.classify photo.jpg folder/ 'scans/*.png'

    from apps.classify import classify
    [page] = classify(["photo.jpg"])

TensorFlow is not imported: the model is a LiteRT file, and starts in a tenth of a second.
"""

import contextlib
import threading
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from apps.classify.find import LIKELY, find_digits, finder, rows_of
from apps.classify.pictures import Picture, load, pages_of
from apps.classify.preparation import prepare, whole
from stages.base import params
from stages.base.data import scaled
from stages.base.stage import UserError
from stages.dataset.picture import opened
from stages.dataset.picture import prepare as as_in_training
from stages.prediction.predict import Ensemble

SQUARE = 0.4, 1.6  # width to height of a picture that may show one digit
LARGE = 0.4  # of the picture's longer side: what is larger fills the picture
# Fitted to what is found in scenes of validation digits: `python -m apps.classify.learn --accept`.
WEIGHTS, OFFSET = (1.97, 0.47, 1.04), -3.51  # of what `evidence` gives
BESIDE, ALIKE = 3, 1.5  # of their sizes: how far off neighbours are, and how much larger, at most
ACCEPT = 0.65  # sureness from which on a digit is accepted
SHOW = 0.8  # sureness if the model were certain, from which on it is at least a question mark
POSSIBLE = 0.4  # the finder's score of what may be a digit
SMALL_PRINT = 0.4  # of the height of what is accepted: lower is something else
LOCK = threading.Lock()  # a LiteRT interpreter serves one call at a time


class Digits(NamedTuple):
    """The digits of one picture, N of them, in reading order; or the picture as a whole, N = 1.

    labels: int, shape (N,); names of the classes are in `names`.
    probabilities: of all classes, float32, shape (N, classes).
    accepted: bool, shape (N,): False if it may be no digit, or the model is too unsure.
    boxes: left, top, right, bottom in pixels of the picture, upright, float, shape (N, 4).
    rows: int from 0, shape (N,).
    images: what the model saw, float32 in [0, 1], shape (N, height, width) or, in colour,
        (N, height, width, 3).
    names: of the classes.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    accepted: np.ndarray
    boxes: np.ndarray
    rows: np.ndarray
    images: np.ndarray
    names: tuple[str, ...]

    def text(self) -> str:
        """The numbers, a row each; a digit that is not accepted is a question mark."""
        signs = [
            self.names[label] if accepted else "?"
            for label, accepted in zip(self.labels, self.accepted, strict=True)
        ]
        glue = "" if max(map(len, self.names)) == 1 else " "
        rows = range(self.rows.max(initial=-1) + 1)
        return "\n".join(
            glue.join(sign for sign, at in zip(signs, self.rows, strict=True) if at == row)
            for row in rows
        )


@cache
def model() -> Ensemble:
    """The packaged models of the seeds in params.yaml, with what they were trained on."""
    here = params.PARAMS.exists()  # else another folder's pictures are classified from there
    with contextlib.chdir("." if here else Path(__file__).absolute().parents[2]):
        found = Ensemble(params.load().seeds)
    if found.info.shows_digits:
        finder()
    return found


def predict(images: np.ndarray, doubtful: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of prepared images, and whether they are accepted.

    Args:
        images: float32 in [0, 1], shape (N, height, width) as the model's, N at least 1.
        doubtful: something else says already that they may show nothing: fewer are accepted.

    Returns:
        Probabilities, float32, shape (N, classes), and accepted, bool, shape (N,): False if an
        image looks too little like those of the training, or no class is sure.
    """
    with LOCK:
        return model()(images[..., None], doubtful)


def classify(pictures: Iterable[Picture]) -> list[Digits]:
    """Find and classify the digits of pictures, or classify each as a whole.

    It may be called by several threads at once. Images that are prepared as MNIST's already may go
    to `predict`, thousands at once.

    Args:
        pictures: paths, open files, Pillow images, or arrays: uint8, or float in [0, 1], of shape
            (height, width[, 1, 3 or 4]). Dark digits on light paper or the reverse.

    Returns:
        For each picture its digits; none if there is no ink, or only what has no digit's shape.

    Raises:
        UserError: a picture cannot be loaded, or no model was trained yet.
    """
    if isinstance(pictures, str | bytes | Path | Image.Image):
        raise UserError(f"expected a list of pictures, found one: classify([{pictures!r}])")
    return [classify_one(picture) for picture in pictures]


def classify_one(picture: Picture) -> Digits:
    """As `classify`, of one picture; further pages of it come below the first."""
    if not model().info.shows_digits:
        return as_a_whole(picture)
    parts, row, below = [], 0, 0.0
    for values, scale in load(picture):
        boxes, rows, images, probabilities, accepted = of_page(values, scale)
        parts.append((boxes + (0, below, 0, below), rows + row, images, probabilities, accepted))
        row, below = row + rows.max(initial=-1) + 1, below + len(values) / scale
    boxes, rows, images, probabilities, accepted = map(np.concatenate, zip(*parts, strict=True))
    labels = probabilities.argmax(axis=1)
    return Digits(labels, probabilities, accepted, boxes, rows, images, model().info.classes)


def as_a_whole(picture: Picture) -> Digits:
    """The class of a picture, which is prepared as the training images were."""
    info = model().info
    fit = info.fit or "crop"
    if isinstance(picture, str | Path):
        try:
            with opened(Path(picture)) as source:
                size = ImageOps.exif_transpose(source).size
                image = as_in_training(source, info.shape, fit)
        except UserError as error:
            raise UserError(f"{picture}: {error}") from None
    else:
        source = pages_of(picture, "RGB")[0][0]
        size, image = source.size, as_in_training(source, info.shape, fit)
    with LOCK:
        probabilities, accepted = model()(image[None])
    box, labels = np.array([[0.0, 0.0, *size]]), probabilities.argmax(axis=1)
    seen = scaled(image[None] if info.channels == 3 else image[None, ..., 0])
    return Digits(labels, probabilities, accepted, box, np.zeros(1, int), seen, info.classes)


def of_page(values: np.ndarray, scale: float) -> tuple[np.ndarray, ...]:
    """Boxes, rows, images, probabilities and what is accepted, of one page as `load` gives it."""
    boxes, scores, inks = find_digits(values)
    images = prepare(inks)
    probabilities = np.zeros((0, len(model().info.classes)), np.float32)
    alike = np.zeros(0, bool)
    if len(images):
        probabilities, alike = predict(images)
    large = (boxes[:, 2:] - boxes[:, :2]).max(axis=1) > LARGE * max(values.shape)
    sure = sureness(boxes, scores, probabilities.max(axis=1), alike, large)
    accepted = alike & (sure >= ACCEPT)
    at_best = sureness(boxes, scores, np.ones(len(boxes)), np.ones_like(alike), large)
    shown = accepted | (at_best >= SHOW)
    height, width = values.shape
    if accepted.any():
        heights = boxes[:, 3] - boxes[:, 1]
        shown &= heights > SMALL_PRINT * np.median(heights[accepted])
    elif SQUARE[0] <= width / height <= SQUARE[1]:  # it may be one digit
        one = whole(values)[None]
        of_one, believed = predict(one, doubtful=True)
        if believed.all():
            box = np.array([[0, 0, width, height]]) / scale
            return box, np.zeros(1, int), one, of_one, believed
        if large.any() and predict(one)[1].all():  # both ways of looking at it agree
            first = (sure * large * alike).argmax()
            accepted[first] = alike[first] and probabilities[first].argmax() == of_one.argmax()
            shown = accepted if accepted.any() else shown
    rows = rows_of(boxes[shown])
    order = np.flatnonzero(shown)[np.lexsort((boxes[shown][:, 0], rows))]
    of_digits = images[order], probabilities[order], accepted[order]
    return boxes[order] / scale, np.sort(rows), *of_digits


def sureness(
    boxes: np.ndarray, scores: np.ndarray, certain: np.ndarray, alike: np.ndarray, large: np.ndarray
) -> np.ndarray:
    """How likely each is a digit, and of its likeliest class: in [0, 1], shape (N,).

    Args:
        boxes, scores: of the finder, shape (N, 4) and (N,).
        certain: the model's probability of the likeliest class, shape (N,).
        alike: whether they look to it like what it was trained on, bool, shape (N,).
        large: whether they fill the picture, bool, shape (N,).
    """
    odds = evidence(boxes, scores, certain, alike, large)
    return 1 / (1 + np.exp(-(odds @ np.array(WEIGHTS) + OFFSET)))


def evidence(
    boxes: np.ndarray, scores: np.ndarray, certain: np.ndarray, alike: np.ndarray, large: np.ndarray
) -> np.ndarray:
    """What speaks for a digit, as logarithms of odds, shape (N, 3): see `sureness`.

    The finder's score, the model's probability, and what is around: the best score of something of
    about its size beside it, or its own if it fills the picture or nothing else in it may be a
    digit. A ring alone may be anything; beside a 7 it is a 0.
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    middles = (boxes[:, 2:] + boxes[:, :2]) / 2
    apart = np.linalg.norm(middles[:, None] - middles, axis=2)
    longer, shorter = np.maximum(sides[:, None], sides), np.minimum(sides[:, None], sides)
    beside = (apart < BESIDE * longer) & (longer < ALIKE * shorter) & alike
    alone = (scores == scores.max(initial=0)) & ((scores >= POSSIBLE).sum() == 1)
    np.fill_diagonal(beside, large | alone)
    around = (beside * scores).max(axis=1, initial=LIKELY)
    shares = np.stack([scores, certain, around], axis=1)
    shares = np.clip(shares, 1e-4, 1 - 1e-4)
    return np.log(shares / (1 - shares))
