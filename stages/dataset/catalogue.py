"""The catalogue of datasets, catalogue.yaml: its first lines say how to add one.

Every dataset is four gzipped IDX files under MNIST's own file names, so that all later stages are
the same code.
"""

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

from stages.base.stage import UserError

CATALOGUE = Path(__file__).with_name("catalogue.yaml")
RAW = Path("data/raw")  # where download puts the files, and preprocess finds them

TRAIN_IMAGES = "train-images-idx3-ubyte.gz"
TRAIN_LABELS = "train-labels-idx1-ubyte.gz"
TEST_IMAGES = "t10k-images-idx3-ubyte.gz"
TEST_LABELS = "t10k-labels-idx1-ubyte.gz"


class File(BaseModel):
    """One published file: its size in bytes and its SHA-256, both of the .gz."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int
    sha256: str


class Dataset(BaseModel):
    """One dataset.

    subject: what an image shows. licence: of the files.
    training_images, test_images: how many there are; some training images are for validation.
    classes: their names, by label.
    files: the published files by name; none if the dataset is made on this machine (`digits`).
    mirrors: addresses or folders, in the order in which they are tried.
    disputed: indices of the test images whose label people doubt.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    subject: str
    licence: str
    training_images: int
    test_images: int
    classes: tuple[str, ...]
    files: dict[str, File] = {}
    mirrors: tuple[str, ...] = ()
    disputed: tuple[int, ...] = ()


def find(name: str) -> Dataset:
    """The catalogue's entry of that name.

    Raises:
        UserError: there is none; the message lists those there are.
    """
    entries = yaml.safe_load(CATALOGUE.read_text(encoding="utf-8"))
    if name not in entries:
        known = ", ".join(entries)
        raise UserError(f"params.yaml: download.dataset: expected one of {known}, found {name!r}")
    return Dataset(**entries[name])
