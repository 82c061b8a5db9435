"""The versions of the packages that decide results.

requirements.txt pins some 150 packages; a new version of most changes no result. Those that do
stand in versions.txt, too, which all stages depend on: with another version of TensorFlow the
models are trained again, with another version of pytest they are not. `make lock` writes both.
"""

import re
from importlib import metadata
from pathlib import Path

from stages.base.stage import UserError

PINS = Path(__file__).with_name("versions.txt")
# The same code is also distributed without its parts for GPUs, under another name.
ALSO_NAMED = {"tensorflow": "tensorflow-cpu"}


def check() -> None:
    """Compare the installed versions of these packages with their pins.

    Raises:
        UserError: a package is missing, or installed in another version.
    """
    pins: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([\w-]+)==(\S+)", PINS.read_text("utf-8"), re.MULTILINE):
        pins.setdefault(name, []).append(version)  # several if they differ by Python's version
    faults = []
    for name, expected in pins.items():
        found = installed(name)
        if not {*found} & {*expected}:
            faults.append(f"{name} {' or '.join(expected)}, found {' and '.join(found) or 'none'}")
    if faults:
        raise UserError(
            f"installed packages differ from {PINS.name}: expected {'; '.join(faults)}. Run "
            "`pip install -r requirements.txt`; to change a version, see `make lock`"
        )


def installed(package: str) -> list[str]:
    """The installed versions of a package, under both names if it has two; may be empty."""
    names = {package, ALSO_NAMED.get(package, package)}
    return [found.version for name in names for found in metadata.distributions(name=name)]
