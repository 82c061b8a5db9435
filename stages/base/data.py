"""What is known of the data, and the arrays between stages.

`dataset.json` goes with the data wherever it is: `download` puts it beside the files, `preprocess`
beside the arrays of each split. So no stage needs to ask what the dataset is called, how large its
images are or what its classes mean.

Arrays stay bytes (uint8): a quarter of the disk, of DVC's cache and of the memory that floats take.
`scaled` makes floats of them where a batch is made.
"""

from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stages.base.files import atomic_output
from stages.base.stage import UserError

RAW = Path("data/raw")  # where download puts the files, and preprocess finds them
PROCESSED = Path("data/processed")  # a folder per split
TRAINED = Path("models/trained")  # a file per seed
CURVES = Path("models/curves")  # what was measured in each epoch, a file per seed
SPLITS = ("train", "validation", "test")
Count = Annotated[int, Field(ge=0)]


class DatasetInfo(BaseModel):
    """What is known of a dataset, as stored in `dataset.json`.

    name: as in params.yaml. subject: what an image shows. licence: of the images.
    classes: their names, by label.
    height, width: of an image, in pixels. channels: 1 (grey) or 3 (red, green, blue).
    images: how many there are, by split; beside the arrays of a split, of this one only.
    disputed: numbers of test images whose label people doubt.
    fit: how pictures became images of one size, if they were made from pictures.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    subject: str
    licence: str
    classes: tuple[str, ...]
    height: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]
    channels: Literal[1, 3]
    images: dict[Literal["train", "validation", "test"], Count]
    disputed: tuple[Count, ...] = ()
    fit: Literal["crop", "pad"] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image: height, width, channels."""
        return self.height, self.width, self.channels

    @property
    def shows_digits(self) -> bool:
        """Whether the images are grey ones of the digits 0 to 9, as MNIST's are."""
        return self.classes == tuple("0123456789") and self.channels == 1


class Split(NamedTuple):
    """The images of one split.

    images: uint8, shape (N, height, width, channels), memory-mapped and read-only.
    labels: uint8, shape (N,).
    numbers: uint32, shape (N,): an image's number in the source, e.g. MNIST's file of test images.
    info: what is known of them.
    """

    images: np.ndarray
    labels: np.ndarray
    numbers: np.ndarray
    info: DatasetInfo


def trained_model(seed: int) -> Path:
    """Where training puts the model of that seed."""
    return TRAINED / f"seed-{seed}.keras"


def curves_of(seed: int) -> Path:
    """Where training puts the learning curves of that seed."""
    return CURVES / f"seed-{seed}.csv"


def scaled(images: np.ndarray) -> np.ndarray:
    """Bytes as float32 in [0, 1], of the same shape.

    >>> scaled(np.array([0, 51, 255], np.uint8))
    array([0. , 0.2, 1. ], dtype=float32)
    """
    return images / np.float32(255)


def write_info(info: DatasetInfo, folder: Path) -> None:
    """Write `dataset.json` into a folder, whole or not at all."""
    with atomic_output(folder / "dataset.json") as temporary:
        temporary.write_text(info.model_dump_json(indent=2) + "\n", encoding="utf-8", newline="\n")


def load_info(folder: Path) -> DatasetInfo:
    """What `dataset.json` in a folder says.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = folder / "dataset.json"
    try:
        return DatasetInfo.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        stage = "download" if folder == RAW else "preprocess"
        raise UserError(f"{path} {_again(error, stage)}") from None


def load(path: Path) -> np.ndarray:
    """The array in `path`, memory-mapped and read-only; nothing is unpickled.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} {_again(error, 'preprocess')}") from None


def load_split(split: str) -> Split:
    """The images of "train", "validation" or "test", as preprocess wrote them.

    Raises:
        UserError: a file is missing or damaged.
    """
    folder = PROCESSED / split
    names = ("images", "labels", "numbers")
    return Split(*(load(folder / f"{name}.npy") for name in names), load_info(folder))


def _again(error: Exception, stage: str) -> str:
    """DVC makes what is missing, but it may take a damaged output from its cache: `--force`."""
    if isinstance(error, FileNotFoundError):
        return "not found: run `dvc repro`"
    reason = " ".join(str(error).split())[:200]
    return f"cannot be loaded ({reason}): run `dvc repro --force --single-item {stage}`"
