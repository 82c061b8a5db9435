"""What params.yaml may contain: the type and the limits of every setting, a class per section.

Every stage checks all of params.yaml before it does any work (see params.py), so that a slip in a
section that is used last does not show after an hour of training. What a value means stands beside
it in params.yaml. Limits that depend on the data are checked by the stage that loads the data.
"""

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    model_validator,
)

SEED_LIMIT = 2**31  # all seeds are below

Seed = Annotated[int, Field(ge=0, lt=SEED_LIMIT)]
Share = Annotated[float, Field(ge=0, le=1)]
PartOfAll = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """Rules for all sections: no unknown keys, no guessing between types, no NaN, read-only."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


def _distinct(values: list[int]) -> list[int]:
    if len(set(values)) != len(values):
        raise ValueError("expected each seed only once")
    return values


def _auto_or_bool(value: object) -> object:
    if value != "auto" and not isinstance(value, bool):
        raise ValueError("expected auto, true or false")
    return value


Seeds = Annotated[list[Seed], Field(min_length=1), AfterValidator(_distinct)]


class Download(Section):
    """Which dataset, and how a folder of pictures becomes images of one size."""

    dataset: str
    size: Annotated[int, Field(ge=16, le=128)]  # pixels
    colour: Annotated[bool | str, PlainValidator(_auto_or_bool)]
    fit: Literal["crop", "pad"]
    unreadable: Share


class Preprocess(Section):
    """How images are split."""

    test_size: PartOfAll
    validation_size: PartOfAll
    seed: Seed


class Network(Section):
    """The shape of the CNN, see stages/network/architecture.py."""

    crop: Annotated[int, Field(ge=0)]  # pixels
    filters: Annotated[list[Annotated[int, Field(ge=1, le=1024)]], Field(min_length=3)]


class Augment(Section):
    """Limits of the random transformation of each training image; 0 turns a part off."""

    rotation: Annotated[float, Field(ge=0, le=180)]  # degrees
    shift: Annotated[float, Field(ge=0)]  # pixels
    zoom: PartOfAll
    shear: PartOfAll
    flip: bool


class Photometric(Section):
    """Which shares of a batch are changed in which way; 0 turns a way off."""

    illumination: Share
    strokes: Share
    blur: Share
    polarity: Share
    noise: Share
    outline: Share
    full_until: PartOfAll
    at_end: Share

    @model_validator(mode="after")
    def _fits_a_batch(self) -> "Photometric":
        ways = self.illumination, self.strokes, self.blur, self.polarity, self.noise, self.outline
        if sum(ways) > 1 + 1e-9:  # six times 1/6 is a little more than 1
            raise ValueError(f"expected shares that add up to at most 1, found {sum(ways):g}")
        return self


def _threads(value: object) -> int | str:
    if value != "auto" and (type(value) is not int or not 1 <= value <= 1024):
        raise ValueError("expected 1 to 1024, or auto")
    return value


class Train(Section):
    """How a model is trained."""

    epochs: Annotated[int, Field(ge=1, le=10_000)]
    patience: Annotated[int, Field(ge=0)]  # epochs
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)]
    least_steps: Annotated[int, Field(ge=1, le=10_000)]  # per epoch
    learning_rate: Annotated[float, Field(gt=0)]
    muon_learning_rate: Annotated[float, Field(gt=0)]
    warmup: PartOfAll
    momentum: PartOfAll
    weight_decay: Annotated[float, Field(ge=0)]
    label_smoothing: PartOfAll
    class_weights: Literal["none", "balanced"]
    instructions: Literal["avx512", "avx2"]
    threads: Annotated[int | str, PlainValidator(_threads)]
    network: Network
    augment: Augment
    photometric: Photometric


class Package(Section):
    """What is made of a trained model."""

    average_shift: Annotated[int, Field(ge=0)]  # pixels


class Evaluate(Section):
    """What the pictures show."""

    samples: Annotated[int, Field(ge=1, le=20)]
    misclassified: Annotated[int, Field(ge=1, le=400)]
    seed: Seed


class Robustness(Section):
    """On how many test images the corruptions are tried, and which."""

    images: Annotated[int, Field(ge=1)]
    seed: Seed


class Params(Section):
    """All of params.yaml."""

    seeds: Seeds
    download: Download
    preprocess: Preprocess
    train: Train
    package: Package
    evaluate: Evaluate
    robustness: Robustness
