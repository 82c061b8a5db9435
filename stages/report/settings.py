"""The sections `evaluate` and `robustness` of params.yaml."""

from typing import Annotated

from pydantic import Field

from stages.base.params import Section, Seed


class Evaluate(Section):
    """What the pictures show.

    samples: images of each class in the picture of sample predictions, drawn with `seed`.
    misclassified: images in the picture of misclassified images, at most.
    """

    samples: Annotated[int, Field(ge=1, le=20)]
    misclassified: Annotated[int, Field(ge=1, le=400)]
    seed: Seed


class Robustness(Section):
    """On which test images the corruptions are tried.

    images: how many, drawn with `seed`; all if there are fewer. `seed` also drives the corruptions.
    """

    images: Annotated[int, Field(ge=1)]
    seed: Seed
