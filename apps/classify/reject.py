"""Whether what was found is a digit at all, and whether the network is sure which one.

A network trained on digits takes everything for one. But a letter or a scribble rarely looks to it
like the images it was trained on: its features, what the last layer classifies, point elsewhere.
(After K. Lee et al., "A simple unified framework for detecting out-of-distribution samples and
adversarial attacks", arXiv 1807.03888, 2018, who measure that by distances from the classes'
means.) The stage `photos` finds the groups into which the features of each class's training images
fall, and the threshold.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.base import arrays
from stages.base.files import write_json
from stages.base.stage import UserError

FOLDER = Path("models/classify")
SETTINGS, CENTRES = FOLDER / "rejection.json", FOLDER / "centres.npy"
LEAST = 0.5  # probability: the class is likelier than all others together


class Rejection(NamedTuple):
    """What is accepted as a digit.

    dataset: that the networks were trained on.
    names: of its classes.
    threshold: the least likeness of what is accepted, a cosine.
    centres: directions of the groups' features, length 1, shape (networks, classes, groups,
        features).
    """

    dataset: str
    names: tuple[str, ...]
    threshold: float
    centres: np.ndarray

    def accepts(self, probabilities: np.ndarray, features: list[np.ndarray]) -> np.ndarray:
        """Whether images look like digits and their classes are sure, bool, shape (N,).

        Args:
            probabilities: mean over the networks, shape (N, classes).
            features: of each network, shape (N, features).
        """
        likeness = self.likeness(probabilities, features)
        return (likeness >= self.threshold) & (probabilities.max(axis=1) >= LEAST)

    def likeness(self, probabilities: np.ndarray, features: list[np.ndarray]) -> np.ndarray:
        """How much images look like those of their predicted class: a cosine, shape (N,)."""
        labels, found = probabilities.argmax(axis=1), np.zeros(len(probabilities))
        for values, centres in zip(features, self.centres, strict=True):
            lengths = np.linalg.norm(values, axis=1, keepdims=True)
            cosines = np.einsum("nf,ngf->ng", values / np.maximum(lengths, 1e-9), centres[labels])
            found += cosines.max(axis=1) / len(features)
        return found


def load() -> Rejection:
    """What the stage `photos` wrote.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        found = json.loads(SETTINGS.read_text(encoding="utf-8"))
        centres = arrays.load(CENTRES).astype(np.float32)
    except (FileNotFoundError, UserError) as error:
        message = f"no threshold for digits ({error}): run `dvc repro apps/dvc.yaml` first"
        raise UserError(message) from None
    return Rejection(found["dataset"], tuple(found["names"]), found["threshold"], centres)


def save(known: Rejection, new: Callable[[Path], Path]) -> None:
    """Write both files of `known`, within `replacing_together`, which gives `new`."""
    settings = known._asdict()
    with open(new(CENTRES), "wb") as file:
        np.save(file, np.float16(settings.pop("centres")))
    write_json(new(SETTINGS), settings)
