"""The versions of the packages that decide results.

requirements.txt pins some 150 packages; a new version of most changes no result. Those that do are
noted in a file that training depends on: with another version of TensorFlow the networks are
trained again, with another version of pytest they are not. `tensorflow-cpu` is TensorFlow without
its parts for GPUs: the same code, so either will do.
"""

import re
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from stages.base.stage import UserError

REQUIREMENTS = Path("requirements.txt")
ENVIRONMENT = Path("data/environment.txt")
DECISIVE = ("ai-edge-litert", "h5py", "keras", "ml-dtypes", "numpy", "scipy", "tensorflow")


def check(source: Path) -> dict[str, str]:
    """Compare the installed versions of the decisive packages with the pins in a file.

    Args:
        source: lines like `numpy==2.4.6`; of several pins of a package, for several versions of
            Python, one must be the installed one.

    Returns:
        The installed versions by package.

    Raises:
        UserError: a package is missing, not pinned, or installed in another version.
    """
    text = source.read_text(encoding="utf-8")
    pins = re.findall(r"^([\w-]+?)(?:-cpu)?==(\S+)", text, re.MULTILINE)
    versions, faults = {}, []
    for name in DECISIVE:
        expected = dict.fromkeys(version for pinned, version in pins if pinned == name)
        versions[name] = installed(name)
        if versions[name] not in expected:
            wanted = " or ".join(expected) or "(no pin: run `make lock`)"
            faults.append(f"{name} {wanted}, found {versions[name]}")
    if faults:
        raise UserError(
            f"installed packages differ from {source}: expected {'; '.join(faults)}. Run "
            "`pip install -r requirements.txt`; to change a version, change it there"
        )
    return versions


def installed(name: str) -> str:
    """The version of a package or of its build for CPUs, or "none"."""
    for build in (f"{name}-cpu", name):
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(build)
    return "none"
