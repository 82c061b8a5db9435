"""params.yaml as typed values, checked as a whole before a stage does any work."""

import re
from pathlib import Path

import yaml
from pydantic import ValidationError

from stages.base.settings import Params
from stages.base.stage import UserError

PARAMS = Path("params.yaml")


def load(path: Path = PARAMS) -> Params:
    """All params, checked. A stage uses those sections that dvc.yaml lists for it.

    Raises:
        UserError: the file is missing or not YAML, or a value is missing, unknown, of the wrong
            type or out of range; the message names each such key, what was expected and found.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{PARAMS} not found: run the stages from the project's folder") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{PARAMS} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        keys = ", ".join(Params.model_fields)
        raise UserError(f"{PARAMS}: expected the keys {keys}, found {content!r}")
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{PARAMS}: {describe(error)}") from None


def describe(error: ValidationError, *place: str) -> str:
    """What is wrong, as `train.epochs: Input should be a valid integer, found 'x'`, and so on.

    Args:
        error: of pydantic, for the content of a YAML file.
        place: the keys under which the content stands in that file.
    """
    return "; ".join(
        _describe(fault, ".".join(map(str, place + fault["loc"]))) for fault in error.errors()
    )


def _describe(fault: dict, name: str) -> str:
    if fault["type"] in ("missing", "extra_forbidden"):
        return f"{name}: {'missing' if fault['type'] == 'missing' else 'unknown key'}"
    message = fault["msg"].removeprefix("Value error, ").removesuffix(" or instance of Entry")
    message = message.replace("valid tuple", "valid list").replace("Tuple", "List")  # as in YAML
    text = f"{name}: {message}, found {repr(fault['input'])[:200]}"
    if re.fullmatch(r"-?\d+e-?\d+", str(fault["input"])):
        text += " (YAML takes 1e-4 for text: write 1.0e-4)"
    elif fault["type"] == "string_type":
        text += " (text that looks like a number or yes/no needs quotes)"
    return text
