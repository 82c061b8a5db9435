"""params.yaml as typed values, checked before a stage does any work.

Each room describes its sections as pydantic models (`settings.py`). A stage loads its own section;
the stage `environment`, which runs first, checks them all.
"""

import re
from pathlib import Path
from typing import Annotated, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from stages.base.stage import UserError

PARAMS = Path("params.yaml")
SEED_LIMIT = 2**31  # all seeds are below

Seed = Annotated[int, Field(ge=0, lt=SEED_LIMIT)]
Kind = TypeVar("Kind")


class Section(BaseModel):
    """Rules for all sections: no unknown keys, no guessing between types, no NaN, read-only."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


def load(key: str, kind: type[Kind]) -> Kind:
    """The value of one top-level key of params.yaml, as an object of `kind`.

    Raises:
        UserError: as of `load_all`.
    """
    return load_all({key: kind}, others=True)[key]


def load_all(kinds: dict[str, type], others: bool = False) -> dict:
    """The values of some top-level keys of params.yaml, each as an object of its kind.

    Args:
        kinds: by key.
        others: whether the file may have other keys, too.

    Raises:
        UserError: the file is missing or not YAML, or a value is missing, unknown, of the wrong
            type or out of range; the message names each such key, what was expected and found.
    """
    try:
        content = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{PARAMS} not found: run the stages from the project's folder") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{PARAMS} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{PARAMS}: expected the keys {', '.join(kinds)}, found {content!r}")
    if others:
        content = {key: content[key] for key in kinds if key in content}
    model = create_model("Params", __base__=Section, **kinds)
    try:
        return dict(model.model_validate(content))
    except ValidationError as error:
        faults = "; ".join(_describe(fault) for fault in error.errors())
        raise UserError(f"{PARAMS}: {faults}") from None


def _describe(fault: dict) -> str:
    """One pydantic error as `train.epochs: Input should be a valid integer, found 'x'`."""
    name = ".".join(map(str, fault["loc"]))
    if fault["type"] in ("missing", "extra_forbidden"):
        return f"{name}: {'missing' if fault['type'] == 'missing' else 'unknown key'}"
    text = f"{name}: {fault['msg'].removeprefix('Value error, ')}, found {fault['input']!r}"
    if re.fullmatch(r"-?\d+e-?\d+", str(fault["input"])):
        text += " (YAML takes 1e-4 for text: write 1.0e-4)"
    return text
