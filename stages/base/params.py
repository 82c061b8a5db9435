"""params.yaml as typed objects, checked before a stage does any work.

Every stage checks the whole file, so that a mistake in the last section shows before the first
stage has run for minutes, and then reads only the values that its entry in dvc.yaml lists.
"""

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)
from yaml.composer import ComposerError

from stages.base.stage import UserError


def _distinct(values: list[int]) -> list[int]:
    if len(set(values)) != len(values):
        raise ValueError("each seed may be listed only once")
    return values


def _number_or_share(value: object) -> object:
    if type(value) is int and value >= 0 or type(value) is float and 0 < value < 1:
        return value
    raise ValueError("expected a number of images (0 or more) or a share (between 0.0 and 1.0)")


SEEDS = 2**31  # all seeds are below
Seed = Annotated[int, Field(ge=0, lt=SEEDS)]


class Section(BaseModel):
    """Common rules: unknown keys refused, no guessing between types, no NaN, read-only."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class Download(Section):
    """Which dataset of stages/datasets.py to fetch."""

    dataset: str


class Preprocess(Section):
    """How the training images are split.

    validation_size: a number of images (int, 0 for none), or a share of the training set (float
        in (0, 1)), kept out of training to make choices on.
    seed: which images those are.
    """

    validation_size: Annotated[int | float, BeforeValidator(_number_or_share)]
    seed: Seed


class Network(Section):
    """The shape of the CNN, see stages/network.py.

    crop: pixels cut off each side before the first convolution.
    filters: channels of each convolution, the stem first; the second and third end in max pooling.
    """

    crop: Annotated[int, Field(ge=0, le=6)]
    filters: Annotated[list[Annotated[int, Field(ge=1, le=1024)]], Field(min_length=3)]


class Augment(Section):
    """Limits of the random transformation of each training image, see stages/augment.py.

    rotation: degrees; shift: pixels; zoom and shear: as a fraction. 0 turns a part off.
    """

    rotation: Annotated[float, Field(ge=0, le=180)]
    shift: Annotated[float, Field(ge=0, le=14)]
    zoom: Annotated[float, Field(ge=0, lt=1)]
    shear: Annotated[float, Field(ge=0, lt=1)]


class Train(Section):
    """How a network is trained, and how many of them: one per entry of `seeds`."""

    seeds: Annotated[list[Seed], Field(min_length=1), AfterValidator(_distinct)]
    epochs: Annotated[int, Field(ge=1, le=10_000)]
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)]
    learning_rate: Annotated[float, Field(gt=0)]
    muon_learning_rate: Annotated[float, Field(gt=0)]
    warmup: Annotated[float, Field(ge=0, lt=1)]
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0)]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    average_shift: Annotated[int, Field(ge=0, le=14)]
    network: Network
    augment: Augment


class Evaluate(Section):
    """What the pictures show.

    samples: images of each class in the picture of sample predictions, drawn with `seed`.
    mistakes: images in the gallery of mistakes, at most.
    uncertain: images in the gallery of the least certain right answers, at most.
    """

    samples: Annotated[int, Field(ge=1, le=20)]
    mistakes: Annotated[int, Field(ge=1, le=400)]
    uncertain: Annotated[int, Field(ge=1, le=400)]
    seed: Seed


class Robustness(Section):
    """On which test images the corruptions of stages/corruptions.py are tried.

    images: how many, drawn with `seed`; all if there are fewer. `seed` also drives the corruptions.
    """

    images: Annotated[int, Field(ge=1)]
    seed: Seed


class Params(Section):
    """All of params.yaml, one section per stage."""

    download: Download
    preprocess: Preprocess
    train: Train
    evaluate: Evaluate
    robustness: Robustness


LONGEST = 1000  # characters of a value: far more than any here, and few enough to be shown


class _Loader(yaml.SafeLoader):
    """Makes plain values only, and refuses what could unfold to more than the file's own size."""

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise ComposerError(None, None, "aliases (*name) are not allowed", event.start_mark)
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > LONGEST:
            text = f"more than {LONGEST} characters are not allowed"
            raise ComposerError(None, None, text, event.start_mark)
        return super().compose_node(parent, index)


def load(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml.

    Raises:
        UserError: the file is missing, is no YAML, or a value is missing, unknown, of the wrong
            type or out of range; the message names each such key, what was expected and found.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} not found: run the stages from the project's folder") from None
    try:
        content = yaml.load(text.decode(), _Loader)
    except Exception as error:  # PyYAML raises many types on odd tags
        raise UserError(_one_line(f"{path} is not valid YAML: {error}")) from None
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        faults = dict.fromkeys(_describe(fault) for fault in error.errors())
        raise UserError(_one_line(f"{path}: {'; '.join(faults)}")) from None


def _one_line(text: str) -> str:
    """`text` without line ends and without what a terminal would obey instead of showing it."""
    return "".join(char if char.isprintable() else "\ufffd" for char in " ".join(text.split()))


def _describe(fault: dict) -> str:
    """One pydantic error as `train.epochs: Input should be a valid integer, found 'x'`."""
    key = ".".join(map(str, fault["loc"])) or "the file"
    if fault["type"] == "missing":
        return f"{key}: missing"
    if fault["type"] == "extra_forbidden":
        return f"{key}: unknown key"
    text = f"{key}: {fault['msg'].removeprefix('Value error, ')}, found {fault['input']!r}"
    if isinstance(fault["input"], str) and "e" in fault["input"].lower():
        try:
            float(fault["input"])
            text += " (YAML reads 1e-4 as text: write 1.0e-4)"
        except ValueError:
            pass
    return text
