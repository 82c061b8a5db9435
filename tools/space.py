"""What `python -m tools.search` may vary: a YAML file of params and their limits, checked."""

import re
from pathlib import Path

import pandas as pd
import yaml

from stages.base.stage import UserError
from tools.run import check


def flat(params: dict) -> dict:
    """All params by their names with dots."""
    return pd.json_normalize(params).to_dict("records")[0]


def options(values: dict) -> list[str]:
    """Options that set params, floats with four digits: people read them in params.yaml."""
    return [f"-S{k}={f'{v:.4g}' if isinstance(v, float) else v}" for k, v in values.items()]


def load_space(path: Path, fixed: list[str], values: dict) -> dict[str, tuple[str, dict]]:
    """What may be searched: by param the method of Optuna's that draws it, and its arguments.

    Args:
        path: of a YAML file, see presets/search.yaml.
        fixed: options that set params of all trials.
        values: all params with these, by their names with dots.

    Raises:
        UserError: the file is not YAML, or an entry is wrong; the message names it.
    """
    from optuna.trial import FixedTrial  # optional: search says how to install it

    try:
        entries = dict(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: expected params, in YAML: {' '.join(str(error).split())}"
        ) from None
    space, ends = {}, {}
    for param, entry in entries.items():
        searchable = param in values and re.match(r"(train|package)\.", param)
        if not searchable or any(option.startswith(f"-S{param}=") for option in fixed):
            raise UserError(f"{path}: {param}: expected a param of train or package, without -S")
        try:
            ends[param] = entry.get("choices") or [entry["low"], entry["high"]]
            kind = "int" if {*map(type, ends[param])} == {int} else "float"
            space[param] = f"suggest_{'categorical' if 'choices' in entry else kind}", entry
            getattr(FixedTrial(values), space[param][0])(param, **entry)
            if "low" in entry and not entry["low"] <= values[param] <= entry["high"]:
                raise ValueError
        except (AttributeError, KeyError, TypeError, ValueError):
            raise UserError(
                f"{path}: {param}: expected low and high (above 0 with `log: true`), or choices, "
                f"so that {values[param]} of params.yaml is one of them; found {entry}"
            ) from None
    for number in range(max(map(len, ends.values()), default=0)):
        tried = {param: of[min(number, len(of) - 1)] for param, of in ends.items()}
        try:
            check([*fixed, *options(tried)])
        except UserError as error:
            raise UserError(f"{path}: {str(error).removeprefix('params.yaml: ')}") from None
    return space
