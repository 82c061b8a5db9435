"""The catalogue of published datasets, catalogue.yaml: its first lines say how to add one.

Every dataset is four gzipped IDX files under MNIST's own file names, so that all later stages are
the same code. Only `download` looks here.
"""

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from stages.base.params import describe
from stages.base.stage import UserError
from stages.dataset import idx

CATALOGUE = Path(__file__).with_name("catalogue.yaml")
UNREACHABLE = Path(".dvc/tmp/unreachable")  # download notes here that it could reach no source


Name = Annotated[str, Field(pattern=r"\S")]  # not blank


class File(BaseModel):
    """One published file: its size in bytes and its SHA-256, both of the .gz."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    size: Annotated[int, Field(ge=1)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def _different(names: tuple[str, ...]) -> tuple[str, ...]:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"expected different names, found {twice[0]!r} more than once")
    return names


class Entry(BaseModel):
    """One dataset.

    subject: what an image shows. licence: of the files.
    classes: their names, by label.
    files: the published files by name, labels and images of the splits train and test.
    mirrors: addresses or folders, in the order in which they are tried.
    disputed: numbers of the test images whose label people doubt.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    subject: str
    licence: str
    classes: Annotated[
        tuple[Name, ...],
        Field(min_length=2, max_length=256),
        AfterValidator(_different),
    ]
    files: dict[str, File]
    mirrors: Annotated[tuple[Name, ...], Field(min_length=1)]
    disputed: tuple[Annotated[int, Field(ge=0)], ...] = ()

    @model_validator(mode="after")
    def _has_all_files(self) -> "Entry":
        sets = [_file_names(channels) for channels in (1, 3)]
        if {*self.files} not in sets:
            raise ValueError(f"files: expected {', '.join(sorted(sets[0]))} (idx4 in colour)")
        return self


def _file_names(channels: int) -> set[str]:
    splits = ("train", "test")
    images = {idx.images_file(split, channels) for split in splits}
    return images | {idx.labels_file(split) for split in splits}


def names() -> list[str]:
    """What may be chosen: all datasets of the catalogue.

    Raises:
        UserError: the catalogue cannot be loaded.
    """
    return list(_entries())


def find(name: str) -> Entry:
    """The catalogue's entry of that name, which is one of `names`.

    Raises:
        UserError: the entry is wrong; the message says what of it.
    """
    try:
        return Entry.model_validate(_entries()[name])
    except ValidationError as error:
        raise UserError(f"{CATALOGUE}: {describe(error, name)}") from None


def _entries() -> dict:
    try:
        entries = yaml.load(CATALOGUE.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{CATALOGUE} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(entries, dict):
        raise UserError(f"{CATALOGUE}: expected datasets by name, found {entries!r}")
    if wrong := [name for name in entries if not isinstance(name, str)]:
        raise UserError(f"{CATALOGUE}: expected a name in quotes, found {wrong[0]!r}")
    return entries


class _Loader(yaml.SafeLoader):
    """Of two entries of one name, YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value]
        for key, _ in reversed(node.value):
            if keys.count(key.value) > 1:
                raise yaml.MarkedYAMLError(
                    problem=f"found the key {key.value!r} twice", problem_mark=key.start_mark
                )
        return super().construct_mapping(node, deep)
