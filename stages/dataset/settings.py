"""The sections `download` and `preprocess` of params.yaml."""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator

from stages.base.params import Section, Seed
from stages.base.stage import UserError

UNREACHABLE = Path(".dvc/tmp/unreachable")  # download notes here that it could reach no source


def _number_or_share(value: object) -> object:
    if type(value) is int and value >= 0 or type(value) is float and 0 < value < 1:
        return value
    raise ValueError("expected a number of images (0 or more) or a share (between 0.0 and 1.0)")


class Download(Section):
    """dataset: a name in catalogue.yaml."""

    dataset: str


class Preprocess(Section):
    """How the training images are split.

    validation_size: a number of images (int, 0 for none), or a share of the training set (float
        in (0, 1)), kept out of training to make choices on.
    seed: which images those are.
    """

    validation_size: Annotated[int | float, BeforeValidator(_number_or_share)]
    seed: Seed


def held_out(validation_size: int | float, images: int) -> int:
    """How many of `images` training images are kept out of training.

    Args:
        validation_size: a number (int), or a share of the images (float in (0, 1), rounded).

    Raises:
        UserError: none would be left to train on.
    """
    is_share = isinstance(validation_size, float)
    count = round(validation_size * images) if is_share else validation_size
    if count >= images:
        raise UserError(
            f"params.yaml: preprocess.validation_size: expected fewer than the {images:,} training "
            f"images of the dataset, found {count:,}"
        )
    return count
