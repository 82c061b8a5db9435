"""The sections `seeds` and `train` of params.yaml, and where trained networks are kept."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PlainValidator, model_validator

from stages.base.params import Section, Seed


def _distinct(values: list[int]) -> list[int]:
    if len(set(values)) != len(values):
        raise ValueError("expected each seed only once")
    return values


TRAINED = Path("models/trained")  # a folder per seed: network.keras and curves.csv

Seeds = Annotated[list[Seed], Field(min_length=1), AfterValidator(_distinct)]


class Network(Section):
    """The shape of the CNN, see architecture.py.

    crop: pixels cut off each side before the first convolution.
    filters: channels of each convolution, the first one's first.
    """

    crop: Annotated[int, Field(ge=0, le=6)]
    filters: Annotated[list[Annotated[int, Field(ge=1, le=1024)]], Field(min_length=3)]


class Augment(Section):
    """Limits of the random transformation of each training image, see augment.py.

    rotation: degrees; shift: pixels; zoom and shear: as a fraction. 0 turns a part off.
    """

    rotation: Annotated[float, Field(ge=0, le=180)]
    shift: Annotated[float, Field(ge=0, le=14)]
    zoom: Annotated[float, Field(ge=0, lt=1)]
    shear: Annotated[float, Field(ge=0, lt=1)]


Share = Annotated[float, Field(ge=0, le=1)]


class Photometric(Section):
    """Which shares of a batch are changed in which way, see photometric.py; 0 turns a way off.

    full_until: part of the training with these shares; afterwards they fall linearly.
    at_end: the part of them that is left in the last step.
    """

    illumination: Share
    strokes: Share
    blur: Share
    polarity: Share
    noise: Share
    outline: Share
    full_until: Annotated[float, Field(ge=0, lt=1)]
    at_end: Share

    @model_validator(mode="after")
    def _fits_a_batch(self) -> "Photometric":
        ways = self.illumination, self.strokes, self.blur, self.polarity, self.noise, self.outline
        if sum(ways) > 1:
            raise ValueError(f"expected shares that add up to at most 1, found {sum(ways):g}")
        return self


def _threads(value: object) -> int | str:
    if value != "auto" and (type(value) is not int or not 1 <= value <= 1024):
        raise ValueError("expected 1 to 1024, or auto")
    return value


class Train(Section):
    """How a network is trained; params.yaml says what each value means."""

    epochs: Annotated[int, Field(ge=1, le=10_000)]
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)]
    learning_rate: Annotated[float, Field(gt=0)]
    muon_learning_rate: Annotated[float, Field(gt=0)]
    warmup: Annotated[float, Field(ge=0, lt=1)]
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0)]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    instructions: Literal["avx512", "avx2"]
    threads: Annotated[int | str, PlainValidator(_threads)]
    network: Network
    augment: Augment
    photometric: Photometric


def folder_of(seed: int) -> Path:
    """Where training puts the network of that seed and its learning curves."""
    return TRAINED / f"seed-{seed}"
